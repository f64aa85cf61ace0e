//! Following an execution, whether it runs here or elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::Engine;
use super::host::{Subscription, Told};
use crate::error::Result;
use crate::execution::{Event, Execution, ExecutionId, Reason, TenantId};
use crate::request::{Cursor, Page};
use crate::status::Status;

/// How often a run that another instance executes is looked at.
const POLL: Duration = Duration::from_millis(250);
/// The same for one that waits.
const POLL_WAITING: Duration = Duration::from_secs(2);

/// How long a watcher that missed events waits for their record.
const GAP: Duration = Duration::from_millis(50);

/// Events that are read at once: a watcher holds no more of them than these.
const EVENTS_READ: usize = 64;

/// Something that a watcher is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Update {
    /// The run reported something.
    Event(Event),
    /// How the run stands: at the beginning, and when that changes. Only for who asked by [`Watch::with_status`].
    Status(Box<Execution>),
    /// The run has its terminal status; the last update.
    Ended(Box<Execution>),
}

/// Follows one execution: every event in its order, once, then its end.
///
/// The storage has the whole story, and a run in this process tells it live as well: what comes live is given at
/// once where it continues what was given, else the storage is read again.
pub struct Watch {
    engine: Arc<Engine>,
    tenant: TenantId,
    id: ExecutionId,
    /// What the storage may not have had when this began.
    unrecorded: Vec<Event>,
    live: Option<Receiver<Told>>,
    /// What was read and is not given yet.
    backlog: VecDeque<Event>,
    /// Where what is recorded goes on behind the backlog.
    next_page: Option<Cursor>,
    /// Whether the status is told, and which was told last.
    status: Option<Option<(Status, Option<Reason>)>>,
    /// How the run stands, to be told.
    moved: Option<Box<Execution>>,
    /// Where the backlog ends with the end.
    end: Option<Box<Execution>>,
    caught_up: bool,
    /// Whether it waited when it was last looked at.
    waits: bool,
    /// Tells that rows that wait moved on.
    moves: watch::Receiver<()>,
    /// The page that the backlog is of.
    page: Page,
    /// The number of the last event that was given.
    seq: u32,
    ended: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("id", &self.id)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn new(
        engine: Arc<Engine>,
        tenant: TenantId,
        id: ExecutionId,
        subscription: Option<Subscription>,
    ) -> Self {
        let (unrecorded, live) = match subscription {
            Some(Subscription { unrecorded, live }) => (unrecorded, Some(live)),
            None => (Vec::new(), None),
        };
        Self {
            moves: engine.waiting.moves(),
            engine,
            tenant,
            id,
            unrecorded,
            live,
            backlog: VecDeque::new(),
            next_page: None,
            status: None,
            moved: None,
            end: None,
            caught_up: false,
            waits: false,
            page: Page::first(EVENTS_READ),
            seq: 0,
            ended: false,
        }
    }

    /// Skips the events up to number `seq`, which the caller has.
    #[must_use]
    pub const fn after(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// Also tells how the run stands ([`Update::Status`]).
    #[must_use]
    pub const fn with_status(mut self) -> Self {
        self.status = Some(None);
        self
    }

    /// Returns the next update; `None` after [`Update::Ended`]. Needs a tokio runtime.
    ///
    /// # Errors
    /// Kinds `execution_not_found` and `storage`; a later call tries again.
    ///
    /// # Cancel safety
    /// Safe: no update is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Update>> {
        loop {
            if let Some(execution) = self.moved.take() {
                return Ok(Some(Update::Status(execution)));
            }
            match self.backlog.pop_front() {
                Some(event) if event.seq <= self.seq => {}
                Some(event) if self.end.is_some() || event.seq == self.seq + 1 => {
                    self.seq = event.seq;
                    return Ok(Some(Update::Event(event)));
                }
                // This watcher was too slow, and what it missed is not recorded yet.
                Some(_) => {
                    self.backlog.clear();
                    self.next_page = None;
                    self.caught_up = false;
                    tokio::time::sleep(GAP).await;
                }
                None if self.ended => return Ok(None),
                None if self.caught_up => match self.end.take() {
                    Some(execution) => {
                        self.ended = true;
                        return Ok(Some(Update::Ended(execution)));
                    }
                    None => self.receive().await,
                },
                None => self.catch_up().await?,
            }
        }
    }

    /// Follows the execution to its end and returns it.
    ///
    /// # Errors
    /// Kinds `execution_not_found` and `storage`.
    pub async fn end(mut self) -> Result<Execution> {
        loop {
            match self.next().await? {
                Some(Update::Ended(execution)) => return Ok(*execution),
                Some(Update::Event(_) | Update::Status(_)) => {}
                None => return self.engine.get(&self.tenant, self.id).await,
            }
        }
    }

    /// Waits for the run, or for a look at the storage when the run is elsewhere.
    async fn receive(&mut self) {
        let Some(live) = &mut self.live else {
            self.wait_for_change().await;
            self.caught_up = false;
            return;
        };
        match live.recv().await {
            Ok(Told::Event(event)) => self.backlog.push_back(event),
            Ok(Told::Moved) | Err(RecvError::Lagged(_)) => self.caught_up = false,
            // Every event is recorded before the end is, so the storage now has the whole story.
            Err(RecvError::Closed) => {
                self.live = None;
                self.caught_up = false;
            }
        }
    }

    /// Waits for the next look: a run elsewhere goes on any time, one that waits is told of where it happens here.
    async fn wait_for_change(&mut self) {
        let pause = if self.waits { POLL_WAITING } else { POLL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.moves.changed(), if self.waits => {}
        }
    }

    /// Reads the next page of what is recorded.
    async fn catch_up(&mut self) -> Result<()> {
        match self.next_page.take() {
            Some(next) => self.page = Page::first(EVENTS_READ).after(next),
            None => self.look().await?,
        }
        let storage = &self.engine.parts.storage;
        let rows = storage.events(&self.tenant, self.id, &self.page).await?;
        self.backlog = rows.items.into();
        self.next_page = rows.next;
        if self.next_page.is_none() {
            self.backlog.extend(std::mem::take(&mut self.unrecorded));
            self.caught_up = true;
        }
        Ok(())
    }

    /// Reads the execution, before its events are read, so that no event of an ended run is missed.
    async fn look(&mut self) -> Result<()> {
        if self.live.is_none()
            && let Some(run) = self.engine.live_run(&self.tenant, self.id)
            && let Some(Subscription { unrecorded, live }) = run.subscribe()
        {
            (self.unrecorded, self.live) = (unrecorded, Some(live));
        }
        self.moves.mark_unchanged();
        let execution = Box::new(self.engine.get(&self.tenant, self.id).await?);
        self.waits = execution.is_waiting();
        if execution.status.is_terminal() {
            self.end = Some(execution);
            return Ok(());
        }
        let stands = Some((execution.status, execution.reason));
        if let Some(told) = &mut self.status
            && *told != stands
        {
            *told = stands;
            self.moved = Some(execution);
        }
        Ok(())
    }
}

/// Waits until a run in progress is over.
pub(super) async fn until_over(Subscription { mut live, .. }: Subscription) {
    while !matches!(live.recv().await, Err(RecvError::Closed)) {}
}
