//! Deletes executions that ended long ago: when asked to, and by itself where a retention is set.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{Days, NaiveDate};

use super::Engine;
use crate::error::{Error, Result};
use crate::execution::TenantId;
use crate::limits;
use crate::request::PruneRequest;
use crate::status::Status;
use crate::storage::{Applied, Prune, StorageError, Write, WriteError};

/// How long ended executions are kept, of every tenant, in whole days (UTC) after the day on which they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    days: u32,
    failed_days: u32,
}

impl Retention {
    /// Keeps executions for so many days; 0 keeps those that ended today.
    #[must_use]
    pub const fn days(days: u32) -> Self {
        Self {
            days,
            failed_days: days,
        }
    }

    /// Keeps those that failed for another number of days.
    #[must_use]
    pub const fn with_failed_days(mut self, days: u32) -> Self {
        self.failed_days = days;
        self
    }

    /// Returns what goes on a day.
    fn requests(self, today: NaiveDate) -> impl Iterator<Item = PruneRequest> {
        let before = move |days: u32| {
            // Nothing is that old.
            let before = today.checked_sub_days(Days::new(days.into()));
            PruneRequest::before(before.unwrap_or(NaiveDate::MIN))
        };
        let failed = before(self.failed_days).with_statuses([Status::Failed]);
        let others = before(self.days).with_statuses([Status::Completed, Status::Cancelled]);
        [others, failed].into_iter()
    }
}

/// Pause between looks: what is old by days need not go by the minute.
const PAUSE: Duration = Duration::from_secs(3600);
/// Pause after a storage that did not answer.
const RETRY: Duration = Duration::from_secs(60);

/// Starts the task that prunes now and every hour, as long as the engine lives, if a retention is set.
pub(super) fn spawn(engine: &Arc<Engine>) {
    if let Some(retention) = engine.settings.retention {
        // Not tracked: a batch that a shutdown cuts off goes the next time.
        let keep = keep(Arc::downgrade(engine), retention);
        drop(engine.parts.runtime.spawn(keep));
    }
}

async fn keep(engine: Weak<Engine>, retention: Retention) {
    loop {
        let pause = match prune_old(&engine, retention).await {
            Ok(rows) => {
                if rows > 0 {
                    tracing::info!(rows, "old executions are deleted");
                }
                PAUSE
            }
            Err(StorageError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "old executions are not deleted yet");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Prunes batch by batch, and holds the engine no longer than for one.
async fn prune_old(engine: &Weak<Engine>, retention: Retention) -> Result<u64, StorageError> {
    let today = match engine.upgrade() {
        Some(engine) => engine.now().date_naive(),
        None => return Err(StorageError::Closed),
    };
    let mut all = 0;
    for request in retention.requests(today) {
        let mut batch = Some(batch(None, request));
        while let Some(next) = batch {
            let engine = engine.upgrade().ok_or(StorageError::Closed)?;
            let (rows, rest) = engine.prune_batch(next).await?;
            all += rows;
            batch = rest;
        }
    }
    Ok(all)
}

fn batch(tenant_id: Option<TenantId>, request: PruneRequest) -> Prune {
    Prune {
        tenant_id,
        before: request.before,
        statuses: request.statuses,
        rows_max: limits::PRUNE_ROWS,
        after: None,
    }
}

impl Engine {
    pub(crate) async fn prune(&self, tenant: &TenantId, request: PruneRequest) -> Result<u64> {
        check(&request, self.now().date_naive())?;
        let (mut all, mut rest) = (0, Some(batch(Some(tenant.clone()), request)));
        while let Some(next) = rest {
            let (rows, behind) = self.prune_batch(next).await?;
            all += rows;
            rest = behind;
        }
        Ok(all)
    }

    /// Prunes one batch; returns how many executions went, and the next batch.
    async fn prune_batch(&self, batch: Prune) -> Result<(u64, Option<Prune>), StorageError> {
        let write = Write::Prune(batch.clone());
        match self.parts.storage.commit(vec![write]).await.pop() {
            Some(Ok(Applied::Pruned { rows, next })) => {
                let rest = next.map(|next| Prune {
                    after: Some(next),
                    ..batch
                });
                Ok((rows as u64, rest))
            }
            Some(Err(WriteError::Storage(error))) => Err(error),
            // Pruning has no condition that could not hold.
            other => Err(StorageError::Unusable {
                backend: "any",
                detail: format!("pruning was answered with {other:?}"),
            }),
        }
    }
}

fn check(request: &PruneRequest, today: NaiveDate) -> Result<()> {
    if request.before > today {
        let detail = format!("{} is later than today, {today}", request.before);
        return Err(Error::invalid_request("/before", detail));
    }
    match request.statuses.iter().find(|status| !status.is_terminal()) {
        Some(open) => {
            let detail = format!("{open} is no status of an execution that ended");
            Err(Error::invalid_request("/statuses", detail))
        }
        None => Ok(()),
    }
}
