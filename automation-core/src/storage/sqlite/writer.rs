//! The one thread that writes: it takes all calls that wait, commits them together and answers them. Callers
//! wait without blocking; when too many wait, the next one waits for a place.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::error::Failure;
use super::lock::ProcessLock;
use super::place::Place;
use super::round::Rounds;
use crate::storage::{Applied, StorageError, Write, WriteError};

/// Calls that may wait; one more waits for a place.
const CALLS_WAITING_MAX: usize = 1024;
/// Calls that are committed together at most, so that the first does not wait for too many.
const CALLS_MAX: usize = 256;
/// After so much quiet the write-ahead log is copied into the database.
const QUIET: Duration = Duration::from_secs(1);

/// The answers of one call.
pub(super) type Answers = Vec<Result<Applied, WriteError>>;

/// One call of `commit`.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) writes: Vec<Write>,
    answer: oneshot::Sender<Answered>,
}

/// What a caller gets back: the answers, and its writes, so that it and not the writer drops them.
#[derive(Debug)]
struct Answered {
    answers: Answers,
    _writes: Vec<Write>,
}

impl Call {
    fn answer(self, answers: Answers) {
        let answered = Answered {
            answers,
            _writes: self.writes,
        };
        // A caller that no longer waits has dropped its future, as it may.
        let _ = self.answer.send(answered);
    }
}

/// What the writer did so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: AtomicU64,
    pub(super) transactions: AtomicU64,
}

/// The way to the writer thread. Dropping it waits until all that was handed over is committed.
#[derive(Debug)]
pub(super) struct Writer {
    places: Arc<Semaphore>,
    /// `None` once closed.
    queue: Mutex<Option<Sender<Call>>>,
    /// What the thread says when it ends; `None` once somebody waits for it.
    ended: Mutex<Option<oneshot::Receiver<Result<(), Failure>>>>,
    thread: Option<JoinHandle<()>>,
    place: Arc<Place>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Starts the thread, and returns when it is ready. Blocks.
    pub(super) fn start(
        connection: Connection,
        lock: ProcessLock,
        place: Arc<Place>,
    ) -> Result<Self, Failure> {
        let (queue, calls) = mpsc::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let places = Arc::new(Semaphore::new(CALLS_WAITING_MAX));
        let queue_places = Arc::clone(&places);
        let (end, ended) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let (rounds_counts, rounds_place) = (Arc::clone(&counts), Arc::clone(&place));
        let body = move || {
            let queue = Queue {
                calls,
                places: queue_places,
            };
            let result = serve(&connection, &queue, &ready, rounds_place, rounds_counts);
            let closed = connection.close().map_err(|(_, error)| error.into());
            drop(lock);
            let _ = end.send(result.and(closed));
        };
        let thread = std::thread::Builder::new()
            .name("automation-sqlite".to_owned())
            .spawn(body)
            .map_err(|error| Failure::Unusable(format!("no thread can be started: {error}")))?;
        is_ready.recv().unwrap_or_else(|_| Err(thread_ended()))?;
        Ok(Self {
            places,
            queue: Mutex::new(Some(queue)),
            ended: Mutex::new(Some(ended)),
            thread: Some(thread),
            place,
            counts,
        })
    }

    /// Hands over one call, and waits for its answers.
    pub(super) async fn commit(&self, writes: Vec<Write>) -> Answers {
        let count = writes.len();
        self.hand_over(writes).await.unwrap_or_else(|error| {
            (0..count)
                .map(|_| Err(WriteError::Storage(self.told(error))))
                .collect()
        })
    }

    async fn hand_over(&self, writes: Vec<Write>) -> Result<Answers, Unheard> {
        let place = self.places.acquire().await.map_err(|_| Unheard::Closed)?;
        let (answer, answered) = oneshot::channel();
        let call = Call { writes, answer };
        match &*self.queue.lock() {
            Some(queue) => queue.send(call).map_err(|_| Unheard::Ended)?,
            None => return Err(Unheard::Closed),
        }
        // The writer gives it back when it takes the call.
        place.forget();
        let answered = answered.await.map_err(|_| Unheard::Ended)?;
        Ok(answered.answers)
    }

