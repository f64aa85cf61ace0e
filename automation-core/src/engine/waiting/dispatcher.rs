//! The task that takes up what is due: woken by time or by an earlier one, never in between. Several servers share the
//! work: a claim gives a row to one of them.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::super::Engine;
use super::super::gate::Permit;
use crate::clock::Clock;
use crate::execution::{Execution, InstanceId, TenantId};
use crate::storage::{Applied, Claim, StorageError, Write, WriteError};

/// Rows that are claimed at once.
const ROWS_MAX: usize = 64;
/// Pause after a storage that did not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Starts the task; it ends with the engine.
pub(in crate::engine) fn spawn(engine: &Arc<Engine>) {
    let earlier = engine.waiting.earlier.subscribe();
    let clock = Arc::clone(&engine.parts.clock);
    let serve = serve(Arc::downgrade(engine), earlier, clock);
    // Not tracked: it has no run of its own, so nobody waits for it.
    drop(engine.parts.runtime.spawn(serve));
}

async fn serve(engine: Weak<Engine>, mut earlier: watch::Receiver<()>, clock: Arc<dyn Clock>) {
    loop {
        earlier.mark_unchanged();
        let Some(next) = engine.upgrade().map(|engine| engine.waiting.next()) else {
            return;
        };
        let due = async {
            match next {
                Some(at) => clock.until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            change = earlier.changed() => match change {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = due => {}
        }
        let Some(engine) = engine.upgrade() else {
            return;
        };
        match engine.take_up_due().await {
            Ok(()) => {}
            Err(StorageError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "what is due is not taken up yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Engine {
    /// Claims what is due, as much as there are places for, and lets it run.
    async fn take_up_due(self: &Arc<Self>) -> Result<(), StorageError> {
        self.quarantine_loaded().await?;
        let mut due = self.waiting.take_due(self.now());
        while let Some(tenant) = due.first() {
            // Places first: what is claimed is dispatched at once, and what has to wait stays free for other servers.
            let Some(place) = self.gate.turn().await else {
                return Err(StorageError::Closed);
            };
            let mut places = vec![place];
            places.extend(self.gate.spare(ROWS_MAX - 1));
            if let Err(error) = self.take_up(tenant, places).await {
                let now = self.now();
                due.iter()
                    .for_each(|tenant| self.waiting.expect(now, tenant));
                return Err(error);
            }
            due.pop_first();
        }
        Ok(())
    }

    async fn take_up(
        self: &Arc<Self>,
        tenant: &TenantId,
        places: Vec<Permit>,
    ) -> Result<(), StorageError> {
        let now = self.now();
        let claim = Claim {
            tenant_id: tenant.clone(),
            instance: InstanceId::new(format!("{} (claim)", self.instance)),
            now,
            lease_until: self.lease_until(now),
            rows_max: places.len(),
        };
        let lease_until = claim.lease_until;
        let claimed = self.claim(claim).await;
        // Nobody renews the lease of a claim: what is not dispatched, whatever the reason, can be claimed again.
        if claimed.as_ref().map_or(true, |rows| !rows.is_empty()) {
            self.waiting.expect(lease_until, tenant);
        }
        let rows = claimed?;
        if rows.len() == places.len() {
            self.waiting.expect(now, tenant);
        }
        for (row, place) in rows.into_iter().zip(places) {
            self.resume(row, place);
        }
        Ok(())
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Execution>, StorageError> {
        let claim = vec![Write::Claim(claim)];
        match self.parts.storage.commit(claim).await.pop() {
            Some(Ok(Applied::Claimed(rows))) => Ok(rows),
            Some(Err(WriteError::Storage(error))) => Err(error),
            _ => Ok(Vec::new()),
        }
    }
}
