//! Changes as the interpreter tells of them, in Python 3.12 and later: what is not changed costs nothing.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType, PyWeakrefMethods, PyWeakrefReference};

use super::change::{Change, Target};
use super::moment::Moment;
use super::{is_recorded, modules, record};
use crate::ffi::{self, WatchHooks};
use crate::run::{Glue, with_current};

/// Whose a watched dictionary is.
#[derive(Debug)]
struct Owner {
    name: String,
    /// Weak, so that watching keeps no class alive.
    class: Option<Py<PyWeakrefReference>>,
}

/// The watched dictionaries, by address.
static OWNERS: LazyLock<Mutex<HashMap<usize, Owner>>> = LazyLock::new(Mutex::default);

/// What the machinery of imports is in: it puts modules where they belong.
const IMPORTS: [&str; 4] = [
    "_frozen_importlib",
    "_frozen_importlib_external",
    "importlib",
    "runpy",
];

/// The name of `sys.modules` among the owners.
const MODULES: &str = "sys.modules";

pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    ffi::install_watch_hooks(
        py,
        WatchHooks {
            is_wanted,
            change,
            gone: |dict| drop(OWNERS.lock().remove(&dict)),
        },
    )
}

pub(super) fn look_at_modules(py: Python<'_>, glue: &Glue) {
    own(glue.modules.bind(py), MODULES.to_owned(), None);
    modules::for_each(py, glue, |name, module| {
        if !own(module, name.to_owned(), None) {
            return;
        }
        modules::for_each_class(name, module, |name, class| {
            if let Some(dict) = ffi::class_dict(class)
                && let Ok(weak) = PyWeakrefReference::new(class)
            {
                own(&dict, name, Some(weak.unbind()));
            }
        });
    });
}

/// Watches a dictionary. `false` when it is watched already.
fn own(dict: &Bound<'_, PyDict>, name: String, class: Option<Py<PyWeakrefReference>>) -> bool {
    let mut owners = OWNERS.lock();
    if owners.contains_key(&dict.as_ptr().addr()) {
        return false;
    }
    owners.insert(dict.as_ptr().addr(), Owner { name, class });
    drop(owners);
    ffi::watch(dict);
    true
}

/// A package's own code may change it: what is kept for later, or found out on first use.
fn is_wanted(py: Python<'_>, dict: usize, globals: &Bound<'_, PyAny>) -> bool {
    if !is_recorded() {
        return false;
    }
    let Some(glue) = Glue::try_get(py) else {
        return false;
    };
    if glue.namespace.is(globals) {
        return false;
    }
    let Some(package) = package_of(globals) else {
        return true;
    };
    let owners = OWNERS.lock();
    let is_foreign = |owner: &Owner| owner.name == MODULES || top(&owner.name) != package;
    !IMPORTS.contains(&package.as_str()) && owners.get(&dict).is_some_and(is_foreign)
}

fn package_of(globals: &Bound<'_, PyAny>) -> Option<String> {
    let globals = globals.cast::<PyDict>().ok()?;
    let name = globals.get_item(intern!(globals.py(), "__name__")).ok()??;
    Some(top(&name.cast::<PyString>().ok()?.to_string_lossy()).to_owned())
}

fn top(name: &str) -> &str {
    name.split_once('.').map_or(name, |(top, _)| top)
}

fn change(dict: &Bound<'_, PyDict>, key: &Bound<'_, PyAny>, after: Option<&Bound<'_, PyAny>>) {
    let py = dict.py();
    let Ok(key) = key.cast_exact::<PyString>() else {
        return;
    };
    let text = key.to_string_lossy();
    if !modules::is_noticed(&text) {
        return;
    }
    let Ok(before) = dict.get_item(key) else {
        return;
    };
    let Some((target, name)) = target(dict, key, &text) else {
        return;
    };
    let change = Change {
        target,
        name,
        before: before.map(Bound::unbind),
        after: after.map(|after| after.clone().unbind()),
        since: Moment::now(),
    };
    with_current(|run| {
        if let Some(run) = run {
            record(py, run, change);
        }
    });
}

fn target(
    dict: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    text: &str,
) -> Option<(Target, String)> {
    let py = dict.py();
    let owners = OWNERS.lock();
    let owner = owners.get(&dict.as_ptr().addr())?;
    let name = match owner.name.as_str() {
        MODULES => format!("{MODULES}[{text:?}]"),
        name => format!("{name}.{text}"),
    };
    let (dict, key) = (dict.clone().unbind(), key.clone().unbind());
    let Some(weak) = &owner.class else {
        return Some((Target::Item(dict, key), name));
    };
    let class = weak.bind(py).upgrade_as::<PyType>().ok()??;
    Some((Target::Attribute(class.unbind(), dict, key), name))
}
