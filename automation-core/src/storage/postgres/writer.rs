//! The one task that writes: it takes all calls that wait, commits them together and answers them. When too many
//! wait, the next one waits for a place.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::changes::Answers;
use super::error::Failure;
use super::round::{Rounds, is_about_unknown_rows};
use crate::storage::{Change, StorageError, Write, WriteError};

/// Calls that may wait; one more waits for a place.
const CALLS_WAITING_MAX: usize = 1024;
/// Calls that are committed together at most, so that the first does not wait for too many.
const CALLS_MAX: usize = 256;
/// Bytes of output from which a round takes no further call: it is held in memory until it is sent.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// One call of `commit`.
#[derive(Debug)]
struct Call {
    writes: Vec<Write>,
    answer: oneshot::Sender<Answers>,
    _place: OwnedSemaphorePermit,
}

/// What the writer did so far.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    rounds: AtomicU64,
}

/// The way to the writer's task. Dropping it lets the task finish what was handed over, as long as its runtime lives.
#[derive(Debug)]
pub(super) struct Writer {
    places: Arc<Semaphore>,
    /// `None` once closed.
    queue: Mutex<Option<UnboundedSender<Call>>>,
    /// `None` once somebody waits for its end.
    task: Mutex<Option<JoinHandle<Result<(), Failure>>>>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts the task on the runtime of the caller.
    pub(super) fn start(rounds: Rounds) -> Self {
        let (queue, calls) = unbounded_channel();
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(serve(rounds, calls, Arc::clone(&counts)));
        Self {
            places: Arc::new(Semaphore::new(CALLS_WAITING_MAX)),
            queue: Mutex::new(Some(queue)),
            task: Mutex::new(Some(task)),
            counts,
        }
    }

    /// Hands over one call, and waits for its answers.
    pub(super) async fn commit(&self, writes: Vec<Write>) -> Answers {
        let count = writes.len();
        if count == 0 {
            return Vec::new();
        }
        self.hand_over(writes).await.unwrap_or_else(|error| {
            (0..count)
                .map(|_| Err(WriteError::Storage(error())))
                .collect()
        })
    }

    async fn hand_over(&self, writes: Vec<Write>) -> Result<Answers, fn() -> StorageError> {
        let closed = || StorageError::Closed;
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| closed as _)?;
        let (answer, answered) = oneshot::channel();
        let call = Call {
            writes,
            answer,
            _place: place,
        };
        match &*self.queue.lock() {
            Some(queue) => queue.send(call).map_err(|_| broken as _)?,
            None => return Err(closed),
        }
        answered.await.map_err(|_| broken as _)
    }

    /// Refuses further calls, and waits until those before are committed.
    pub(super) async fn close(&self) -> Result<(), StorageError> {
        self.places.close();
        self.queue.lock().take();
        let task = self.task.lock().take();
        match task {
            None => Err(StorageError::Closed),
            Some(task) => Ok(task.await.unwrap_or_else(|_| Err(task_ended()))?),
        }
    }

    /// Returns the calls that were answered so far, and the rounds that this took.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.counts.calls.load(Relaxed),
            self.counts.rounds.load(Relaxed),
        )
    }
}

fn task_ended() -> Failure {
    Failure::Unusable("its writer ended with the runtime on which it was opened".to_owned())
}

fn broken() -> StorageError {
    task_ended().into()
}

/// The life of the task.
async fn serve(
    mut rounds: Rounds,
    mut calls: UnboundedReceiver<Call>,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(call) => call,
            None => match calls.recv().await {
                Some(call) => call,
                None => break,
            },
        };
        let round = gather(first, &mut calls, &mut next);
        counts.calls.fetch_add(round.len() as u64, Relaxed);
        counts.rounds.fetch_add(1, Relaxed);
        let writes: Vec<_> = round.iter().map(|call| &call.writes[..]).collect();
        let answers = rounds.commit(&writes).await;
        for (call, answers) in round.into_iter().zip(answers) {
            // A caller that no longer waits has dropped its future, as it may.
            let _ = call.answer.send(answers);
        }
    }
    rounds.end().await
}

/// Takes the calls that wait, as far as they can be committed together; leaves the one behind them in `next`.
fn gather(first: Call, calls: &mut UnboundedReceiver<Call>, next: &mut Option<Call>) -> Vec<Call> {
    let mut bytes = weight(&first.writes);
    if is_alone(&first.writes) {
        return vec![first];
    }
    let mut round = vec![first];
    while round.len() < CALLS_MAX && bytes < BYTES_MAX {
        match calls.try_recv() {
            Ok(call) if is_alone(&call.writes) => {
                *next = Some(call);
                break;
            }
            Ok(call) => {
                bytes += weight(&call.writes);
                round.push(call);
            }
            Err(_) => break,
        }
    }
    round
}

fn is_alone(writes: &[Write]) -> bool {
    writes.iter().any(is_about_unknown_rows)
}

/// Returns the bytes of output.
fn weight(writes: &[Write]) -> usize {
    let of = |write: &Write| match write {
        Write::Insert(execution) => execution.output.len() + execution.stderr.len(),
        Write::Transition(transition) => match &transition.change {
            Change::End(end) => end.output.len() + end.stderr.len(),
            Change::Run { .. } | Change::Wait { .. } => 0,
        },
        _ => 0,
    };
    writes.iter().map(of).sum()
}
