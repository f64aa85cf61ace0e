//! What a script talks to while it runs, and what the engine knows of a run in progress.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};

use super::exact_now;
use crate::clock::Clock;
use crate::execution::{Event, EventKind, ExecutionId, TenantId};
use crate::executor::{CancelToken, RunEvent, RunHost};
use crate::redact::Redactor;
use crate::secret::{Secret, SecretError, SecretSource};
use crate::storage::{Storage, StorageError, Write, WriteError};
use crate::{json, limits};

/// Events that a slow watcher may be behind before it has to read the storage again.
const EVENTS_BEHIND_MAX: usize = 256;
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
    feed: Mutex<Feed>,
}

/// The events of a run on their way to the storage and to those who follow the run.
#[derive(Debug, Default)]
struct Feed {
    /// Kept until the storage has them, so that whoever begins to follow misses none.
    unrecorded: Vec<Event>,
    /// Exists only while somebody follows.
    watchers: Option<broadcast::Sender<Told>>,
    is_over: bool,
}

/// What a follower begins with.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Events that the storage may not have yet.
    pub(super) unrecorded: Vec<Event>,
    /// The events that follow; closes at the run's end.
    pub(super) live: broadcast::Receiver<Told>,
}

/// What those who follow a run are told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// The run reported something.
    Event(Event),
    /// The run's row has another status.
    Moved,
}

impl LiveRun {
    pub(super) fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            cancel: CancelToken::new(),
            stop: OnceLock::new(),
            feed: Mutex::default(),
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

    /// Follows the run; `None` when it is over, and then the storage has the whole story.
    pub(super) fn subscribe(&self) -> Option<Subscription> {
        let mut feed = self.feed.lock();
        if feed.is_over {
            return None;
        }
        let watchers = feed
            .watchers
            .get_or_insert_with(|| broadcast::channel(EVENTS_BEHIND_MAX).0);
        let live = watchers.subscribe();
        Some(Subscription {
            unrecorded: feed.unrecorded.clone(),
            live,
        })
    }

    /// Tells the watchers that the row has another status.
    pub(super) fn moved(&self) {
        if let Some(watchers) = &self.feed.lock().watchers {
            let _ = watchers.send(Told::Moved);
        }
    }

    /// Shows an event that the storage has already.
    fn publish(&self, event: &Event) {
        if let Some(watchers) = &self.feed.lock().watchers {
            let _ = watchers.send(Told::Event(event.clone()));
        }
    }

    /// Shows an event and keeps it until the storage has it.
    fn keep(&self, event: Event) {
        let mut feed = self.feed.lock();
        if let Some(watchers) = &feed.watchers {
            let _ = watchers.send(Told::Event(event.clone()));
        }
        feed.unrecorded.push(event);
    }

    /// Returns the events that the storage does not have, oldest first.
    pub(super) fn unrecorded(&self) -> Vec<Event> {
        self.feed.lock().unrecorded.clone()
    }

    /// Forgets the oldest events: the storage has them now.
    pub(super) fn recorded(&self, count: usize) {
        let unrecorded = &mut self.feed.lock().unrecorded;
        unrecorded.drain(..count.min(unrecorded.len()));
    }

