//! Prepares the interpreter for runs, once: native functions, `glue.py`, and our own copy of the package
//! `automation`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyModule};
use pyo3::{intern, wrap_pyfunction};

use super::threads::ThreadStart;
use super::{environ, folder, guard, hooks, main_module, purity, streams, sys_view, threads};

/// The name under which the glue's frames can be told from a script's.
const FILE: &str = "<automation>";

/// The parts of the glue, executed one after another in one namespace.
const SOURCES: [&str; 7] = [
    include_str!("../../python/automation/_report.py"),
    include_str!("../glue.py"),
    include_str!("../glue/folder.py"),
    include_str!("../glue/settings.py"),
    include_str!("../glue/views.py"),
    include_str!("../glue/pools.py"),
    include_str!("../glue/soundness.py"),
];

/// What runs need of Python, looked up once.
#[derive(Debug)]
pub(crate) struct Glue {
    pub(super) namespace: Py<PyDict>,
    pub(crate) report: Py<PyAny>,
    pub(crate) call_exit_functions: Py<PyAny>,
    pub(crate) meet_interruption: Py<PyAny>,
    pub(crate) join_threads: Py<PyAny>,
    pub(super) begin_thread: Py<PyAny>,
    /// The class of what is `__main__`.
    pub(super) run_module: Py<PyAny>,
    pub(super) restore_main: Py<PyAny>,
    /// `sys.modules`.
    pub(super) modules: Py<PyDict>,
    pub(crate) builtins: Py<PyAny>,
    pub(crate) compile: Py<PyAny>,
    pub(crate) gettrace: Py<PyAny>,
    pub(crate) getprofile: Py<PyAny>,
}

static GLUE: PyOnceLock<Glue> = PyOnceLock::new();

