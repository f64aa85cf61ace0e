//! The modules and classes that everybody shares: which there are, and what each is called.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyString, PyType};

use crate::run::Glue;

/// Names that are set without anybody's meaning to change anything: by the interpreter, and on first use.
const UNNOTICED: [&str; 14] = [
    "__warningregistry__",
    "__annotations__",
    "__abstractmethods__",
    "__builtins__",
    "__spec__",
    "__loader__",
    "__file__",
    "__cached__",
    "__type_params__",
    "last_exc",
    "last_type",
    "last_value",
    "last_traceback",
    "_abc_impl",
];

/// Returns whether a change of this name is one.
pub(super) fn is_noticed(key: &str) -> bool {
    !UNNOTICED.contains(&key)
}

/// Size of `sys.modules` when they were looked at last.
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// Returns whether there may be modules that were not looked at.
pub(super) fn are_new(py: Python<'_>, glue: &Glue) -> bool {
    let count = glue.modules.bind(py).len();
    SEEN.swap(count, Ordering::Relaxed) != count
}

/// Has the modules looked at after the next import, be there new ones or not.
pub(super) fn look_again() {
    SEEN.store(0, Ordering::Relaxed);
}

/// Calls `f` with the name and the dictionary of each module that everybody shares; not with what stands for the
/// modules of runs.
pub(super) fn for_each<'py>(
    py: Python<'py>,
    glue: &Glue,
    mut f: impl FnMut(&str, &Bound<'py, PyDict>),
) {
    let run_module = glue.run_module.bind(py);
    for (name, module) in glue
        .modules
        .bind(py)
        .copy()
        .iter()
        .flat_map(|all| all.iter())
    {
        if let Ok(name) = name.cast::<PyString>()
            && let Ok(module) = module.cast::<PyModule>()
            && !module.is_instance(run_module).unwrap_or(true)
        {
            f(&name.to_string_lossy(), &module.dict());
        }
    }
}

/// Calls `f` with the name of each class that a module defines and that can be changed.
pub(super) fn for_each_class<'py>(
    name: &str,
    module: &Bound<'py, PyDict>,
    mut f: impl FnMut(String, &Bound<'py, PyType>),
) {
    let py = module.py();
    for value in module.values() {
        if let Ok(class) = value.cast::<PyType>()
            && is_changeable(class)
            && let Ok(home) = class.getattr(intern!(py, "__module__"))
            && home.eq(name).unwrap_or(false)
            && let Ok(own) = class.qualname()
        {
            f(format!("{name}.{own}"), class);
        }
    }
}

fn is_changeable(class: &Bound<'_, PyType>) -> bool {
    const HEAP_TYPE: u64 = 1 << 9;
    const IMMUTABLE_TYPE: u64 = 1 << 8;
    let flags = class.getattr(intern!(class.py(), "__flags__"));
    let flags: PyResult<u64> = flags.and_then(|flags| flags.extract());
    flags.is_ok_and(|flags| flags & (HEAP_TYPE | IMMUTABLE_TYPE) == HEAP_TYPE)
}
