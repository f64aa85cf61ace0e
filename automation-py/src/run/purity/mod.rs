//! What a run changes for the whole process: found out, undone at its end where nobody else can have seen it, and
//! reported where that is not so. What nobody's run changed is never touched.
//!
//! Python 3.12 and later tell of each change ([`watch`]); before, what modules and classes hold is compared now and
//! then ([`sample`]). Settings that are no names of a module are recorded by the functions that set them
//! (`glue/settings.py`).

mod change;
mod loggers;
mod modules;
mod moment;
mod random;
#[cfg(not(Py_3_12))]
mod sample;
#[cfg(Py_3_12)]
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use automation_core::Concern;
use automation_core::executor::RunEvent;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::change::{Change, Target};
pub(super) use self::loggers::LoggerAttribute;
use self::moment::{Active, Moment};
pub(super) use self::random::RandomFunction;
use super::{Glue, Run, current, emit, with_current};
use crate::ffi;

/// Changes that could not be undone while other runs were there; undone when none is.
static LEFT: Mutex<Vec<Change>> = Mutex::new(Vec::new());
/// Whether there are any.
static IS_ANY_LEFT: AtomicBool = AtomicBool::new(false);

/// What is known of a run's changes.
#[derive(Debug, Default)]
pub(crate) struct Purity {
    is_checked: AtomicBool,
    /// That the run is there, until its worker has come back from it.
    active: Mutex<Option<Arc<Active>>>,
    changes: Mutex<Vec<Change>>,
    /// Values that changes have ousted. They are dropped when the run is over: CPython is in the middle of changing a
    /// dictionary when it tells of it, and no `__del__` may run then.
    ousted: Mutex<Vec<Py<PyAny>>>,
    /// What the glue keeps for the run until nothing of it executes any more.
    state: Mutex<Option<Py<PyDict>>>,
    #[cfg(not(Py_3_12))]
    sample: sample::Sample,
}

impl Purity {
    /// Has the run's changes recorded from now on.
    pub(crate) fn check(&self) {
        self.is_checked.store(true, Ordering::Relaxed);
    }

    /// Notes that the run is there from now on.
    pub(crate) fn enter(&self) {
        *self.active.lock() = Some(Arc::new(Active::new()));
    }

    /// Returns what keeps the run there, as long as one of its threads lives.
    pub(super) fn active(&self) -> Option<Arc<Active>> {
        self.active.lock().clone()
    }

    /// Looks at the run if it is its turn; `seen` is whether a run of its version was looked at.
    #[cfg(not(Py_3_12))]
    pub(crate) fn begin_sample(&self, py: Python<'_>, seen: &Arc<AtomicBool>) {
        if self.is_checked() {
            self.sample.begin(py, seen);
        }
    }

    /// Returns whether the glue keeps anything for the run.
    pub(crate) fn has_state(&self) -> bool {
        self.state.lock().is_some()
    }

    fn is_checked(&self) -> bool {
        self.is_checked.load(Ordering::Relaxed)
    }
}

/// Begins to look at modules and classes.
pub(super) fn install(py: Python<'_>, glue: &Glue, hosted: bool) -> PyResult<()> {
    #[cfg(Py_3_12)]
    let _ = hosted;
    #[cfg(Py_3_12)]
    watch::install(py)?;
    #[cfg(not(Py_3_12))]
    sample::set_hosted(hosted);
    modules::are_new(py, glue);
    look_at_modules(py, glue);
    Ok(())
}

/// Looks at modules that were imported just now, before a script can change them.
pub(super) fn imported(py: Python<'_>) {
    let Some(glue) = Glue::try_get(py) else {
        return;
    };
    if !modules::are_new(py, glue) {
        return;
    }
    look_at_modules(py, glue);
    #[cfg(not(Py_3_12))]
    with_current(|run| {
        if let Some(run) = run {
            run.purity.sample.note_import();
        }
    });
    let install = glue.function(py, "install_late_parts");
    match install.and_then(|install| install.call0()?.is_truthy()) {
        Ok(false) => {}
        Ok(true) => modules::look_again(),
        Err(error) => {
            tracing::error!(%error, "modules imported just now are not prepared for runs");
            modules::look_again();
        }
    }
}

fn look_at_modules(py: Python<'_>, glue: &Glue) {
    #[cfg(Py_3_12)]
    watch::look_at_modules(py, glue);
    #[cfg(not(Py_3_12))]
    sample::look_at_modules(py, glue);
}

/// Returns whether what this thread does now is a run's own doing that is to be recorded. What a library does while
/// it is imported is not: it stays with the library.
fn is_recorded() -> bool {
    !ffi::is_importing() && with_current(|run| run.is_some_and(|run| run.purity.is_checked()))
}

/// Records a change of this thread's run. Called with the GIL held; runs no Python code.
fn record(py: Python<'_>, run: &Run, change: Change) {
    if run.has_ended() {
        // A thread that a script left: its run can be told nothing any more.
        leave(change);
        return;
    }
    let mut changes = run.purity.changes.lock();
    let known = changes
        .iter_mut()
        .find(|known| known.is_about(py, &change.target));
    let former = match known {
        Some(known) => std::mem::replace(&mut known.after, change.after),
        None => {
            changes.push(change);
            return;
        }
    };
    drop(changes);
    // What is still there lives on without our reference.
    let is_there = |former: &Py<PyAny>| change.before.as_ref().is_some_and(|now| now.is(former));
    if let Some(former) = former.filter(|former| !is_there(former)) {
        run.purity.ousted.lock().push(former);
    }
}

