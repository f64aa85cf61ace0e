//! The queue and the threads that watch over children, one a run. They need no interpreter.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use automation_core::Script;
use automation_core::executor::{Ending, ExecutorError, Outcome};
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
    queue: VecDeque<Arc<Job>>,
    busy: usize,
    closed: bool,
}

impl Pool {
    /// Creates a pool and starts its threads.
    pub(super) fn start(settings: Settings) -> Result<Arc<Self>, ExecutorError> {
        let pool = Arc::new(Self {
            zygotes: Zygotes::new(settings.clone()),
            settings,
            codes: Codes::default(),
            state: Mutex::default(),
            work: Condvar::new(),
            drained: Notify::new(),
        });
        for number in 0..pool.settings.workers {
            let worker = Arc::clone(&pool);
            thread::Builder::new()
                .name(format!("isolated-{number}"))
                .spawn(move || worker.serve())
                .map_err(|error| {
                    pool.close();
                    ExecutorError::Start {
                        detail: format!("no thread for a worker: {error}"),
                    }
                })?;
        }
        Ok(pool)
    }

    /// Puts a run at the end of the queue.
    pub(super) fn submit(&self, job: Arc<Job>) -> Result<(), ExecutorError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(ExecutorError::Closed);
        }
        state.queue.push_back(job);
        self.work.notify_one();
        Ok(())
    }

    /// Asks a run to end: takes it out of the queue, or lets its worker see to it.
    pub(super) fn cancel(&self, job: &Arc<Job>) {
        job.cancel();
        let mut state = self.state.lock();
        let place = state
            .queue
            .iter()
            .position(|queued| Arc::ptr_eq(queued, job));
        let queued = place.and_then(|place| state.queue.remove(place));
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
                let refused = std::mem::take(&mut self.state.lock().queue);
                for job in refused {
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
            if let Some(job) = state.queue.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            if state.closed {
                return None;
            }
            self.work.wait(&mut state);
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
