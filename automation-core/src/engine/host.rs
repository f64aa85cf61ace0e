//! What a script talks to while it runs, and what the engine knows of a run in progress.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};

use super::exact_now;
use super::watch::Update;
use crate::clock::Clock;
use crate::execution::{Event, EventKind, Execution, ExecutionId, TenantId};
use crate::executor::{CancelToken, RunEvent, RunHost};
use crate::limits;
use crate::redact::Redactor;
use crate::secret::{Secret, SecretError, SecretSource};
use crate::storage::{Storage, StorageError, Write, WriteError};

/// Updates that a slow watcher may be behind before it has to read the storage again.
const UPDATES_MAX: usize = 256;
/// Pending events that are recorded without waiting for more.
const FLUSH_EVENTS: usize = 64;
/// How long a pending event waits for more before it is recorded.
const FLUSH_DELAY: Duration = Duration::from_millis(200);

/// Why a run is asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody asked.
    Cancel {
        /// Who.
        actor: Option<String>,
    },
    /// The engine is shut down.
    Shutdown,
}

/// A run in progress, as the engine sees it.
#[derive(Debug)]
pub(super) struct LiveRun {
    tenant: TenantId,
    cancel: CancelToken,
    stop: OnceLock<Stop>,
    updates: OnceLock<broadcast::Sender<Update>>,
    ended: OnceLock<()>,
}

impl LiveRun {
    pub(super) fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            cancel: CancelToken::new(),
            stop: OnceLock::new(),
            updates: OnceLock::new(),
            ended: OnceLock::new(),
        }
    }

    pub(super) const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub(super) const fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Asks the run to end. The first cause stays.
    pub(super) fn stop(&self, stop: Stop) {
        self.stop.get_or_init(|| stop);
        self.cancel.cancel();
    }

    pub(super) fn stopped_by(&self) -> Option<&Stop> {
        self.stop.get()
    }

    /// Follows the run. A run that has ended gives a receiver that is closed.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Update> {
        let receiver = self
            .updates
            .get_or_init(|| broadcast::channel(UPDATES_MAX).0)
            .subscribe();
        // A run that ended before the channel existed has nobody left to close it.
        if self.ended.get().is_some() {
            broadcast::channel(1).1
        } else {
            receiver
        }
    }

    fn publish(&self, update: impl FnOnce() -> Update) {
        if let Some(updates) = self.updates.get() {
            let _ = updates.send(update());
        }
    }

    /// Tells the watchers that the run is over.
    pub(super) fn end(&self, execution: &Execution) {
        self.ended.get_or_init(|| ());
        self.publish(|| Update::Ended(Box::new(execution.clone())));
    }
}

/// The [`RunHost`] of one run.
pub(super) struct Host {
    pub(super) run: Arc<LiveRun>,
    id: ExecutionId,
    timeout: Duration,
    dry_run: bool,
    started: OnceLock<Instant>,
    redactor: Mutex<Redactor>,
    pending: Mutex<Vec<Event>>,
    seq: AtomicU32,
    dropped: AtomicU32,
    flush: Notify,
    secrets: Arc<dyn SecretSource>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
}

/// What a host needs from the engine.
pub(super) struct HostParts {
    pub(super) run: Arc<LiveRun>,
    pub(super) id: ExecutionId,
    pub(super) timeout: Duration,
    pub(super) dry_run: bool,
    pub(super) redactor: Redactor,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) runtime: Handle,
}

impl Host {
    pub(super) fn new(parts: HostParts) -> Self {
        let HostParts {
            run,
            id,
            timeout,
            dry_run,
            redactor,
            secrets,
            storage,
            clock,
            runtime,
        } = parts;
        Self {
            run,
            id,
            timeout,
            dry_run,
            started: OnceLock::new(),
            redactor: Mutex::new(redactor),
            pending: Mutex::default(),
            seq: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            flush: Notify::new(),
            secrets,
            storage,
            clock,
            runtime,
        }
    }

