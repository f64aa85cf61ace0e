//! Executions that wait: for a decision, for another try, for their time.
//!
//! Such a row is `starting`, says in `reason` what it waits for, and is held by nobody, so it survives the process and
//! any server on the same storage takes it up when `run_at` has come. What it was asked with is in the row, the source
//! of its script under its version: it executes what it was accepted with, whatever became of the script since.
//!
//! `dispatcher` takes up what is due, `resume` lets one row run. Who lets rows wait, and why, is not known here.

mod dispatcher;
mod resume;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(super) use self::dispatcher::spawn;
use super::Engine;
use super::life::Life;
use super::plan::Plan;
use super::venue::Venue;
use super::verdict::cancelled_by;
use crate::error::{Error, Result};
use crate::execution::{Completion, Execution, ExecutionId, Reason, TenantId};
use crate::status::Status;
use crate::storage::{Change, Transition, Write, WriteError};

/// What an execution waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) reason: Reason,
    /// When it is due by itself; one that waits for a decision is over then.
    pub(super) run_at: Option<DateTime<Utc>>,
}

/// When something will be due, as far as this instance knows; others are told by `recovery`, which reads all open rows.
#[derive(Debug)]
pub(super) struct Waiting {
    times: Mutex<BTreeSet<(DateTime<Utc>, TenantId)>>,
    /// Wakes the dispatcher. Ends it when it is dropped.
    earlier: watch::Sender<()>,
    /// Wakes whoever follows a row that waits.
    moved: watch::Sender<()>,
}

impl Waiting {
    pub(super) fn new() -> Self {
        Self {
            times: Mutex::default(),
            earlier: watch::Sender::new(()),
            moved: watch::Sender::new(()),
        }
    }

    /// Notes that something of a tenant will be due.
    pub(super) fn expect(&self, at: DateTime<Utc>, tenant: &TenantId) {
        let mut times = self.times.lock();
        let is_earlier = times.first().is_none_or(|(first, _)| at < *first);
        times.insert((at, tenant.clone()));
        drop(times);
        if is_earlier {
            self.earlier.send_replace(());
        }
    }

    /// Notes when a row can be taken up, if it can be.
    pub(super) fn expect_row(&self, row: &Execution) {
        if let (Status::Starting, Some(run_at)) = (row.status, row.run_at) {
            let at = row.lease_until.map_or(run_at, |until| until.max(run_at));
            self.expect(at, &row.tenant_id);
        }
    }

    fn next(&self) -> Option<DateTime<Utc>> {
        self.times.lock().first().map(|(at, _)| *at)
    }

    /// Takes the tenants of whom something is due.
    fn take_due(&self, now: DateTime<Utc>) -> BTreeSet<TenantId> {
        let mut times = self.times.lock();
        let mut tenants = BTreeSet::new();
        while times.first().is_some_and(|(at, _)| *at <= now) {
            tenants.extend(times.pop_first().map(|(_, tenant)| tenant));
        }
        tenants
    }

    /// Changes when a row waits no longer, or for something else, because of this instance.
    pub(super) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// Says that a row waits no longer, or for something else.
    pub(super) fn tell_moved(&self) {
        self.moved.send_replace(());
    }
}

impl Engine {
    /// Records an execution that waits, in a task of its own, and returns it.
    pub(super) async fn accept_waiting(
        self: &Arc<Self>,
        tenant: &TenantId,
        plan: Plan,
        venue: Venue,
        wait: Wait,
    ) -> Result<Execution> {
        check_keepable(&plan)?;
        let life = Life::new(Arc::clone(self), tenant.clone(), plan, venue);
        self.in_task(life.wait(wait)).await
    }

    /// Changes what an execution waits for, or ends it, together with other writes; `None` when it is no longer as
    /// `row` says. Of several who decide on one row, one succeeds.
    pub(super) async fn decide(
        &self,
        row: &Execution,
        change: Change,
        also: Vec<Write>,
    ) -> Result<Option<Execution>> {
        let transition = Transition {
            tenant_id: row.tenant_id.clone(),
            id: row.id,
            epoch: row.epoch,
            from: row.status,
            change: change.clone(),
        };
        let mut writes = vec![Write::Transition(Box::new(transition))];
        writes.extend(also);
        match self.parts.storage.commit(writes).await.into_iter().next() {
            Some(Ok(_)) => {}
            Some(Err(WriteError::Mismatch { .. } | WriteError::Missing { .. })) => return Ok(None),
            Some(Err(error)) => return Err(super::record::storage_error(error)),
            None => return Err(Error::Closed),
        }
        let decided = self.get(&row.tenant_id, row.id).await?;
        self.waiting.expect_row(&decided);
        self.waiting.tell_moved();
        Ok(Some(decided))
    }

    /// Ends an execution that waits, if it does; true when that has to be looked at again.
    pub(super) async fn cancel_waiting(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        actor: Option<&str>,
    ) -> Result<bool> {
        let row = self.get(tenant, id).await?;
        let is_claimed = row.run_at.is_some() && row.status == Status::Starting;
        if !row.is_waiting() {
            return Ok(is_claimed);
        }
        let reason = Some(Reason::CancelledByRequest);
        let mut completion = Completion::new(Status::Cancelled, reason, self.now());
        completion.error = Some(format!("not started: {}", cancelled_by(actor)));
        let ended = self
            .decide(&row, Change::End(completion), Vec::new())
            .await?;
        Ok(ended.is_none())
    }
}

/// Refuses what must not outlive the process (promise P9).
pub(super) fn check_keepable(plan: &Plan) -> Result<()> {
    let secrets = plan.script.parameters().secret_names(&plan.parameters);
    if secrets.is_empty() {
        return Ok(());
    }
    let what = format!(
        "script {:?} may have to wait, and its secret parameters ({}) would have to be stored, for which there is \
         no encryption key: let the script take them by name (ctx.secret)",
        plan.script.name(),
        secrets.join(", ")
    );
    Err(Error::Unsupported { what })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::Waiting;
    use crate::execution::TenantId;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn what_is_due_is_taken_once_and_the_rest_stays() {
        let waiting = Waiting::new();
        let (ours, theirs) = (TenantId::default(), TenantId::new("theirs"));
        for (seconds, tenant) in [(3, &ours), (1, &ours), (2, &theirs), (2, &ours)] {
            waiting.expect(at(seconds), tenant);
        }
        assert_eq!(waiting.next(), Some(at(1)));
        let due: Vec<_> = waiting.take_due(at(2)).into_iter().collect();
        assert_eq!(due, [ours, theirs]);
        assert_eq!(waiting.next(), Some(at(3)));
        assert!(waiting.take_due(at(2)).is_empty());
    }

    #[test]
    fn only_an_earlier_time_wakes_the_dispatcher() {
        let waiting = Waiting::new();
        let mut woken = waiting.earlier.subscribe();
        for (seconds, wakes) in [(5, true), (7, false), (5, false), (4, true)] {
            waiting.expect(at(seconds), &TenantId::default());
            assert_eq!(woken.has_changed().unwrap(), wakes, "{seconds}");
            woken.mark_unchanged();
        }
    }
}