/// Returns whether this thread is importing.
#[pyfunction]
pub(super) fn is_importing() -> bool {
    ffi::is_importing()
}

/// Returns what the glue keeps for this thread's run; `None` without a run.
#[pyfunction]
pub(super) fn run_state(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    let run = current()?;
    // Made before the lock is taken: making it may collect garbage, and a `__del__` may come here again.
    let fresh = PyDict::new(py).unbind();
    let mut state = run.purity.state.lock();
    let state = state.get_or_insert_with(|| fresh.clone_ref(py));
    Some(state.clone_ref(py).into_bound(py))
}

/// Records that a setting is another now.
#[pyfunction]
pub(super) fn setting_changed(
    py: Python<'_>,
    name: String,
    read: Py<PyAny>,
    write: Py<PyAny>,
    before: Py<PyAny>,
    after: Py<PyAny>,
) {
    if let Some(run) = current()
        && is_recorded()
    {
        // The base goes when the last run does.
        IS_ANY_LEFT.store(true, Ordering::Relaxed);
        let change = Change {
            target: Target::Setting { read, write },
            name,
            before: Some(before),
            after: Some(after),
            since: Moment::now(),
        };
        record(py, &run, change);
    }
}

/// Ends what a run has changed. Returns a concern when something could not be undone.
pub(crate) fn settle(py: Python<'_>, run: &Arc<Run>) -> Option<Concern> {
    let mut events = Vec::new();
    let mut is_contaminated = false;
    let mut end = |changes: Vec<Change>| {
        for change in changes {
            if let Some(event) = end_change(py, change) {
                is_contaminated |= matches!(event, RunEvent::Contamination { .. });
                events.push(event);
            }
        }
    };
    end(std::mem::take(&mut *run.purity.changes.lock()));
    #[cfg(not(Py_3_12))]
    end(sample::changes(py, run));
    let ousted = std::mem::take(&mut *run.purity.ousted.lock());
    drop(ousted);
    emit(py, run, events);
    is_contaminated.then_some(Concern::Contaminated)
}

/// Forgets what a run left on its worker, its event loop for instance.
pub(crate) fn end_state(py: Python<'_>, run: &Run) {
    let state = run.purity.state.lock().take();
    let Some(state) = state else { return };
    let end = Glue::get(py).function(py, "end_state");
    if let Err(error) = end.and_then(|end| end.call1((state,))) {
        tracing::error!(%error, "the next run on this thread may find what this one left");
    }
}

/// Undoes a change if it is still in place and nobody else can have seen it. Returns what the run is told.
fn end_change(py: Python<'_>, change: Change) -> Option<RunEvent> {
    let text = change.text();
    let undone = change.is_undone(py).and_then(|is_undone| {
        if is_undone {
            return Ok(None);
        }
        if !change.is_in_place(py)? {
            return Ok(Some("and once more since, by others"));
        }
        if !change.since.alone_since() {
            return Ok(Some("while other runs could see it"));
        }
        change.undo(py)?;
        Ok(Some(""))
    });
    match undone {
        Ok(None) => None,
        Ok(Some("")) => Some(RunEvent::Log {
            text: format!("{text} for the whole process, and was put back when the run ended"),
        }),
        Ok(Some(why)) => {
            leave(change);
            let text = format!("{text} for the whole process, {why}");
            Some(RunEvent::Contamination { text })
        }
        Err(error) => {
            let text = format!("{text} for the whole process, and can't be put back: {error}");
            Some(RunEvent::Contamination { text })
        }
    }
}

fn leave(change: Change) {
    LEFT.lock().push(change);
    IS_ANY_LEFT.store(true, Ordering::Relaxed);
}

/// Ends a run's being there, and undoes what was left once no run is there that could have seen it. Called with the
/// GIL held.
pub(crate) fn leave_process(py: Python<'_>, run: &Run) {
    drop(run.purity.active.lock().take());
    if !IS_ANY_LEFT.load(Ordering::Relaxed) || !moment::is_empty() {
        return;
    }
    IS_ANY_LEFT.store(false, Ordering::Relaxed);
    let mut left = std::mem::take(&mut *LEFT.lock());
    // One may lie over another, whichever run ended first.
    loop {
        let (in_place, others): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|change| change.is_in_place(py).unwrap_or(false));
        if in_place.is_empty() {
            break;
        }
        for change in in_place {
            if let Err(error) = change.undo(py) {
                tracing::error!(%error, change = change.text(), "what a run changed stays");
            }
        }
        left = others;
    }
    // A run that began meanwhile goes on from the same base.
    if moment::is_empty() {
        forget_bases(py);
    } else {
        IS_ANY_LEFT.store(true, Ordering::Relaxed);
    }
}

/// Forgets what settings were before the first run changed them.
fn forget_bases(py: Python<'_>) {
    let bases = Glue::get(py).function(py, "setting_bases");
    if let Ok(bases) = bases.and_then(|bases| Ok(bases.cast_into::<PyDict>()?)) {
        bases.clear();
    }
}