impl Glue {
    /// Returns what [`install`] has looked up.
    pub(crate) fn get(py: Python<'_>) -> &'static Self {
        GLUE.get(py)
            .expect("an executor exists only once the interpreter is prepared")
    }

    /// Returns what [`install`] has looked up; `None` before that.
    pub(super) fn try_get(py: Python<'_>) -> Option<&'static Self> {
        GLUE.get(py)
    }

    /// Returns a function of `glue.py`.
    pub(crate) fn function<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.namespace.bind(py).as_any().get_item(name)
    }

    fn load(py: Python<'_>) -> PyResult<Self> {
        let namespace = natives(py)?;
        for source in SOURCES {
            execute(py, source, &namespace)?;
        }
        let find =
            |name: &str| -> PyResult<Py<PyAny>> { Ok(namespace.as_any().get_item(name)?.unbind()) };
        let sys = py.import("sys")?;
        let builtins = py.import("builtins")?;
        Ok(Self {
            report: find("report")?,
            run_module: find("RunModule")?,
            restore_main: find("restore_main")?,
            modules: sys.getattr("modules")?.cast_into::<PyDict>()?.unbind(),
            call_exit_functions: find("call_exit_functions")?,
            meet_interruption: find("meet_interruption")?,
            join_threads: find("join_threads")?,
            begin_thread: find("begin_thread")?,
            compile: builtins.getattr("compile")?.unbind(),
            gettrace: sys.getattr("gettrace")?.unbind(),
            getprofile: sys.getattr("getprofile")?.unbind(),
            builtins: builtins.into_any().unbind(),
            namespace: namespace.unbind(),
        })
    }
}

/// Prepares the interpreter. A host's own objects stay, and on its threads everything passes through to them.
pub(crate) fn install(py: Python<'_>, hosted: bool) -> PyResult<()> {
    if GLUE.get(py).is_some() {
        return Ok(());
    }
    let glue = Glue::load(py)?;
    streams::install(py)?;
    hooks::install(py)?;
    sys_view::install(py, &glue.function(py, "ModuleKind")?)?;
    for part in [
        "modules", "environ", "threads", "atexit", "fork", "folder", "settings", "warnings",
    ] {
        glue.function(py, &format!("install_{part}"))?.call0()?;
    }
    install_guard(py)?;
    folder::install(py, &glue)?;
    purity::install(py, &glue, hosted)?;
    glue.function(py, "install_late_parts")?.call0()?;
    if !hosted
        || !py
            .import("sys")?
            .getattr("modules")?
            .contains("automation")?
    {
        register_package(py)?;
    }
    if !hosted {
        glue.function(py, "mark_initialized")?.call0()?;
        // What exists now is never garbage: it need not be looked at again.
        let gc = py.import("gc")?;
        gc.call_method0("collect")?;
        gc.call_method0("freeze")?;
    }
    let _ = GLUE.set(py, glue);
    Ok(())
}

/// Returns whether scripts import a package named `automation` that is not ours: the host had it before. Another
/// copy of ours would be as foreign, since it knows no runs of this one.
pub(crate) fn is_package_foreign(py: Python<'_>) -> PyResult<bool> {
    let modules = py.import("sys")?.getattr("modules")?;
    if !modules.contains("automation._automation")? {
        return Ok(true);
    }
    let native = modules.get_item("automation._automation")?;
    let ours = py.get_type::<crate::module::RunInterrupted>();
    Ok(!native
        .getattr_opt("RunInterrupted")?
        .is_some_and(|kind| kind.is(&ours)))
}

/// Returns a namespace with the functions that `glue.py` calls.
fn natives(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let module = PyModule::new(py, "automation._glue")?;
    module.add("__file__", FILE)?;
    module.add("__builtins__", py.import("builtins")?)?;
    module.add_class::<ThreadStart>()?;
    module.add_class::<purity::LoggerAttribute>()?;
    module.add_class::<purity::RandomFunction>()?;
    for function in [
        wrap_pyfunction!(environ::environ_to_read, &module)?,
        wrap_pyfunction!(environ::environ_to_write, &module)?,
        wrap_pyfunction!(environ::changed_environ, &module)?,
        wrap_pyfunction!(main_module::run_module, &module)?,
        wrap_pyfunction!(main_module::in_run, &module)?,
        wrap_pyfunction!(main_module::prepare_fork, &module)?,
        wrap_pyfunction!(main_module::mark_forked, &module)?,
        wrap_pyfunction!(main_module::at_exit, &module)?,
        wrap_pyfunction!(main_module::exit_functions, &module)?,
        wrap_pyfunction!(folder::run_modules, &module)?,
        wrap_pyfunction!(folder::run_folder, &module)?,
        wrap_pyfunction!(folder::use_folder, &module)?,
        wrap_pyfunction!(folder::execute_own, &module)?,
        wrap_pyfunction!(folder::as_import, &module)?,
        wrap_pyfunction!(folder::count_folder_modules, &module)?,
        wrap_pyfunction!(purity::is_importing, &module)?,
        wrap_pyfunction!(purity::run_state, &module)?,
        wrap_pyfunction!(purity::setting_changed, &module)?,
        wrap_pyfunction!(threads::interrupt_this_thread, &module)?,
        wrap_pyfunction!(threads::run_threads, &module)?,
        wrap_pyfunction!(threads::wait_for_threads, &module)?,
    ] {
        module.add_function(function)?;
    }
    Ok(module.dict())
}

/// Executes files of ours, one after the other, in a namespace of their own.
pub(crate) fn library<'py>(py: Python<'py>, files: &[&str]) -> PyResult<Bound<'py, PyDict>> {
    let namespace = PyDict::new(py);
    namespace.set_item("__name__", "automation")?;
    namespace.set_item("__builtins__", py.import("builtins")?)?;
    for file in files {
        execute(py, file, &namespace)?;
    }
    Ok(namespace)
}

fn install_guard(py: Python<'_>) -> PyResult<()> {
    let module = PyModule::new(py, "automation._guard")?;
    module.add("__builtins__", py.import("builtins")?)?;
    module.add_function(wrap_pyfunction!(environ::changed_environ, &module)?)?;
    guard::add_natives(&module)?;
    execute(py, include_str!("../glue/guard.py"), &module.dict())?;
    guard::install(py, &module.dict())
}

/// Makes `import automation` find our own copy, whatever the environment has.
fn register_package(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    let native = pyo3::wrap_pymodule!(crate::module::_automation)(py);
    modules.set_item("automation._automation", &native)?;
    let package = PyModule::new(py, "automation")?;
    package.add("__path__", PyList::empty(py))?;
    package.add("__package__", "automation")?;
    package.add("__builtins__", py.import("builtins")?)?;
    package.add("_automation", native)?;
    modules.set_item("automation", &package)?;
    execute(
        py,
        include_str!("../../python/automation/__init__.py"),
        &package.dict(),
    )
}

fn execute(py: Python<'_>, source: &str, namespace: &Bound<'_, PyDict>) -> PyResult<()> {
    let compile = py.import("builtins")?.getattr(intern!(py, "compile"))?;
    let code = compile.call1((source, FILE, "exec", 0, true))?;
    crate::ffi::eval(&code, namespace)?;
    Ok(())
}
