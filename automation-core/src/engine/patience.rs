//! How long a caller waits for a run: to its end, or for a time that begins when the run is recorded. The run goes on
//! whatever the caller does.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Engine;
use super::life::Life;
use crate::error::Result;
use crate::execution::Execution;

/// A caller who does not wait for the end, and is told when the run is recorded.
#[derive(Debug, Clone)]
pub(super) struct Impatient(mpsc::Sender<Execution>);

impl Impatient {
    pub(super) fn new() -> (Self, mpsc::Receiver<Execution>) {
        let (sender, recorded) = mpsc::channel(1);
        (Self(sender), recorded)
    }

    /// Tells that a run is recorded. Who went away, or was told already, needs no answer.
    pub(super) fn tell(&self, execution: &Execution) {
        let _ = self.0.try_send(execution.clone());
    }
}

impl Life {
    /// Tells the caller who is impatient, if there is one, that the run is recorded.
    pub(super) fn tell_recorded(&self) {
        if let Some(caller) = &self.impatient {
            caller.tell(&self.execution);
        }
    }
}

impl Engine {
    /// Returns how a run ended, or how it stands when it goes on for longer than `patience` after it was recorded.
    pub(super) async fn within(
        self: &Arc<Self>,
        patience: Duration,
        mut recorded: mpsc::Receiver<Execution>,
        end: impl Future<Output = Result<Execution>>,
    ) -> Result<Execution> {
        let mut end = pin!(end);
        let recorded = tokio::select! {
            biased;
            ended = &mut end => return ended,
            Some(recorded) = recorded.recv() => recorded,
        };
        match tokio::time::timeout(patience, end).await {
            Ok(ended) => ended,
            Err(_) => Ok(self.newest(recorded).await),
        }
    }

    /// Returns how a run stands now, or the attempt that follows it. A storage that does not answer makes what was
    /// recorded no less true.
    async fn newest(self: &Arc<Self>, recorded: Execution) -> Execution {
        let now = self.get(&recorded.tenant_id, recorded.id).await;
        let mut newest = now.unwrap_or(recorded);
        while newest.status.is_terminal()
            && let Ok(Some(next)) = self.successor(&newest).await
        {
            newest = next;
        }
        newest
    }
}
