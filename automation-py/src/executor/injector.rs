//! Raises the interruption in a script's threads. Needs the GIL and may wait for it without end, so it is a
//! thread of its own, which nothing waits for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use automation_core::executor::ExecutorError;
use pyo3::prelude::*;

use crate::ffi::{self, Thread, ThreadIdent, blocking};
use crate::module::RunInterrupted;
use crate::run::{Glue, Run, Stopped};

/// A run, its worker, and its programs that were stopped.
type Order = (Arc<Run>, Thread, Stopped);

/// Hands orders to the thread. The thread ends when this is dropped.
pub(super) struct Injector(Sender<Order>);

impl Injector {
    pub(super) fn start() -> Result<Self, ExecutorError> {
        let (sender, receiver) = channel();
        thread::Builder::new()
            .name("python-inject".to_owned())
            .spawn(move || inject(&receiver))
            .map_err(|error| ExecutorError::Start {
                detail: format!("no thread for interruptions: {error}"),
            })?;
        Ok(Self(sender))
    }

    /// Orders an interruption of a run, and of the threads that it started. Its `stopped` programs are killed as soon as
    /// the interruption is there to be found: a script that sees them end before goes on.
    pub(super) fn interrupt(&self, run: &Arc<Run>, worker: Thread, stopped: Stopped) {
        // The thread ends after its orders only, so there is one to take this.
        let _ = self.0.send((Arc::clone(run), worker, stopped));
    }
}

fn inject(orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        Python::attach(|py| {
            // While the GIL was waited for, the same order may have come again.
            let mut done = HashSet::new();
            for (run, worker, stopped) in std::iter::once(first).chain(orders.try_iter()) {
                if done.insert(worker.ident) && !run.is_starting_thread() {
                    raise(py, &run, worker, &stopped);
                } else {
                    stopped.kill();
                }
            }
        });
    }
}

/// Time for which an import is left alone.
const IMPORT_MAX: Duration = Duration::from_millis(300);

/// Raises the interruption in a run's threads, and then wakes those that wait, so that they find it: the GIL keeps them
/// from their code until all of it is done.
fn raise(py: Python<'_>, run: &Run, worker: Thread, stopped: &Stopped) {
    let exception = py.get_type::<RunInterrupted>();
    let importing = importing(py, run);
    run.note_interruption();
    for thread in run.threads() {
        if !importing.contains(&thread.ident) {
            ffi::raise_in_thread(thread.ident, &exception);
        }
    }
    // A run ends with the GIL held, so here it either goes on in this very thread or is left alone.
    let goes_on = !run.has_ended() && !importing.contains(&worker.ident);
    if goes_on {
        ffi::raise_in_thread(worker.ident, &exception);
    }
    stopped.kill();
    run.interrupt_threads(&importing);
    if goes_on {
        blocking::interrupt(worker.number);
    }
}

/// Returns the threads that are importing. A module that is half imported, or whose lock is never released, would
/// be broken for the whole process; so an import may end first, unless it takes long, and is never interrupted where
/// it is the interpreter's own code that executes.
fn importing(py: Python<'_>, run: &Run) -> HashSet<ThreadIdent> {
    let all = run.cut_for().is_none_or(|since| since < IMPORT_MAX);
    let threads = Glue::get(py)
        .function(py, "importing_threads")
        .and_then(|function| function.call1((all,))?.extract());
    threads.unwrap_or_else(|error: PyErr| {
        tracing::error!(%error, "which threads import is not known");
        HashSet::new()
    })
}
