//! The folder of a run's script, and the run's own modules from there. `import` statements pass here, since what
//! a name means depends on the run; those that mean nothing in the folder go on at once. The Python half is
//! `glue/folder.py`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::{Glue, Run, current, purity, with_current};
use crate::ffi::{self, ImportHooks};

/// Names in `sys.modules` that stand for modules of runs.
static NAMES: AtomicUsize = AtomicUsize::new(0);

/// What a run knows of its folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    path: OnceLock<Option<PathBuf>>,
    is_used: AtomicBool,
    /// The run's modules that it has given back, whose names in `sys.modules` still stand for them.
    left: Mutex<Vec<Py<PyDict>>>,
}

impl Folder {
    /// Notes that the run may import from it.
    pub(crate) fn set_used(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }
}

/// Returns the folder of a script that is a file; one that is only in memory has none.
pub(crate) fn folder(script: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(script.parent()?).ok()?;
    (!script.parent()?.as_os_str().is_empty() && folder.is_dir()).then_some(folder)
}

/// Returns whether a script's code may import what is in its folder.
pub(crate) fn imports_from_folder(
    py: Python<'_>,
    code: &Bound<'_, PyAny>,
    script: &Path,
) -> PyResult<bool> {
    let Some(folder) = folder(script) else {
        return Ok(false);
    };
    let function = Glue::get(py).function(py, "imports_from_folder")?;
    function.call1((code, folder.to_string_lossy()))?.extract()
}

/// Takes the run's modules away from it, for [`leave_folder`].
fn give_back<'py>(py: Python<'py>, run: &Run) -> Option<Bound<'py, PyDict>> {
    let modules = run.objects.lock().folder_modules.take()?;
    let given_back = modules.clone_ref(py);
    run.folder.left.lock().push(modules);
    Some(given_back.into_bound(py))
}

/// Makes their names in `sys.modules` mean what they meant before. Called when nothing interrupts the run any more:
/// what is shared must not be left half changed.
pub(crate) fn leave_folder(py: Python<'_>, run: &Run) {
    give_back(py, run);
    let left = std::mem::take(&mut *run.folder.left.lock());
    for modules in left {
        let hide = Glue::get(py).function(py, "hide_modules");
        if let Err(error) = hide.and_then(|hide| hide.call1((modules,))) {
            tracing::error!(%error, "modules of a run stay in sys.modules");
        }
    }
}

/// Gives the run's modules back, each emptied by `empty` unless it may still be used.
pub(crate) fn empty_folder(py: Python<'_>, run: &Run, empty: impl Fn(&Bound<'_, PyDict>)) {
    let Some(modules) = give_back(py, run) else {
        return;
    };
    if run.threads().is_empty() {
        for module in modules.values() {
            if let Ok(namespace) = module.getattr(intern!(py, "__dict__"))
                && let Ok(namespace) = namespace.cast::<PyDict>()
            {
                empty(namespace);
            }
        }
    }
    // What finalisers have imported.
    give_back(py, run);
}

/// Puts our function in the place of `builtins.__import__`.
pub(super) fn install(py: Python<'_>, glue: &Glue) -> PyResult<()> {
    let builtins = glue.builtins.bind(py);
    let name = intern!(py, "__import__");
    let original = builtins.getattr(name)?;
    let namespace = glue.namespace.bind(py);
    namespace.set_item(intern!(py, "plain_import"), &original)?;
    let _ = STAND_IN.set(py, glue.function(py, "FolderModule")?.unbind());
    let hooks = ImportHooks {
        original: original.unbind(),
        other: glue.function(py, "run_import")?.unbind(),
        diverts,
        is_anothers,
        imported: purity::imported,
    };
    builtins.setattr(name, ffi::import_function(py, hooks)?)
}

/// The class of what stands in `sys.modules` for modules of runs.
static STAND_IN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn is_anothers(module: &Bound<'_, PyAny>) -> bool {
    let stand_in = || STAND_IN.get(module.py());
    NAMES.load(Ordering::Relaxed) > 0 && stand_in().is_some_and(|kind| module.get_type().is(kind))
}

fn diverts() -> bool {
    NAMES.load(Ordering::Relaxed) > 0
        || with_current(|run| run.is_some_and(|run| run.folder.is_used.load(Ordering::Relaxed)))
}

/// Returns the modules of this thread's run; none without a run.
#[pyfunction]
pub(super) fn run_modules(py: Python<'_>) -> Bound<'_, PyDict> {
    let fresh = PyDict::new(py).unbind();
    let Some(run) = current() else {
        return fresh.into_bound(py);
    };
    let mut objects = run.objects.lock();
    let modules = objects
        .folder_modules
        .get_or_insert_with(|| fresh.clone_ref(py))
        .clone_ref(py);
    drop(objects);
    modules.into_bound(py)
}

/// Returns the folder of this thread's run, if it has one.
#[pyfunction]
pub(super) fn run_folder() -> Option<String> {
    let run = current()?;
    let find = || folder(run.invocation.script.path());
    let folder = run.folder.path.get_or_init(find).as_ref()?;
    Some(folder.to_string_lossy().into_owned())
}

/// Notes that this thread's run imports from its folder.
#[pyfunction]
pub(super) fn use_folder() {
    with_current(|run| {
        if let Some(run) = run {
            run.folder.set_used();
        }
    });
}

/// Notes how many names in `sys.modules` stand for modules of runs.
#[pyfunction]
pub(super) fn count_folder_modules(count: usize) {
    NAMES.store(count, Ordering::Relaxed);
}

/// Executes a module of the run: what it does is the run's doing, whoever imports it.
#[pyfunction]
pub(super) fn execute_own(code: &Bound<'_, PyAny>, namespace: &Bound<'_, PyDict>) -> PyResult<()> {
    let builtins = intern!(code.py(), "__builtins__");
    if !namespace.contains(builtins)? {
        namespace.set_item(builtins, Glue::get(code.py()).builtins.bind(code.py()))?;
    }
    ffi::outside_imports(|| ffi::eval(code, namespace))?;
    Ok(())
}

/// Calls a function that imports, or whose changes are not the run's own doing.
#[pyfunction]
#[pyo3(signature = (function, *arguments, **keywords))]
pub(super) fn as_import<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    ffi::importing(function.py(), || ffi::call(function, arguments, keywords))
}
