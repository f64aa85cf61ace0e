//! Whether runs are taken on: not while the storage does not take what they would have recorded. Closed by the first
//! call that fails, opened by a write that works.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use super::{Engine, spool};
use crate::error::Error;
use crate::execution::{ExecutionId, TenantId};
use crate::storage::{
    Applied, Change, Record, RecordKind, StorageError, Transition, Write, WriteError,
};

/// Pause between two looks at a storage that does not work.
const PROBE_PAUSE: Duration = Duration::from_millis(400);
/// What a probe writes at least: where only a few bytes fit, a run's end would not.
const PROBE_BYTES: usize = 16 * 1024;

/// The way in.
#[derive(Debug, Default)]
pub(super) struct Intake {
    is_closed: AtomicBool,
    cause: Mutex<Option<Cause>>,
    /// What the largest end takes that the storage has not taken since it closed. Where a probe fits and that does not,
    /// runs would be taken on whose ends do not fit either.
    refused_bytes: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Cause {
    backend: &'static str,
    sentence: String,
}

impl Intake {
    /// Refuses runs while the storage does not work.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        if !self.is_closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.cause.lock().clone().map_or(Ok(()), |cause| {
            Err(StorageError::Unavailable {
                backend: cause.backend,
                detail: cause.sentence,
            })
        })
    }

    /// Returns why runs are refused, if they are.
    pub(super) fn cause(&self) -> Option<String> {
        self.check().err().map(|error| error.to_string())
    }

    /// Closes, if it is the storage that does not work; returns whether it was open.
    fn close(&self, error: &StorageError) -> bool {
        let (StorageError::Unavailable { backend, detail }
        | StorageError::Unusable { backend, detail }) = error
        else {
            return false;
        };
        let sentence = detail.clone();
        let was_open = self
            .cause
            .lock()
            .replace(Cause { backend, sentence })
            .is_none();
        self.is_closed.store(true, Ordering::Release);
        was_open
    }

    /// Does not open before an end as large as this one fits.
    pub(super) fn wait_for_space(&self, end: &Transition) {
        if let Change::End(completion) = &end.change {
            let bytes = completion.output.len() + completion.stderr.len();
            self.refused_bytes.fetch_max(bytes, Ordering::AcqRel);
        }
    }

    fn open(&self) {
        let mut cause = self.cause.lock();
        *cause = None;
        self.refused_bytes.store(0, Ordering::Release);
        self.is_closed.store(false, Ordering::Release);
    }
}

impl Engine {
    /// Takes no runs on until the storage works again, if an error says that it does not.
    pub(super) fn storage_failed(self: &Arc<Self>, error: &StorageError) {
        if self.intake.close(error) {
            tracing::error!(%error, "runs are refused until the storage works again");
            drop(self.parts.runtime.spawn(probe(Arc::downgrade(self))));
        }
    }

    /// Returns what the caller of a run is told whose row the storage did not take.
    pub(super) fn refused(self: &Arc<Self>, error: StorageError) -> Error {
        self.storage_failed(&error);
        match (&error, self.intake.check()) {
            // It may be put right while we run, so the caller may come again.
            (StorageError::Unusable { .. }, Err(refused)) => refused.into(),
            _ => error.into(),
        }
    }

    /// Hands over the ends that no task looks after any more.
    pub(super) async fn replay_spool(&self) -> Result<(), StorageError> {
        let Some(spool) = &self.spool else {
            return Ok(());
        };
        let recorded = spool::replay(spool, &*self.parts.storage).await?;
        if recorded > 0 {
            tracing::info!(recorded, "ends of runs are recorded from the spool");
        }
        Ok(())
    }

    /// Returns whether a run has ended and waits for its end to be recorded.
    pub(super) fn is_spooled(&self, id: ExecutionId) -> bool {
        self.spool.as_ref().is_some_and(|spool| spool.holds(id))
    }

    /// Writes and takes it back.
    async fn probe_storage(&self) -> Result<(), StorageError> {
        let bytes = self.intake.refused_bytes.load(Ordering::Acquire);
        let mut record = Record {
            tenant_id: TenantId::default(),
            kind: RecordKind::Probe,
            key: self.instance.to_string(),
            value: json!("x".repeat(bytes.max(PROBE_BYTES))),
            revision: 0,
        };
        let storage = &self.parts.storage;
        let put = Write::Put {
            record: record.clone(),
            expected: None,
        };
        match storage.commit(vec![put]).await.pop() {
            Some(Ok(Applied::Stored { revision })) => record.revision = revision,
            Some(Err(WriteError::Storage(error))) => return Err(error),
            // An earlier one was written, and its answer lost.
            _ => {
                let found = storage
                    .record(&record.tenant_id, record.kind, &record.key)
                    .await?;
                record.revision = found.map_or(0, |found| found.revision);
            }
        }
        match storage.commit(vec![Write::Delete { record }]).await.pop() {
            Some(Err(WriteError::Storage(error))) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Looks at the storage until it works, then lets runs in again.
async fn probe(engine: Weak<Engine>) {
    loop {
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let works = match engine.probe_storage().await {
            Ok(()) => engine.replay_spool().await,
            Err(error) => Err(error),
        };
        match works {
            Ok(()) => {
                engine.intake.open();
                tracing::info!("the storage works again, runs are accepted");
                return;
            }
            Err(StorageError::Closed) => return,
            Err(error) => {
                engine.intake.close(&error);
            }
        }
        drop(engine);
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}