    fn told(&self, unheard: Unheard) -> StorageError {
        match unheard {
            Unheard::Closed => StorageError::Closed,
            Unheard::Ended => self.place.told(thread_ended()),
        }
    }

    /// Refuses further calls, and waits until those before are committed and the file is released.
    pub(super) async fn close(&self) -> Result<(), StorageError> {
        self.refuse();
        let ended = self.ended.lock().take();
        match ended {
            None => Err(StorageError::Closed),
            Some(ended) => {
                let ended = ended.await.unwrap_or_else(|_| Err(thread_ended()));
                ended.map_err(|failure| self.place.told(failure))
            }
        }
    }

    /// Returns the calls that were committed so far, and the transactions that this took.
    pub(super) fn counts(&self) -> (u64, u64) {
        let [calls, transactions] = [&self.counts.calls, &self.counts.transactions];
        (calls.load(Relaxed), transactions.load(Relaxed))
    }

    fn refuse(&self) {
        self.places.close();
        self.queue.lock().take();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.refuse();
        // The thread only has to finish what waits; it needs neither a runtime nor anybody's lock.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread of the database panicked");
        }
    }
}

fn thread_ended() -> Failure {
    Failure::Unusable("its writer thread ended".to_owned())
}

/// Why a call has no answers.
#[derive(Debug, Clone, Copy)]
enum Unheard {
    /// The storage was closed.
    Closed,
    /// The thread ended before its time.
    Ended,
}

/// The calls that wait.
struct Queue {
    calls: Receiver<Call>,
    places: Arc<Semaphore>,
}

impl Queue {
    /// Takes the calls that wait behind `first`, and gives the places of all free at once.
    fn round(&self, first: Call, round: &mut Vec<Call>) {
        round.push(first);
        round.extend(self.calls.try_iter().take(CALLS_MAX - 1));
        self.places.add_permits(round.len());
    }
}

impl Drop for Queue {
    /// Who waits for a place finds nobody to call.
    fn drop(&mut self) {
        self.places.add_permits(CALLS_WAITING_MAX);
    }
}

/// The life of the thread.
fn serve(
    connection: &Connection,
    queue: &Queue,
    ready: &SyncSender<Result<(), Failure>>,
    place: Arc<Place>,
    counts: Arc<Counts>,
) -> Result<(), Failure> {
    let mut rounds = match Rounds::prepare(connection, place, counts) {
        Ok(rounds) => rounds,
        Err(failure) => {
            let _ = ready.send(Err(failure.clone()));
            return Err(failure);
        }
    };
    let _ = ready.send(Ok(()));
    let mut round = Vec::with_capacity(CALLS_MAX);
    let mut unsettled = false;
    while let Some(first) = next(connection, &queue.calls, unsettled) {
        queue.round(first, &mut round);
        let answers = rounds.commit(&round);
        for (call, answers) in round.drain(..).zip(answers) {
            call.answer(answers);
        }
        unsettled = true;
    }
    drop(rounds);
    checkpoint(connection, "TRUNCATE")
}

/// Waits for a call; `None` when there will be none. Uses the quiet after work for a checkpoint.
fn next(connection: &Connection, calls: &Receiver<Call>, unsettled: bool) -> Option<Call> {
    if unsettled {
        match calls.recv_timeout(QUIET) {
            Ok(call) => return Some(call),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                if let Err(failure) = checkpoint(connection, "PASSIVE") {
                    tracing::warn!(%failure, "the write-ahead log can't be copied into the database");
                }
            }
        }
    }
    calls.recv().ok()
}

/// Copies the write-ahead log into the database, as far as readers allow.
fn checkpoint(connection: &Connection, mode: &str) -> Result<(), Failure> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    Ok(connection.query_row(&sql, [], |_| Ok(()))?)
}
