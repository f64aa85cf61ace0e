//! Finds out for how long the GIL is held: a thread takes it now and then while a run is old enough to be suspected.
//! Nothing waits for that thread.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread as Handle};
use std::time::{Duration, Instant};

use automation_core::executor::ExecutorError;
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde_json::{Value, json};

use super::pool::Pool;
use super::turns::Worker;

/// Age of a run from which the GIL is looked after.
pub(super) const SUSPECT: Duration = Duration::from_millis(100);
/// Time from one look to the next.
const REPEAT: Duration = Duration::from_millis(50);
/// A wait up to this long is an ordinary hand-over.
const ORDINARY: Duration = Duration::from_millis(50);

/// What the thread and its readers share.
#[derive(Debug)]
pub(super) struct Pulse {
    begin: Instant,
    /// When the GIL was asked for, in microseconds since `begin`; 0 while it is not.
    asked_us: AtomicU64,
    beating: AtomicBool,
    thread: Mutex<Option<Handle>>,
}

impl Pulse {
    pub(super) fn start(pool: Arc<Pool>) -> Result<Arc<Self>, ExecutorError> {
        let pulse = Arc::new(Self {
            begin: Instant::now(),
            asked_us: AtomicU64::new(0),
            beating: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let theirs = Arc::clone(&pulse);
        let thread = thread::Builder::new()
            .name("python-pulse".to_owned())
            .spawn(move || theirs.beat(&pool))
            .map_err(|error| ExecutorError::Start {
                detail: format!("no thread for the pulse: {error}"),
            })?;
        *pulse.thread.lock() = Some(thread.thread().clone());
        Ok(pulse)
    }

    /// Sees to it that the GIL is looked after. Costs a read when it is.
    pub(super) fn wake(&self) {
        if !self.beating.swap(true, Ordering::AcqRel)
            && let Some(thread) = &*self.thread.lock()
        {
            thread.unpark();
        }
    }

    fn beat(&self, pool: &Pool) {
        while !pool.is_over() {
            if !self.beating.load(Ordering::Acquire) {
                thread::park();
                continue;
            }
            let asked = self.begin.elapsed().as_micros();
            self.asked_us
                .store(u64::try_from(asked).unwrap_or(u64::MAX), Ordering::Release);
            Python::attach(|_| ());
            self.asked_us.store(0, Ordering::Release);
            thread::sleep(REPEAT);
            // Cleared before the look, so that a call to wake that comes in between is not lost.
            self.beating.store(false, Ordering::Release);
            if pool.oldest_run().is_some_and(|age| age >= SUSPECT) {
                self.beating.store(true, Ordering::Release);
            }
        }
    }

    /// Returns for how long the GIL has been held and by which execution, if that is known; null while it goes round.
    pub(super) fn held(&self, pool: &Pool) -> Value {
        let asked = match self.asked_us.load(Ordering::Acquire) {
            0 => return Value::Null,
            asked => Duration::from_micros(asked),
        };
        let held = self.begin.elapsed().saturating_sub(asked);
        if held <= ORDINARY {
            return Value::Null;
        }
        json!({ "ms": held.as_millis() as u64, "execution": holder(pool) })
    }
}

/// Returns the execution whose thread is the only one that computes.
fn holder(pool: &Pool) -> Option<String> {
    let workers = {
        let state = pool.lock();
        [&state.workers[..], &state.quarantined[..]].concat()
    };
    let mut computing = workers.iter().filter_map(|worker| computing(worker));
    let found = computing.next()?;
    computing.next().is_none().then_some(found)
}

/// Returns the execution of a worker, if one of its threads computes.
fn computing(worker: &Worker) -> Option<String> {
    let (run, thread) = worker.current.lock().clone()?;
    let mut threads = run.threads();
    threads.push(thread);
    let computes = threads.iter().any(|thread| {
        let line = fs::read_to_string(format!("/proc/self/task/{}/stat", thread.number));
        line.is_ok_and(|line| {
            line.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('R'))
        })
    });
    computes.then(|| run.invocation.execution_id.to_string())
}
