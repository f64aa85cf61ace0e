//! The worker threads and what they have in common: the queue, the compiled code, the answers held back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use automation_core::Concern;
use automation_core::executor::{ExecutorError, RunEvent, RunQueue};
use parking_lot::{Condvar, Mutex, MutexGuard};
use pyo3::prelude::*;
use tokio::sync::Notify;

use super::code::CodeCache;
use super::cpu_clock::CpuClock;
use super::exit;
use super::perform::{panicked, perform, refused_memory};
use super::soundness::Soundness;
use super::turns::{Errand, Help, State, Worker};
use super::watchdog::answer_cancelled;
use crate::ffi::{self, Thread, ThreadClock, blocking};
use crate::interpreter::STACK_BYTES;
use crate::run::{Answer, Cut, Glue, LateBytes, MemoryMode, Place, Reply, Run, is_forked};

/// Answers that are held back, at most, while more runs wait than answers are held: waking who waits costs more
/// than a short script, and waking once for many costs little more. The watchdog sends them when a long script
/// follows.
const HELD_MAX: usize = 64;

/// A run that had more makes an idle worker give free memory back to the system.
const LARGE_RUN_BYTES: u64 = 8 * 1024 * 1024;

/// Time without a run after which a worker beyond those that stay ends.
const SURPLUS: Duration = Duration::from_secs(10);

/// What is set when an executor is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) workers: usize,
    /// Time that a run gets to end after its deadline or a cancel.
    pub(super) grace: Duration,
    /// Threads whose script could not be stopped that are replaced.
    pub(super) abandoned_max: usize,
    pub(super) memory: MemoryMode,
    /// Whether changes for the whole process are looked for.
    pub(super) contamination_checks: bool,
    /// Whether a script that catches every interruption is ended by tracing; by default where Python is ours.
    pub(super) traces: Option<bool>,
}

/// The queue and the workers. Its lock is never held while waiting for the GIL.
pub(super) struct Pool {
    pub(super) settings: Settings,
    state: Mutex<State>,
    pub(super) watchdog: Condvar,
    pub(super) codes: Arc<CodeCache>,
    pub(super) late: LateBytes,
    pub(super) soundness: Soundness,
    place: Place,
    held: Mutex<Vec<(Reply, Answer)>>,
    /// A run had much memory, and the C library may keep it.
    memory_is_kept: AtomicBool,
    /// Those of all workers that may still live.
    threads: Mutex<Vec<JoinHandle<()>>>,
    hosted: bool,
    closed: AtomicBool,
    drained: Notify,
}

impl Pool {
    /// Creates a pool and starts its workers.
    pub(super) fn start(settings: Settings, hosted: bool) -> Result<Arc<Self>, ExecutorError> {
        let pool = Arc::new(Self {
            settings,
            state: Mutex::new(State::new()),
            watchdog: Condvar::new(),
            codes: Arc::default(),
            late: LateBytes::default(),
            soundness: Soundness::default(),
            place: Place::of_process(),
            held: Mutex::default(),
            memory_is_kept: AtomicBool::new(false),
            threads: Mutex::default(),
            hosted,
            closed: AtomicBool::new(false),
            drained: Notify::new(),
        });
        pool.spawn(&mut pool.lock(), Errand::Any)?;
        Ok(pool)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn spawn(self: &Arc<Self>, state: &mut State, errand: Errand) -> Result<(), ExecutorError> {
        let worker = state.hire(errand);
        let (pool, thread_worker) = (Arc::clone(self), Arc::clone(&worker));
        let spawned = thread::Builder::new()
            .name(format!("python-{}", worker.id))
            .stack_size(STACK_BYTES)
            .spawn(move || pool.work(&thread_worker));
        match spawned {
            Ok(thread) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
                Ok(())
            }
            Err(error) => {
                state.dismiss(&worker);
                Err(ExecutorError::Start {
                    detail: format!("no thread for a worker: {error}"),
                })
            }
        }
    }

    /// Starts another worker where one is missing, as far as that is allowed.
    pub(super) fn help(self: &Arc<Self>, state: &mut State, help: Help) {
        let Help::Missing(errand) = help else { return };
        let allowed = state.workers.len() < self.settings.workers
            && state.quarantined.len() <= self.settings.abandoned_max;
        if allowed && let Err(error) = self.spawn(state, errand) {
            tracing::error!(%error, "a worker can't be started");
        }
    }