    /// Tells the watchers that the run is over: its row says how.
    pub(super) fn end(&self) {
        *self.feed.lock() = Feed {
            is_over: true,
            ..Feed::default()
        };
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
    numbers: Mutex<Numbers>,
    dropped: AtomicU32,
    flush: Notify,
    closed: Notify,
    is_closed: AtomicBool,
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
            numbers: Mutex::default(),
            dropped: AtomicU32::new(0),
            flush: Notify::new(),
            closed: Notify::new(),
            is_closed: AtomicBool::new(false),
            secrets,
            storage,
            clock,
            runtime,
        }
    }

    /// Waits until events are due to be recorded; false when the run has ended, and its end takes the rest along.
    pub(super) async fn flush_due(&self) -> bool {
        self.flush.notified().await;
        if !self.is_closed() {
            // An end during this pause takes the events along as well.
            let _ = tokio::time::timeout(FLUSH_DELAY, self.closed.notified()).await;
        }
        !self.is_closed()
    }

    /// Takes no further events: the run has ended, and what a thread left behind reports belongs to nobody.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.flush.notify_one();
        self.closed.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
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
        self.run.keep(event);
        self.flush.notify_one();
    }

    /// Records that a run which was answered for has ended, when its row is long terminal.
    fn record_late_end(&self) {
        let after_ms = self
            .started
            .get()
            .map(|started| started.elapsed().as_millis());
        let after_ms = after_ms.and_then(|ms| u64::try_from(ms).ok());
        let Some(event) = self.event(EventKind::LateEnd, json!({ "after_ms": after_ms })) else {
            return;
        };
        let storage = Arc::clone(&self.storage);
        drop(self.runtime.spawn(async move {
            let id = event.execution_id;
            if let Some(Err(error)) = storage.commit(vec![Write::Append(event)]).await.pop() {
                tracing::warn!(execution = %id, %error, "a late end is not recorded");
            }
        }));
    }

    /// Makes the next event; `None` when the run has had as many of its sort as it may.
    fn event(&self, kind: EventKind, data: Value) -> Option<Event> {
        let seq = self.numbers.lock().next(kind == EventKind::Journal)?;
        let at = exact_now(&*self.clock);
        Some(Event::new(
            self.run.tenant.clone(),
            self.id,
            seq,
            at,
            kind,
            data,
        ))
    }

    /// Redacts first and cuts then, so that no secret is cut into something that is not recognised.
    fn text(&self, text: &str) -> String {
        let text = self.redacted(|redactor| redactor.text(text).into_owned());
        text[..text.floor_char_boundary(limits::EVENT_BYTES_MAX)].to_owned()
    }
}

/// The numbers of a run's events. The journal has a budget of its own: a chatty script can still undo.
#[derive(Debug, Default)]
struct Numbers {
    reports: usize,
    entries: usize,
    last: u32,
}

impl Numbers {
    fn next(&mut self, journal: bool) -> Option<u32> {
        let (count, max) = if journal {
            (&mut self.entries, limits::JOURNAL_ENTRIES_MAX)
        } else {
            (&mut self.reports, limits::EVENTS_MAX)
        };
        if *count == max {
            return None;
        }
        *count += 1;
        self.last += 1;
        Some(self.last)
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
            RunEvent::LateEnd => return self.record_late_end(),
            RunEvent::Log { text } => (EventKind::Log, json!({ "text": self.text(&text) })),
            RunEvent::Effect {
                effect,
                target,
                denied,
            } => (
                EventKind::Effect,
                json!({ "effect": effect, "target": self.text(&target), "denied": denied }),
            ),
            RunEvent::Contamination { text } => (
                EventKind::Contamination,
                json!({ "text": self.text(&text) }),
            ),
            RunEvent::Progress { fraction, text } => {
                let fraction = if fraction.is_nan() {
                    0.0
                } else {
                    fraction.clamp(0.0, 1.0)
                };
                (
                    EventKind::Progress,
                    json!({ "fraction": fraction, "text": self.text(&text) }),
                )
            }
        };
        let event = if self.is_closed() {
            None
        } else {
            self.event(kind, data)
        };
        match event {
            Some(event) => self.keep(event),
            None => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        let secret = self.secrets.secret(name)?;
        self.redactor.lock().add(secret.expose());
        Ok(secret)
    }

    fn journal(&self, mut entry: Value) -> Result<(), StorageError> {
        let refused = |detail: String| StorageError::Unusable {
            backend: "journal",
            detail,
        };
        json::check(&entry).map_err(|problem| refused(problem.to_string()))?;
        self.redacted(|redactor| redactor.value(&mut entry));
        if self.is_closed() {
            return Err(refused("the run has ended".to_owned()));
        }
        let Some(event) = self.event(EventKind::Journal, entry) else {
            return Err(refused(format!(
                "a run has at most {} entries",
                limits::JOURNAL_ENTRIES_MAX
            )));
        };
        let storage = Arc::clone(&self.storage);
        let write = Write::Append(event.clone());
        let answer = self
            .runtime
            .block_on(async move { storage.commit(vec![write]).await })
            .pop();
        let error = match answer {
            Some(Ok(_)) => {
                self.run.publish(&event);
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
