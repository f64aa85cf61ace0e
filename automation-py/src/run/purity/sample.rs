//! Changes as a comparison shows them, before Python 3.12. It takes some tenths of a millisecond, so it is done for
//! the first run of each version, and for one run in a while; only for runs that nobody else can have disturbed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use super::change::{Change, Target};
use super::modules;
use super::moment::Moment;
use crate::ffi::{self, Pairs};
use crate::run::{Glue, Run};

/// Time between runs that are looked at besides the first ones: it keeps the cost below one in a hundred.
const PERIOD: Duration = Duration::from_millis(100);

/// What a shared module or class held when it was looked at last.
#[derive(Debug)]
struct Kept {
    name: String,
    module: String,
    dict: Py<PyDict>,
    class: Option<Py<PyType>>,
    pairs: Pairs,
}

/// By the address of the dictionary, which is kept alive.
static KEPT: LazyLock<Mutex<HashMap<usize, Kept>>> = LazyLock::new(Mutex::default);
/// When a run was looked at last, in milliseconds since the first one.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Whether the process has threads of a host, whose own changes show in a comparison like a script's.
static IS_HOSTED: AtomicBool = AtomicBool::new(false);

/// Notes whether the process is a host's.
pub(super) fn set_hosted(hosted: bool) {
    IS_HOSTED.store(hosted, Ordering::Relaxed);
}

/// Whether and since when a run is looked at.
#[derive(Debug, Default)]
pub(super) struct Sample {
    start: OnceLock<(Moment, Arc<AtomicBool>)>,
    imported: AtomicBool,
}

impl Sample {
    /// Notes that a library was imported, which may have changed others.
    pub(super) fn note_import(&self) {
        self.imported.store(true, Ordering::Relaxed);
    }

    /// Begins to look at a run if it is its turn; `seen` is whether a run of its version was looked at.
    pub(super) fn begin(&self, py: Python<'_>, seen: &Arc<AtomicBool>) {
        let moment = Moment::now();
        if !moment.alone_since() || !is_due(seen) {
            return;
        }
        refresh(py);
        let _ = self.start.set((moment, Arc::clone(seen)));
    }
}

fn is_due(seen: &AtomicBool) -> bool {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let now = FIRST.elapsed().as_millis() as u64;
    let last = LAST.load(Ordering::Relaxed);
    if seen.load(Ordering::Relaxed) && now < last + PERIOD.as_millis() as u64 {
        return false;
    }
    LAST.store(now, Ordering::Relaxed);
    true
}

pub(super) fn look_at_modules(py: Python<'_>, glue: &Glue) {
    modules::for_each(py, glue, |name, module| {
        if !keep(module, name.to_owned(), name, None) {
            return;
        }
        modules::for_each_class(name, module, |own, class| {
            if let Some(dict) = ffi::class_dict(class) {
                keep(&dict, own, name, Some(class));
            }
        });
    });
}

/// Keeps what a dictionary holds. `false` when it is known already.
fn keep(
    dict: &Bound<'_, PyDict>,
    name: String,
    module: &str,
    class: Option<&Bound<'_, PyType>>,
) -> bool {
    let address = dict.as_ptr().addr();
    if KEPT.lock().contains_key(&address) {
        return false;
    }
    let kept = Kept {
        name,
        module: module.to_owned(),
        dict: dict.clone().unbind(),
        class: class.map(|class| class.clone().unbind()),
        pairs: Pairs::of(dict),
    };
    KEPT.lock().insert(address, kept);
    true
}

/// Takes what everything holds now for right.
fn refresh(py: Python<'_>) {
    let mut gone = Vec::new();
    for kept in KEPT.lock().values_mut() {
        let dict = kept.dict.bind(py);
        if !kept.pairs.are_in(dict) {
            gone.push(std::mem::replace(&mut kept.pairs, Pairs::of(dict)));
        }
    }
    // Dropped when the lock is free: with it may run a `__del__`.
    drop(gone);
}

/// Returns what a run has changed, if it was looked at.
pub(super) fn changes(py: Python<'_>, run: &Run) -> Vec<Change> {
    let Some((since, seen)) = run.purity.sample.start.get() else {
        return Vec::new();
    };
    if !since.alone_since() {
        return Vec::new();
    }
    seen.store(true, Ordering::Relaxed);
    let differences = differences(py, *since);
    if differences.is_empty() {
        return Vec::new();
    }
    let name = match IS_HOSTED.load(Ordering::Relaxed) {
        true => "is_meant_beside_host",
        false => "is_meant",
    };
    let is_meant = Glue::get(py).function(py, name);
    let imported = run.purity.sample.imported.load(Ordering::Relaxed);
    let is_meant = |module: &str, change: &Change| -> PyResult<bool> {
        let (Target::Item(_, key) | Target::Attribute(_, _, key)) = &change.target else {
            return Ok(false);
        };
        let is_meant = is_meant.as_ref().map_err(|error| error.clone_ref(py))?;
        let arguments = (
            module,
            key,
            change.before.as_ref(),
            change.after.as_ref(),
            imported,
        );
        is_meant.call1(arguments)?.is_truthy()
    };
    let all = differences.into_iter();
    all.filter(|(module, change)| is_meant(module, change).unwrap_or(false))
        .map(|(_, change)| change)
        .collect()
}

/// Returns what differs from what is kept, each with the module that it belongs to.
fn differences(py: Python<'_>, since: Moment) -> Vec<(String, Change)> {
    let mut found = Vec::new();
    for kept in KEPT.lock().values() {
        let dict = kept.dict.bind(py);
        if !kept.pairs.are_in(dict) {
            kept.compare(dict, since, &mut found);
        }
    }
    found
}

impl Kept {
    fn compare(&self, dict: &Bound<'_, PyDict>, since: Moment, found: &mut Vec<(String, Change)>) {
        let py = dict.py();
        let mut add = |key: &Bound<'_, PyAny>,
                       before: Option<&Py<PyAny>>,
                       after: Option<&Bound<'_, PyAny>>| {
            let Ok(key) = key.cast::<PyString>() else {
                return;
            };
            let text = key.to_string_lossy();
            if modules::is_noticed(&text) {
                let change = Change {
                    target: self.target(py, key),
                    name: format!("{}.{text}", self.name),
                    before: before.map(|before| before.clone_ref(py)),
                    after: after.map(|after| after.clone().unbind()),
                    since,
                };
                found.push((self.module.clone(), change));
            }
        };
        let mut kept = HashMap::new();
        for (key, value) in self.pairs.iter() {
            kept.insert(key.as_ptr().addr(), value);
            let now = dict.get_item(key).ok().flatten();
            if now.as_ref().is_none_or(|now| !now.is(value)) {
                add(key.bind(py), Some(value), now.as_ref());
            }
        }
        for (key, value) in dict.iter() {
            if !kept.contains_key(&key.as_ptr().addr()) {
                add(&key, None, Some(&value));
            }
        }
    }

    fn target(&self, py: Python<'_>, key: &Bound<'_, PyString>) -> Target {
        let (dict, key) = (self.dict.clone_ref(py), key.clone().unbind());
        match &self.class {
            Some(class) => Target::Attribute(class.clone_ref(py), dict, key),
            None => Target::Item(dict, key),
        }
    }
}
