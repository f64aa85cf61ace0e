//! Whose turn it is to take the next run.
//!
//! One GIL is handed around among the workers, and handing it over for scripts that take microseconds costs more
//! than the scripts do. So one worker at a time drains the queue; it keeps the GIL from run to run and gives it
//! up only to wait. Another worker takes over when the queue stands still, which the watchdog sees.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ffi::Thread;
use crate::run::Run;

/// Time for which the queue may stand still before another worker takes over.
const STALL: Duration = Duration::from_millis(1);
/// Age of the last take from which a worker that is done takes over by itself.
const FOLLOW: Duration = Duration::from_micros(200);
/// Runs that leave the queue within one tick when its scripts are too short to share.
const BUSY_TAKES: u64 = 8;

/// A worker thread.
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) wake: Condvar,
    /// What it runs, and which thread it is to Python.
    pub(super) current: Mutex<Option<(Arc<Run>, Thread)>>,
    pub(super) abandoned: AtomicBool,
}

/// What the pool's lock protects.
pub(super) struct State {
    pub(super) queue: VecDeque<Arc<Run>>,
    pub(super) idle: Vec<Arc<Worker>>,
    pub(super) workers: Vec<Arc<Worker>>,
    /// The worker that drains the queue.
    pub(super) drainer: Option<usize>,
    pub(super) taken: u64,
    last_taken: Instant,
    /// Workers whose script could not be stopped.
    pub(super) quarantined: Vec<Arc<Worker>>,
    pub(super) closed: bool,
    /// Whether the watchdog waits without a tick.
    pub(super) watchdog_asleep: bool,
    pub(super) next_id: usize,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            idle: Vec::new(),
            workers: Vec::new(),
            drainer: None,
            taken: 0,
            last_taken: Instant::now(),
            quarantined: Vec::new(),
            closed: false,
            watchdog_asleep: false,
            next_id: 0,
        }
    }

    /// Puts a run into the queue, and sees to it that somebody takes it soon.
    pub(super) fn push(&mut self, run: Arc<Run>) {
        let since = run.handed_over().saturating_duration_since(self.last_taken);
        self.queue.push_back(run);
        if self.drainer.is_none() || since >= STALL {
            self.wake_drainer();
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
        if worker.abandoned.load(Ordering::Acquire) {
            return None;
        }
        let Some(run) = self.queue.front() else {
            if self.drainer == Some(worker.id) {
                self.drainer = None;
            }
            return None;
        };
        let now = Instant::now();
        let turn = self.drainer.is_none_or(|drainer| drainer == worker.id)
            || now.saturating_duration_since(self.last_taken) >= FOLLOW;
        if !turn {
            return None;
        }
        *worker.current.lock() = Some((Arc::clone(run), thread));
        self.drainer = Some(worker.id);
        self.taken += 1;
        self.last_taken = now;
        self.queue.pop_front()
    }

    /// Makes an idle worker the one that drains the queue.
    fn wake_drainer(&mut self) {
        if let Some(worker) = self.idle.pop() {
            self.drainer = Some(worker.id);
            worker.wake.notify_one();
        }
    }

    /// Lets another worker take over when the queue stands still. `seen` is what `taken` was a tick ago.
    pub(super) fn pass_on(&mut self, now: Instant, seen: u64) {
        let Some(head) = self.queue.front() else {
            return;
        };
        let waited = now.saturating_duration_since(head.handed_over()) >= STALL;
        let stands = now.saturating_duration_since(self.last_taken) >= STALL;
        if waited && (stands || self.taken - seen < BUSY_TAKES) {
            self.wake_drainer();
        }
    }
}
