//! A storage that fails on purpose: the n-th call, before or after it is applied, or every call while it is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::request::{Listing, Page, StatsQuery};
use crate::stats::Stats;
use crate::storage::{
    Applied, ExecutionQuery, Record, RecordKind, Storage, StorageCapabilities, StorageError, Write,
    WriteError,
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused and nothing is applied.
    Refused,
    /// It is applied, and its answer is lost.
    AnswerLost,
    /// It hangs for two seconds, and is applied and answered then.
    Late,
}

const HANGS: Duration = Duration::from_secs(2);

/// Wraps a storage and lets its n-th call fail.
#[derive(Debug)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    fault: Fault,
    fails_at: usize,
    fails_for: usize,
    calls: AtomicUsize,
    is_away: AtomicBool,
}

impl FaultyStorage {
    /// Lets the call with this number, from 1, fail. `close` and `health` are neither counted nor do they fail.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, fails_at: usize, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            fails_at,
            fails_for: 1,
            calls: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
        }
    }

    /// Wraps a storage that works until it is told to be [away](Self::set_away).
    #[must_use]
    pub fn switched(inner: Arc<dyn Storage>) -> Self {
        Self::new(inner, usize::MAX, Fault::Refused)
    }

    /// Lets every call be refused from now on, or no longer.
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Release);
    }

    /// Lets not one but `calls` calls fail in a row.
    #[must_use]
    pub const fn for_calls(mut self, calls: usize) -> Self {
        self.fails_for = calls;
        self
    }

    /// Returns how many calls there were.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    /// Returns whether the fault has happened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.calls() >= self.fails_at
    }

    fn fault(&self) -> Option<Fault> {
        let call = self.calls.fetch_add(1, Ordering::AcqRel) + 1;
        if self.is_away.load(Ordering::Acquire) {
            return Some(Fault::Refused);
        }
        let fails = call >= self.fails_at && call - self.fails_at < self.fails_for;
        fails.then_some(self.fault)
    }

    /// A read has no effect: only what it is told differs.
    async fn read(&self) -> Result<(), StorageError> {
        match self.fault() {
            None => Ok(()),
            Some(Fault::Late) => {
                tokio::time::sleep(HANGS).await;
                Ok(())
            }
            Some(Fault::Refused) => Err(refused()),
            Some(Fault::AnswerLost) => Err(answer_lost()),
        }
    }
}

fn refused() -> StorageError {
    StorageError::Unavailable {
        backend: "faulty",
        detail: "on purpose".to_owned(),
    }
}

fn answer_lost() -> StorageError {
    StorageError::Backend {
        backend: "faulty",
        source: "the answer is lost on purpose".into(),
    }
}

fn errors(count: usize, error: fn() -> StorageError) -> Vec<Result<Applied, WriteError>> {
    (0..count)
        .map(|_| Err(WriteError::Storage(error())))
        .collect()
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Storage for FaultyStorage {
    fn capabilities(&self) -> StorageCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        let count = writes.len();
        match self.fault() {
            None => self.inner.commit(writes).await,
            Some(Fault::Late) => {
                tokio::time::sleep(HANGS).await;
                self.inner.commit(writes).await
            }
            Some(Fault::Refused) => errors(count, refused),
            Some(Fault::AnswerLost) => {
                self.inner.commit(writes).await;
                errors(count, answer_lost)
            }
        }
    }

    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError> {
        self.read().await?;
        self.inner.get(tenant, id).await
    }

    async fn list(
        &self,
        query: &ExecutionQuery,
        page: &Page,
    ) -> Result<Listing<Execution>, StorageError> {
        self.read().await?;
        self.inner.list(query, page).await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        page: &Page,
    ) -> Result<Listing<Event>, StorageError> {
        self.read().await?;
        self.inner.events(tenant, id, page).await
    }

    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError> {
        self.read().await?;
        self.inner.record(tenant, kind, key).await
    }

    async fn records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        page: &Page,
    ) -> Result<Listing<Record>, StorageError> {
        self.read().await?;
        self.inner.records(tenant, kind, page).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        self.read().await?;
        self.inner.stats(query).await
    }

    async fn health(&self) -> Result<String, StorageError> {
        self.inner.health().await
    }

    async fn back_up(&self, to: &std::path::Path) -> Result<u64, StorageError> {
        self.read().await?;
        self.inner.back_up(to).await
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.inner.close().await
    }
}