    /// Waits until events are due to be recorded.
    pub(super) async fn flush_due(&self) {
        self.flush.notified().await;
        if self.pending.lock().len() < FLUSH_EVENTS {
            tokio::time::sleep(FLUSH_DELAY).await;
        }
    }

    /// Takes the events that are not recorded yet.
    pub(super) fn take_pending(&self) -> Vec<Event> {
        std::mem::take(&mut *self.pending.lock())
    }

    /// Gives back events that could not be recorded.
    pub(super) fn put_back(&self, events: Vec<Event>) {
        self.pending.lock().splice(0..0, events);
    }

    /// Does `f` with the redactor that knows every secret of this run so far.
    pub(super) fn redacted<T>(&self, f: impl FnOnce(&Redactor) -> T) -> T {
        f(&self.redactor.lock())
    }

    /// Returns how many events were too many to be kept.
    pub(super) fn dropped(&self) -> u32 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Shows an event to the watchers and keeps it until it is recorded.
    fn keep(&self, event: Event) {
        self.run.publish(|| Update::Event(event.clone()));
        self.pending.lock().push(event);
        self.flush.notify_one();
    }

    fn event(&self, kind: EventKind, mut data: Value) -> Option<Event> {
        self.redactor.lock().value(&mut data);
        let numbered = self
            .seq
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seq| {
                (usize::try_from(seq).is_ok_and(|seq| seq < limits::EVENTS_MAX)).then_some(seq + 1)
            });
        let Ok(seq) = numbered else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(Event::new(
            self.run.tenant.clone(),
            self.id,
            seq + 1,
            exact_now(&*self.clock),
            kind,
            data,
        ))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("id", &self.id)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl RunHost for Host {
    fn started(&self) {
        self.started.get_or_init(Instant::now);
    }

    fn emit(&self, event: RunEvent) {
        let (kind, data) = match event {
            RunEvent::Log { text } => (EventKind::Log, json!({ "text": cut(&text) })),
            RunEvent::Progress { fraction, text } => {
                let fraction = if fraction.is_nan() {
                    0.0
                } else {
                    fraction.clamp(0.0, 1.0)
                };
                (
                    EventKind::Progress,
                    json!({ "fraction": fraction, "text": cut(&text) }),
                )
            }
        };
        if let Some(event) = self.event(kind, data) {
            self.keep(event);
        }
    }

    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        let secret = self.secrets.secret(name)?;
        self.redactor.lock().add(secret.expose());
        Ok(secret)
    }

    fn journal(&self, entry: Value) -> Result<(), StorageError> {
        let Some(event) = self.event(EventKind::Journal, entry) else {
            let detail = format!("an execution has at most {} events", limits::EVENTS_MAX);
            return Err(StorageError::Unavailable {
                backend: "journal",
                detail,
            });
        };
        let storage = Arc::clone(&self.storage);
        let write = Write::Append(event.clone());
        let answer = self
            .runtime
            .block_on(async move { storage.commit(vec![write]).await })
            .pop();
        let error = match answer {
            Some(Ok(_)) => {
                self.run.publish(|| Update::Event(event));
                return Ok(());
            }
            Some(Err(WriteError::Storage(error))) => error,
            Some(Err(error)) => StorageError::Backend {
                backend: "journal",
                source: error.into(),
            },
            None => StorageError::Closed,
        };
        // The entry's number is taken: what stands under it keeps the order of events without a gap.
        let data = json!({ "text": "a journal entry could not be recorded" });
        self.keep(Event {
            kind: EventKind::Log,
            data,
            ..event
        });
        Err(error)
    }

    fn deadline(&self) -> Option<Instant> {
        self.started
            .get()
            .and_then(|started| started.checked_add(self.timeout))
    }

    fn is_cancelled(&self) -> bool {
        self.run.cancel.is_cancelled()
    }

    fn dry_run(&self) -> bool {
        self.dry_run
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::EVENT_BYTES_MAX)]
}
