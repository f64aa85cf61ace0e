//! Raises the interruption in a script's threads. Needs the GIL and may wait for it without end, so it is a
//! thread of its own, which nothing waits for.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use automation_core::executor::ExecutorError;
use pyo3::prelude::*;

use crate::ffi::{self, ThreadIdent};
use crate::module::RunInterrupted;
use crate::run::Run;

type Order = (Arc<Run>, ThreadIdent);

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

    /// Orders an interruption of a run, and of the threads that it started.
    pub(super) fn interrupt(&self, run: &Arc<Run>, ident: ThreadIdent) {
        // The thread ends after its orders only, so there is one to take this.
        let _ = self.0.send((Arc::clone(run), ident));
    }
}

fn inject(orders: &Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        Python::attach(|py| {
            let exception = py.get_type::<RunInterrupted>();
            // While the GIL was waited for, the same order may have come again.
            let mut done = HashSet::new();
            for (run, ident) in std::iter::once(first).chain(orders.try_iter()) {
                // A run ends with the GIL held, so here it either goes on in this very thread or is left alone.
                if run.has_ended() || !done.insert(ident) {
                    continue;
                }
                run.note_interruption();
                ffi::raise_in_thread(ident, &exception);
                for thread in run.threads() {
                    ffi::raise_in_thread(thread, &exception);
                }
            }
        });
    }
}
