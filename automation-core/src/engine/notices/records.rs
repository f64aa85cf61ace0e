//! The records of the entries: read before anything runs, written and deleted as people and runs cause it, and caught
//! up with when leases are renewed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::MutexGuard;

use super::{Notice, Notices};
use crate::execution::TenantId;
use crate::limits;
use crate::request::Page;
use crate::storage::{Record, Storage, StorageError, Write, WriteError};

impl<N: Notice> Notices<N> {
    /// Waits until the entries are known, which `refresh` sees to: before that, nothing may run.
    pub(in crate::engine) async fn load<F>(
        &self,
        refresh: impl FnOnce() -> F,
    ) -> Result<(), StorageError>
    where
        F: Future<Output = Result<(), StorageError>>,
    {
        if self.loaded.initialized() {
            return Ok(());
        }
        // Boxed: it happens once, and every run would carry it along.
        let loaded = self.loaded.get_or_try_init(refresh);
        Box::pin(loaded).await.map(drop)
    }

    /// Catches up: lets `refresh` see to it that the entries are known as they are now.
    pub(in crate::engine) async fn keep_up<F>(
        &self,
        refresh: impl FnOnce() -> F,
    ) -> Result<(), StorageError>
    where
        F: Future<Output = Result<(), StorageError>>,
    {
        if self.loaded.initialized() {
            refresh().await
        } else {
            self.load(refresh).await
        }
    }

    /// Waits until nobody else changes records.
    pub(in crate::engine) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Brings entries and records together: writes what is not recorded, reads what other instances recorded and
    /// deleted.
    pub(in crate::engine) async fn refresh(
        &self,
        storage: &dyn Storage,
    ) -> Result<(), StorageError> {
        let _turn = self.turn().await;
        self.record_all(storage).await?;
        self.replace(&read_all(storage).await?);
        Ok(())
    }

    /// Records what is not recorded yet.
    pub(in crate::engine) async fn record(
        &self,
        storage: &dyn Storage,
    ) -> Result<(), StorageError> {
        let _turn = self.turn().await;
        self.record_all(storage).await
    }

    async fn record_all(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        for (key, notice) in self.unrecorded() {
            self.record_one(storage, &key, &notice).await?;
        }
        Ok(())
    }

    /// Records an entry, unless another instance has recorded one that weighs as much.
    async fn record_one(
        &self,
        storage: &dyn Storage,
        key: &str,
        notice: &N,
    ) -> Result<(), StorageError> {
        let present = storage.record(&TenantId::default(), N::KIND, key).await?;
        let expected = present.as_ref().map(|record| record.revision);
        let known = present.and_then(|record| serde_json::from_value(record.value).ok());
        if known.is_some_and(|known: N| !notice.outweighs(&known)) {
            self.recorded(key, notice);
            return Ok(());
        }
        let record = Record {
            tenant_id: TenantId::default(),
            kind: N::KIND,
            key: key.to_owned(),
            value: json!(notice),
            revision: 0,
        };
        match write(storage, Write::Put { record, expected }).await {
            Ok(()) => {
                self.recorded(key, notice);
                Ok(())
            }
            // Another instance was faster: which one weighs more is looked at again with the leases.
            Err(WriteError::Mismatch { .. } | WriteError::Missing { .. }) => Ok(()),
            Err(error) => Err(in_storage::<N>(error)),
        }
    }

    /// Removes an entry and its record; who calls has the [`turn`](Self::turn). It stands when the record is gone,
    /// whoever deleted it.
    pub(in crate::engine) async fn delete(
        &self,
        storage: &dyn Storage,
        key: &str,
        notice: &N,
    ) -> Result<(), StorageError> {
        if let Some(record) = storage.record(&TenantId::default(), N::KIND, key).await? {
            match write(storage, Write::Delete { record }).await {
                Ok(()) | Err(WriteError::Missing { .. }) => {}
                Err(error) => return Err(in_storage::<N>(error)),
            }
        }
        self.remove(key, notice);
        Ok(())
    }
}

async fn read_all<N: Notice>(storage: &dyn Storage) -> Result<BTreeMap<Arc<str>, N>, StorageError> {
    let tenant = TenantId::default();
    let (mut page, mut notices) = (Page::first(limits::PAGE_ROWS_MAX), BTreeMap::new());
    loop {
        let found = storage.records(&tenant, N::KIND, &page).await?;
        for record in found.items {
            match serde_json::from_value(record.value) {
                Ok(notice) => drop(notices.insert(record.key.into(), notice)),
                Err(error) => {
                    tracing::error!(kind = %N::KIND, key = record.key, %error, "a record can't be read");
                }
            }
        }
        let Some(next) = found.next else {
            return Ok(notices);
        };
        page = Page::first(limits::PAGE_ROWS_MAX).after(next);
    }
}

async fn write(storage: &dyn Storage, write: Write) -> Result<(), WriteError> {
    let answer = storage.commit(vec![write]).await.pop();
    answer.unwrap_or(Err(WriteError::Aborted)).map(drop)
}

fn in_storage<N: Notice>(error: WriteError) -> StorageError {
    match error {
        WriteError::Storage(error) => error,
        other => StorageError::Backend {
            backend: N::KIND.as_str(),
            source: other.into(),
        },
    }
}
