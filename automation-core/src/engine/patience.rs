//! How long a caller waits for a run: to its end, or for a time that begins when the run is recorded. The run goes on
//! whatever the caller does.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Engine;
use super::life::Life;
use crate::error::Result;
use crate::execution::{Execution, TenantId};

/// A caller who does not wait for the end, and is told when the run is recorded.
pub(super) type Impatient = oneshot::Sender<Execution>;

impl Life {
    /// Lets `caller` know when the run is recorded.
    pub(super) fn tell(&mut self, caller: Impatient) {
        self.impatient = Some(caller);
    }

    /// Tells the caller who is impatient, if there is one, that the run is recorded.
    pub(super) fn tell_recorded(&mut self) {
        if let Some(caller) = self.impatient.take() {
            // Who went away meanwhile needs no answer.
            let _ = caller.send(self.execution.clone());
        }
    }
}

impl Engine {
    /// Returns how a run ended, or how it stands when it goes on for longer than `patience` after it was recorded.
    pub(super) async fn within(
        &self,
        tenant: &TenantId,
        patience: Duration,
        recorded: oneshot::Receiver<Execution>,
        end: impl Future<Output = Result<Execution>>,
    ) -> Result<Execution> {
        let mut end = pin!(end);
        let recorded = tokio::select! {
            biased;
            ended = &mut end => return ended,
            Ok(recorded) = recorded => recorded,
        };
        match tokio::time::timeout(patience, end).await {
            Ok(ended) => ended,
            // A storage that does not answer now makes what was recorded no less true.
            Err(_) => Ok(self.get(tenant, recorded.id).await.unwrap_or(recorded)),
        }
    }
}
