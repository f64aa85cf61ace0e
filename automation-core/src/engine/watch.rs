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
use super::host::Subscription;
use crate::error::Result;
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::limits;
use crate::request::Page;

/// How often a run that another instance executes is looked at.
const POLL: Duration = Duration::from_millis(250);
/// The same for one that waits.
const POLL_WAITING: Duration = Duration::from_secs(2);

/// How long a watcher that missed events waits for their record.
const GAP: Duration = Duration::from_millis(50);

/// Something that a watcher is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Update {
    /// The run reported something.
    Event(Event),
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
    live: Option<Receiver<Event>>,
    /// What was read and is not given yet.
    backlog: VecDeque<Event>,
    /// Where the backlog ends with the end.
    end: Option<Box<Execution>>,
    caught_up: bool,
    /// Whether it waited when it was last looked at.
    waits: bool,
    /// Tells that rows that wait moved on.
    moves: watch::Receiver<()>,
    /// The page of events that was not full when it was last read.
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
            end: None,
            caught_up: false,
            waits: false,
            page: Page::first(limits::PAGE_ROWS_MAX),
            seq: 0,
            ended: false,
        }
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
            match self.backlog.pop_front() {
                Some(event) if event.seq <= self.seq => {}
                Some(event) if self.end.is_some() || event.seq == self.seq + 1 => {
                    self.seq = event.seq;
                    return Ok(Some(Update::Event(event)));
                }
                // This watcher was too slow, and what it missed is not recorded yet.
                Some(_) => {
                    self.backlog.clear();
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
                Some(Update::Event(_)) => {}
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
            Ok(event) => self.backlog.push_back(event),
            Err(RecvError::Lagged(_)) => self.caught_up = false,
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

    /// Reads what is recorded: the execution first, so that no event of an ended run is missed.
    async fn catch_up(&mut self) -> Result<()> {
        if self.live.is_none()
            && let Some(run) = self.engine.live_run(&self.tenant, self.id)
            && let Some(Subscription { unrecorded, live }) = run.subscribe()
        {
            (self.unrecorded, self.live) = (unrecorded, Some(live));
        }
        self.moves.mark_unchanged();
        let execution = self.engine.get(&self.tenant, self.id).await?;
        let mut backlog = VecDeque::new();
        loop {
            let rows = self
                .engine
                .parts
                .storage
                .events(&self.tenant, self.id, &self.page)
                .await?;
            backlog.extend(rows.items);
            let Some(next) = rows.next else { break };
            self.page = Page::first(limits::PAGE_ROWS_MAX).after(next);
        }
        backlog.extend(std::mem::take(&mut self.unrecorded));
        self.backlog = backlog;
        self.waits = execution.is_waiting();
        self.end = execution.status.is_terminal().then(|| Box::new(execution));
        self.caught_up = true;
        Ok(())
    }
}

/// Waits until a run in progress is over.
pub(super) async fn until_over(Subscription { mut live, .. }: Subscription) {
    while !matches!(live.recv().await, Err(RecvError::Closed)) {}
}
