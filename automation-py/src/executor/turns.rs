//! Whose turn it is to take the next run.
//!
//! One GIL is handed around among the workers, and handing it over for scripts that take microseconds costs more
//! than the scripts do. So one worker at a time drains the queue; it keeps the GIL from run to run and gives it
//! up only to wait. Another worker takes over when the queue stands still, which the watchdog sees.
//!
//! Scripts wait for services and programs most of their time, so there are as many workers as scripts wait at once.
//! Scripts that compute gain nothing by it, and each delays every other by its time slice: while they use up the
//! processor that the GIL allows, another worker is only for a script of which no run is under way.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use automation_core::executor::RunQueue;
use parking_lot::{Condvar, Mutex};

use crate::ffi::{Thread, ThreadClock};
use crate::run::Run;

/// Time for which the queue may stand still before another worker takes over.
const STALL: Duration = Duration::from_millis(1);
/// Age of the last take from which a worker that is done takes over by itself.
const FOLLOW: Duration = Duration::from_micros(200);
/// Idle workers that stay.
const WORKERS_KEPT: usize = 4;
/// Runs that leave the queue within one tick when its scripts are too short to share.
const BUSY_TAKES: u64 = 8;

/// What a worker is woken or started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Whatever is next.
    Any,
    /// A script of which no run is under way.
    Fresh,
}

/// What is to be done for runs that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Help {
    /// Nothing: somebody comes, or nobody may.
    Comes,
    /// No worker is idle: another would help, with this errand.
    Missing(Errand),
}

/// A worker thread.
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) wake: Condvar,
    /// What it runs, and which thread it is to Python.
    pub(super) current: Mutex<Option<(Arc<Run>, Thread)>>,
    pub(super) abandoned: AtomicBool,
    /// Why it was woken or started, until it looks at the queue.
    errand: Mutex<Option<Errand>>,
    /// The clock of its thread, once that has started.
    pub(super) clock: OnceLock<ThreadClock>,
    /// What that showed when it was read last: it stands still while the worker has nothing to do.
    cpu: Mutex<Duration>,
}

impl Worker {
    fn new(id: usize) -> Self {
        Self {
            id,
            wake: Condvar::new(),
            current: Mutex::new(None),
            abandoned: AtomicBool::new(false),
            errand: Mutex::new(None),
            clock: OnceLock::new(),
            cpu: Mutex::new(Duration::ZERO),
        }
    }

    fn cpu_time(&self) -> Duration {
        let mut cpu = self.cpu.lock();
        if self.current.lock().is_some()
            && let Some(read) = self.clock.get().and_then(|clock| clock.read())
        {
            *cpu = read;
        }
        *cpu
    }
}