    /// Puts a run into the queue.
    pub(super) fn submit(self: &Arc<Self>, run: &Arc<Run>) -> Result<(), ExecutorError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ExecutorError::Closed);
        }
        self.check_available(&state)?;
        let help = state.push(run);
        self.help(&mut state, help);
        if state.watchdog_asleep {
            self.watchdog.notify_one();
        }
        Ok(())
    }

    /// Says whether runs are taken.
    pub(super) fn check_available(&self, state: &State) -> Result<(), ExecutorError> {
        self.soundness.check()?;
        if state.quarantined.len() <= self.settings.abandoned_max && !state.workers.is_empty() {
            return Ok(());
        }
        Err(unavailable(state.quarantined.len()))
    }

    /// Asks a run to end: takes it out of the queue, or lets the watchdog cut it short.
    pub(super) fn cancel(&self, run: &Arc<Run>) {
        run.request_cancel();
        let mut state = self.lock();
        let queued = state.queue.remove(|queued| Arc::ptr_eq(queued, run));
        self.call_watchdog(&mut state);
        drop(state);
        if queued.is_some() {
            answer_cancelled(run);
        }
    }

    /// Has the watchdog look at once, and once more if it is looking now.
    fn call_watchdog(&self, state: &mut State) {
        state.is_watchdog_called = true;
        self.watchdog.notify_one();
    }

    /// Gives a worker that runs `run` up: answers for it, and starts another in its place.
    pub(super) fn abandon(self: &Arc<Self>, worker: &Arc<Worker>, run: &Arc<Run>, cut: Cut) {
        let mut state = self.lock();
        // Under the lock, without which the worker takes no other run.
        let Some(reply) = run.claim() else { return };
        worker.abandoned.store(true, Ordering::Release);
        state.workers.retain(|other| !Arc::ptr_eq(other, worker));
        state.quarantined.push(Arc::clone(worker));
        if state.drainer == Some(worker.id) {
            state.drainer = None;
        }
        self.keep_one(&mut state);
        let refused = if state.workers.is_empty() {
            std::mem::take(&mut state.queue)
        } else {
            RunQueue::new()
        };
        let quarantined = state.quarantined.len();
        drop(state);
        let mut outcome = run.outcome(run.abandoned_ending(cut));
        outcome.usage = run.account().usage_so_far();
        outcome.still_running = true;
        outcome.concern = Some(Concern::Abandoned);
        outcome.output.interrupted = true;
        let script = run.invocation.script.name();
        tracing::warn!(
            script,
            quarantined,
            "a script could not be stopped; its thread is abandoned"
        );
        reply.send(Ok(outcome));
        refuse(&refused, || unavailable(quarantined));
        self.drained.notify_waiters();
    }

    /// Sees to it that there is a worker at all, while one is allowed.
    fn keep_one(self: &Arc<Self>, state: &mut State) {
        if state.workers.is_empty() && !state.closed {
            self.help(state, Help::Missing(Errand::Any));
        }
    }

    /// Refuses further runs; the workers end when the queue is empty.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut state = self.lock();
        state.closed = true;
        for worker in &state.workers {
            worker.wake.notify_one();
        }
        self.call_watchdog(&mut state);
        drop(state);
        // A host ends its Python first, and nobody gets the GIL any more.
        if !self.hosted {
            exit::wait_for(std::mem::take(&mut self.threads.lock()));
        }
    }

    /// Waits until nothing is queued and nothing runs. Returns how many runs are left after `grace`; those that
    /// had not begun are refused.
    pub(super) async fn drain(&self, grace: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            let drained = self.drained.notified();
            let left = self.active();
            if left == 0 {
                return 0;
            }
            if tokio::time::timeout_at(deadline, drained).await.is_err() {
                let refused = std::mem::take(&mut self.lock().queue);
                refuse(&refused, || ExecutorError::Closed);
                return left;
            }
        }
    }

    fn active(&self) -> usize {
        let state = self.lock();
        state.queue.len() + state.busy()
    }

    /// Returns for how long the oldest run has run.
    pub(super) fn oldest_run(&self) -> Option<Duration> {
        let state = self.lock();
        let age = |worker: &Arc<Worker>| {
            let (run, _) = worker.current.lock().clone()?;
            run.started_at().map(|at| at.elapsed())
        };
        let workers = state.workers.iter().chain(&state.quarantined);
        workers.filter_map(age).max()
    }

    /// Returns whether it is closed and its last thread has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    /// A worker thread's life.
    fn work(self: &Arc<Self>, worker: &Arc<Worker>) {
        self.place.enter();
        Python::attach(|py| {
            let thread = Thread::this();
            blocking::unblock();
            let _ = worker.clock.set(ThreadClock::of_this_thread());
            if let Err(error) = Glue::get(py)
                .function(py, "adopt_worker")
                .and_then(|adopt| adopt.call0())
            {
                tracing::error!(%error, "threads that scripts start are daemons");
            }
            let mut clock = CpuClock::of_this_thread();
            while let Some(run) = self.next(py, worker, thread, &mut clock) {
                let answered = self.run(py, worker, &run, &mut clock);
                // It was answered for before, as a run that could not be stopped.
                if !answered && run.started_at().is_some() {
                    py.detach(|| run.invocation.host.emit(RunEvent::LateEnd));
                }
            }
        });
        self.retire(worker);
    }

    /// Runs a run and answers for it, whatever happens. `false` when it was answered for already.
    fn run(&self, py: Python<'_>, worker: &Worker, run: &Arc<Run>, clock: &mut CpuClock) -> bool {
        if self.settings.contamination_checks {
            run.purity.check();
        }
        let result = catch_unwind(AssertUnwindSafe(|| perform(py, self, run, clock)));
        if is_forked() {
            // A copy of the process that a panic has brought here.
            ffi::exit_child(1);
        }
        self.place.restore(run);
        *worker.current.lock() = None;
        let answered = match result {
            Ok(answered) => answered.map(|(reply, outcome)| (reply, Ok(outcome))),
            Err(panic) => {
                run.end();
                run.meet_interruption(py);
                let error = panicked(&*panic);
                tracing::error!(%error, script = run.invocation.script.name(), "a run panicked");
                // Our own code met the refusal in what it shares with the script.
                let answer = refused_memory(run).ok_or(error);
                run.claim().map(|reply| (reply, answer))
            }
        };
        if run.account().memory_peak() >= LARGE_RUN_BYTES {
            self.memory_is_kept.store(true, Ordering::Relaxed);
        }
        let is_answered = answered.is_some();
        self.held.lock().extend(answered);
        if self.closed.load(Ordering::Acquire) {
            self.drained.notify_waiters();
        }
        is_answered
    }

    /// Gives the answers that are held back, if they are as many as the runs that wait.
    pub(super) fn send_held(&self, waiting: usize) {
        let mut held = self.held.lock();
        if held.is_empty() || held.len() < waiting.min(HELD_MAX) {
            return;
        }
        let answers = std::mem::replace(&mut *held, Vec::with_capacity(HELD_MAX));
        drop(held);
        for (reply, answer) in answers {
            reply.send(answer);
        }
    }

    /// Returns the next run for a worker; waits for one with the GIL released. `None` ends the worker.
    fn next(
        &self,
        py: Python<'_>,
        worker: &Arc<Worker>,
        thread: Thread,
        clock: &mut CpuClock,
    ) -> Option<Arc<Run>> {
        let (taken, waiting) = {
            let mut state = self.lock();
            (state.take(worker, thread), state.queue.len())
        };
        self.send_held(if taken.is_some() { waiting } else { 0 });
        taken.or_else(|| {
            clock.pause();
            py.detach(|| {
                if self.memory_is_kept.swap(false, Ordering::Relaxed) {
                    ffi::return_memory();
                }
                self.wait(worker, thread)
            })
        })
    }

    fn wait(&self, worker: &Arc<Worker>, thread: Thread) -> Option<Arc<Run>> {
        let mut state = self.lock();
        loop {
            if let Some(run) = state.take(worker, thread) {
                return Some(run);
            }
            if state.closed || worker.abandoned.load(Ordering::Acquire) {
                return None;
            }
            state.idle.push(Arc::clone(worker));
            let waited = worker.wake.wait_for(&mut state, SURPLUS);
            state.idle.retain(|other| !Arc::ptr_eq(other, worker));
            if waited.timed_out() && state.is_surplus(worker) {
                return None;
            }
        }
    }

    /// Takes the books of a worker whose thread ends.
    fn retire(self: &Arc<Self>, worker: &Arc<Worker>) {
        let mut state = self.lock();
        if worker.abandoned.load(Ordering::Acquire) {
            state
                .quarantined
                .retain(|other| !Arc::ptr_eq(other, worker));
            self.keep_one(&mut state);
        } else {
            state.dismiss(worker);
        }
        self.call_watchdog(&mut state);
    }
}

fn unavailable(quarantined: usize) -> ExecutorError {
    ExecutorError::Unavailable {
        detail: format!("{quarantined} threads are in scripts that could not be stopped"),
    }
}

fn refuse(runs: &RunQueue<Arc<Run>>, error: impl Fn() -> ExecutorError) {
    for reply in runs.iter().filter_map(|run| run.claim()) {
        reply.send(Err(error()));
    }
}
