//! Following an execution, whether it runs here or elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Engine;
use crate::error::Result;
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::limits;
use crate::request::Page;

/// How often a run that another instance executes is looked at.
const POLL: Duration = Duration::from_millis(250);

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
pub struct Watch {
    engine: Arc<Engine>,
    tenant: TenantId,
    id: ExecutionId,
    live: Option<Receiver<Update>>,
    backlog: VecDeque<Update>,
    caught_up: bool,
    /// The number of the last event that was given.
    seq: u32,
    /// Whether the backlog ends with the end.
    complete: bool,
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
    pub(super) const fn new(
        engine: Arc<Engine>,
        tenant: TenantId,
        id: ExecutionId,
        live: Option<Receiver<Update>>,
    ) -> Self {
        Self {
            engine,
            tenant,
            id,
            live,
            backlog: VecDeque::new(),
            caught_up: false,
            seq: 0,
            complete: false,
            ended: false,
        }
    }

    /// Returns the next update; `None` after [`Update::Ended`].
    ///
    /// # Errors
    /// Kinds `execution_not_found` and `storage`; a later call tries again.
    ///
    /// # Cancel safety
    /// Safe: no update is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Update>> {
        loop {
            match self.backlog.pop_front() {
                Some(Update::Event(event)) if event.seq <= self.seq => {}
                Some(Update::Event(event)) if self.complete || event.seq == self.seq + 1 => {
                    self.seq = event.seq;
                    return Ok(Some(Update::Event(event)));
                }
                // This watcher was too slow, and what it missed is not recorded yet.
                Some(Update::Event(_)) => {
                    self.backlog.clear();
                    self.caught_up = false;
                    tokio::time::sleep(GAP).await;
                }
                Some(Update::Ended(execution)) => {
                    self.ended = true;
                    return Ok(Some(Update::Ended(execution)));
                }
                None if self.ended => return Ok(None),
                None if self.caught_up => self.receive().await,
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
            tokio::time::sleep(POLL).await;
            self.caught_up = false;
            return;
        };
        match live.recv().await {
            Ok(event @ Update::Event(_)) => self.backlog.push_back(event),
            Err(RecvError::Lagged(_)) => self.caught_up = false,
            // Every event is recorded before the end is, so the storage now has the whole story.
            Ok(Update::Ended(_)) | Err(RecvError::Closed) => {
                self.live = None;
                self.caught_up = false;
            }
        }
    }

    /// Reads what is recorded: the execution first, so that no event of an ended run is missed.
    async fn catch_up(&mut self) -> Result<()> {
        let execution = self.engine.get(&self.tenant, self.id).await?;
        let mut backlog = VecDeque::new();
        let mut page = Page::first(limits::PAGE_ROWS_MAX);
        loop {
            let rows = self
                .engine
                .parts
                .storage
                .events(&self.tenant, self.id, &page)
                .await?;
            backlog.extend(rows.items.into_iter().map(Update::Event));
            let Some(next) = rows.next else { break };
            page = Page::first(limits::PAGE_ROWS_MAX).after(next);
        }
        self.complete = execution.status.is_terminal();
        if self.complete {
            backlog.push_back(Update::Ended(Box::new(execution)));
        }
        self.backlog = backlog;
        self.caught_up = true;
        Ok(())
    }
}

/// Waits until a run in progress is over.
pub(super) async fn wait_for_end(mut live: Receiver<Update>) {
    while !matches!(
        live.recv().await,
        Ok(Update::Ended(_)) | Err(RecvError::Closed)
    ) {}
}
