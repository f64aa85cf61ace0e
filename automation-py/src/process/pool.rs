//! The queue and the threads that watch over children, one a run. They need no interpreter.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use automation_core::Script;
use automation_core::executor::{Ending, ExecutorError, Outcome, RunQueue};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::builder::Settings;
use super::job::Job;
use super::perform::perform;
use super::zygote::Zygotes;
use crate::executor::panicked;

/// Versions whose code is kept: a registry has hundreds of scripts, and each reload may bring new versions.
const VERSIONS_MAX: usize = 4096;

/// The queue and what the runs have in common.
pub(super) struct Pool {
    pub(super) settings: Settings,
    pub(super) zygotes: Zygotes,
    pub(super) codes: Codes,
    state: Mutex<State>,
    work: Condvar,
    drained: Notify,
}

#[derive(Default)]
struct State {
    queue: RunQueue<Arc<Job>>,
    busy: usize,
    /// Threads that wait for a run, and threads in all: they are started as runs come.
    idle: usize,
    threads: usize,
    closed: bool,
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            zygotes: Zygotes::new(settings.clone()),
            settings,
            codes: Codes::default(),
            state: Mutex::default(),
            work: Condvar::new(),
            drained: Notify::new(),
        }
    }

    /// Puts a run into the queue.
    pub(super) fn submit(self: &Arc<Self>, job: &Arc<Job>) -> Result<(), ExecutorError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(ExecutorError::Closed);
        }
        if state.idle <= state.queue.len() && state.threads < self.settings.workers {
            self.spawn(&mut state)?;
        }
        let invocation = &job.invocation;
        let (actor, script) = (invocation.actor.as_deref(), invocation.script.name());
        state.queue.push(actor, script, Arc::clone(job));
        self.work.notify_one();
        Ok(())
    }

    /// Starts a worker. Without a thread for it the run waits for another one, if there is any.
    fn spawn(self: &Arc<Self>, state: &mut State) -> Result<(), ExecutorError> {
        let worker = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name(format!("isolated-{}", state.threads))
            .spawn(move || worker.serve());
        match spawned {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                return Err(ExecutorError::Unavailable {
                    detail: format!("no thread for a run: {error}"),
                });
            }
            Err(error) => tracing::warn!(%error, "no thread for a further worker"),
        }
        Ok(())
    }

    /// Asks a run to end: takes it out of the queue, or lets its worker see to it.
    pub(super) fn cancel(&self, job: &Arc<Job>) {
        job.cancel();
        let mut state = self.state.lock();
        let queued = state.queue.remove(|queued| Arc::ptr_eq(queued, job));
        drop(state);
        if let Some(job) = queued {
            job.answer(Ok(never_begun(&job)));
            self.drained.notify_waiters();
        }
    }

    /// Returns how many runs have a process now.
    pub(super) fn busy(&self) -> usize {
        self.state.lock().busy
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Refuses further runs; the threads end when the queue is empty.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }

    /// Waits until nothing is queued and nothing runs, then ends the zygote. Returns how many runs are left after
    /// `grace`; those that had not begun are refused.
    pub(super) async fn drain(&self, grace: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            let drained = self.drained.notified();
            let left = self.active();
            if left == 0 {
                self.zygotes.close();
                return 0;
            }
            if tokio::time::timeout_at(deadline, drained).await.is_err() {
                let mut refused = std::mem::take(&mut self.state.lock().queue);
                for job in refused.drain() {
                    job.answer(Err(ExecutorError::Closed));
                }
                return left;
            }
        }
    }

    fn active(&self) -> usize {
        let state = self.state.lock();
        state.queue.len() + state.busy
    }

    /// A worker thread's life.
    fn serve(&self) {
        while let Some(job) = self.next() {
            let performed = catch_unwind(AssertUnwindSafe(|| perform(self, &job)));
            let answer = performed.unwrap_or_else(|panic| {
                let error = panicked(&*panic);
                let script = job.invocation.script.name();
                tracing::error!(%error, script, "a run's worker panicked");
                Err(error)
            });
            self.state.lock().busy -= 1;
            job.answer(answer);
            self.drained.notify_waiters();
        }
    }

    /// Waits for the next run; `None` ends the worker.
    fn next(&self) -> Option<Arc<Job>> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop() {
                state.busy += 1;
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            self.work.wait(&mut state);
            state.idle -= 1;
        }
    }
}

/// Returns the outcome of a run that was cancelled before it began.
pub(super) fn never_begun(job: &Job) -> Outcome {
    let mut outcome = Outcome::new(Ending::Cancelled);
    outcome.queue = job.handed_over.elapsed();
    outcome
}

type Version = (Arc<str>, PathBuf);

/// Compiled scripts, as the children made them: opaque text. One version may lie at several paths, which tracebacks
/// show.
#[derive(Default)]
pub(super) struct Codes(Mutex<HashMap<Version, Arc<str>>>);

impl Codes {
    /// Returns a script's code, when a child has compiled it before.
    pub(super) fn get(&self, script: &Script) -> Option<Arc<str>> {
        self.0.lock().get(&key(script)).map(Arc::clone)
    }

    /// Keeps a script's code.
    pub(super) fn keep(&self, script: &Script, code: &str) {
        let mut codes = self.0.lock();
        if codes.len() >= VERSIONS_MAX {
            codes.clear();
        }
        codes.insert(key(script), code.into());
    }
}

fn key(script: &Script) -> Version {
    (Arc::clone(script.version()), script.path().to_owned())
}