/// What the pool's lock protects.
pub(super) struct State {
    pub(super) queue: RunQueue<Arc<Run>>,
    pub(super) idle: Vec<Arc<Worker>>,
    pub(super) workers: Vec<Arc<Worker>>,
    /// The worker that drains the queue.
    pub(super) drainer: Option<usize>,
    pub(super) taken: u64,
    /// Whether the watchdog has something to look at that it may not have seen.
    pub(super) is_watchdog_called: bool,
    /// Workers that were woken or started and have not looked at the queue yet.
    sent: usize,
    last_taken: Instant,
    /// Workers whose script could not be stopped.
    pub(super) quarantined: Vec<Arc<Worker>>,
    pub(super) closed: bool,
    /// Whether the watchdog waits without a tick.
    pub(super) watchdog_asleep: bool,
    next_id: usize,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            queue: RunQueue::new(),
            idle: Vec::new(),
            workers: Vec::new(),
            drainer: None,
            taken: 0,
            is_watchdog_called: false,
            sent: 0,
            last_taken: Instant::now(),
            quarantined: Vec::new(),
            closed: false,
            watchdog_asleep: false,
            next_id: 0,
        }
    }

    /// Adds a worker, whose thread the caller starts.
    pub(super) fn hire(&mut self, errand: Errand) -> Arc<Worker> {
        let worker = Arc::new(Worker::new(self.next_id));
        self.next_id += 1;
        self.order(&worker, errand);
        self.workers.push(Arc::clone(&worker));
        worker
    }

    /// Takes a worker whose thread did not start, or has ended, out of the books.
    pub(super) fn dismiss(&mut self, worker: &Arc<Worker>) {
        self.sent -= usize::from(worker.errand.lock().take().is_some());
        if self.drainer == Some(worker.id) {
            self.drainer = None;
        }
        self.workers.retain(|other| !Arc::ptr_eq(other, worker));
    }

    /// Returns whether a worker that found nothing to do for long may end.
    pub(super) fn is_surplus(&self, worker: &Worker) -> bool {
        self.workers.len() > WORKERS_KEPT && self.queue.is_empty() && worker.errand.lock().is_none()
    }

    /// Puts a run into the queue, and sees to it that somebody takes it soon.
    pub(super) fn push(&mut self, run: &Arc<Run>) -> Help {
        let invocation = &run.invocation;
        let (actor, script) = (invocation.actor.as_deref(), invocation.script.name());
        self.queue.push(actor, script, Arc::clone(run));
        // Where one drains the queue, the watchdog sees whether it stands still.
        match self.drainer {
            None => self.send(Errand::Any),
            Some(_) => Help::Comes,
        }
    }

    /// Returns whether it is closed and the last thread has ended.
    pub(super) fn is_over(&self) -> bool {
        self.closed && self.workers.is_empty() && self.quarantined.is_empty()
    }

    /// Returns how many workers run something.
    pub(super) fn busy(&self) -> usize {
        let busy = |worker: &&Arc<Worker>| worker.current.lock().is_some();
        self.workers.iter().filter(busy).count()
    }

    /// Takes the next run, if it is the worker's turn. An abandoned worker never has one.
    pub(super) fn take(&mut self, worker: &Worker, thread: Thread) -> Option<Arc<Run>> {
        let errand = worker.errand.lock().take();
        self.sent -= usize::from(errand.is_some());
        if worker.abandoned.load(Ordering::Acquire) {
            return None;
        }
        let now = Instant::now();
        let turn = self.drainer.is_none_or(|drainer| drainer == worker.id)
            || now.saturating_duration_since(self.last_taken) >= FOLLOW;
        let taken = match errand {
            _ if !turn => return None,
            Some(Errand::Fresh) => {
                let running = self.running();
                self.queue
                    .pop_if(|run| !running.contains(run.invocation.script.name()))
            }
            Some(Errand::Any) | None => self.queue.pop(),
        };
        let Some(run) = taken else {
            if self.drainer == Some(worker.id) {
                self.drainer = None;
            }
            return None;
        };
        *worker.current.lock() = Some((Arc::clone(&run), thread));
        self.drainer = Some(worker.id);
        self.taken += 1;
        self.last_taken = now;
        Some(run)
    }

    /// Returns the processor time that all workers have used.
    pub(super) fn cpu_time(&self) -> Duration {
        self.workers.iter().map(|worker| worker.cpu_time()).sum()
    }

    /// Returns the names of the scripts of which a run is under way.
    fn running(&self) -> HashSet<String> {
        let name = |worker: &Arc<Worker>| {
            let current = worker.current.lock();
            current
                .as_ref()
                .map(|(run, _)| run.invocation.script.name().to_owned())
        };
        self.workers.iter().filter_map(name).collect()
    }

    /// Makes an idle worker the one that drains the queue, unless one is on its way.
    fn send(&mut self, errand: Errand) -> Help {
        if self.sent > 0 {
            return Help::Comes;
        }
        let Some(worker) = self.idle.pop() else {
            return Help::Missing(errand);
        };
        self.order(&worker, errand);
        self.drainer = Some(worker.id);
        worker.wake.notify_one();
        Help::Comes
    }

    /// Tells a worker what it is for.
    fn order(&mut self, worker: &Worker, errand: Errand) {
        *worker.errand.lock() = Some(errand);
        self.sent += 1;
    }

    /// Lets another worker take over when the queue stands still. `seen` is what `taken` was a tick ago;
    /// `saturated`, whether the scripts that run compute all the time that the GIL allows.
    pub(super) fn pass_on(&mut self, now: Instant, seen: u64, saturated: bool) -> Help {
        let Some(head) = self.queue.heads().next() else {
            return Help::Comes;
        };
        let waited = now.saturating_duration_since(head.handed_over()) >= STALL;
        let stands = now.saturating_duration_since(self.last_taken) >= STALL;
        if !waited || !(stands || self.taken - seen < BUSY_TAKES) {
            return Help::Comes;
        }
        if !saturated {
            return self.send(Errand::Any);
        }
        let running = self.running();
        let is_fresh = |run: &Arc<Run>| !running.contains(run.invocation.script.name());
        if self.queue.heads().any(is_fresh) {
            self.send(Errand::Fresh)
        } else {
            Help::Comes
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use automation_core::executor::{Invocation, RunEvent, RunHost};
    use automation_core::secret::{Secret, SecretError};
    use automation_core::storage::StorageError;
    use automation_core::{ExecutionId, Script};
    use serde_json::Value;
    use uuid::Uuid;

    use super::{Errand, Help, STALL, State};
    use crate::ffi::Thread;
    use crate::run::{LateBytes, MemoryMode, Run};

    #[derive(Debug)]
    struct Silent;

    impl RunHost for Silent {
        fn started(&self) {}
        fn emit(&self, _: RunEvent) {}
        fn secret(&self, name: &str) -> Result<Secret, SecretError> {
            let name = name.to_owned();
            Err(SecretError::Missing { name })
        }
        fn journal(&self, _: Value) -> Result<(), StorageError> {
            Ok(())
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn is_cancelled(&self) -> bool {
            false
        }
        fn dry_run(&self) -> bool {
            false
        }
    }

    fn run(script: &str) -> Arc<Run> {
        let script = Arc::new(Script::parse(script, b"").unwrap());
        let id = ExecutionId::from_uuid(Uuid::nil());
        let invocation = Invocation::new(id, script, Arc::new(Silent));
        Run::new(invocation, &LateBytes::default(), MemoryMode::Off, false).0
    }

    /// A worker that runs `a.py`, while another run of it has waited for too long.
    fn standing() -> (State, Instant) {
        let mut state = State::new();
        let worker = state.hire(Errand::Any);
        assert_eq!(state.push(&run("a.py")), Help::Comes);
        assert!(state.take(&worker, Thread::this()).is_some());
        assert_eq!(state.push(&run("a.py")), Help::Comes);
        (state, Instant::now() + STALL + Duration::from_millis(1))
    }

    #[test]
    fn scripts_that_wait_get_another_worker() {
        let (mut state, later) = standing();
        assert_eq!(state.pass_on(Instant::now(), 0, false), Help::Comes);
        assert_eq!(state.pass_on(later, 0, false), Help::Missing(Errand::Any));
    }

    #[test]
    fn scripts_that_compute_get_none_but_another_script_does() {
        let (mut state, later) = standing();
        assert_eq!(state.pass_on(later, 0, true), Help::Comes);
        state.push(&run("b.py"));
        let help = state.pass_on(later, 0, true);
        assert_eq!(help, Help::Missing(Errand::Fresh));
        let worker = state.hire(Errand::Fresh);
        std::thread::sleep(STALL);
        let taken = state.take(&worker, Thread::this()).unwrap();
        assert_eq!(taken.invocation.script.name(), "b.py");
    }

    #[test]
    fn one_worker_is_sent_at_a_time_and_an_order_is_never_lost() {
        let (mut state, later) = standing();
        let worker = state.hire(Errand::Any);
        assert_eq!(
            state.pass_on(later, 0, false),
            Help::Comes,
            "one is on its way"
        );
        assert!(!state.is_surplus(&worker));
        // Its thread could not be started, or ended before it looked.
        state.dismiss(&worker);
        assert_eq!(state.pass_on(later, 0, false), Help::Missing(Errand::Any));
    }
}
