//! Executions in memory: the default, and the model for the other backends. Loses everything with the process.

mod prune;
mod reads;
mod state;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use self::state::State;
use super::{
    Applied, ExecutionQuery, Record, RecordKind, Storage, StorageCapabilities, StorageError, Write,
    WriteError, cursor, held,
};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::limits;
use crate::request::{Listing, Page, StatsQuery};
use crate::stats::Stats;

/// Keeps everything in memory, without bound; nothing survives the process. Clones share their data.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use automation_core::storage::{ExecutionQuery, Storage};
/// use automation_core::{MemoryStorage, Page, TenantId};
///
/// let storage = MemoryStorage::new();
/// let all = ExecutionQuery::of(TenantId::default());
/// assert!(storage.list(&all, &Page::default()).await?.items.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MemoryStorage {
    /// `None` once closed.
    state: Arc<RwLock<Option<State>>>,
}

impl MemoryStorage {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads under the lock. Rows come out as `Arc`, so that they are copied after it is released.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StorageError> {
        self.state
            .read()
            .as_ref()
            .map(read)
            .ok_or(StorageError::Closed)
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self {
            state: Arc::new(RwLock::new(Some(State::default()))),
        }
    }
}

impl fmt::Debug for MemoryStorage {
    // Rows hold tickets and output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    fn capabilities(&self) -> StorageCapabilities {
        StorageCapabilities { durable: false }
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        match self.state.write().as_mut() {
            Some(state) => state.commit(writes),
            None => writes
                .iter()
                .map(|_| Err(StorageError::Closed.into()))
                .collect(),
        }
    }

    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError> {
        self.read(|state| state.execution(tenant, id).cloned())?
            .map(Arc::unwrap_or_clone)
            .ok_or_else(|| StorageError::NotFound {
                what: format!("execution {id}"),
            })
    }

    async fn list(
        &self,
        query: &ExecutionQuery,
        page: &Page,
    ) -> Result<Listing<Execution>, StorageError> {
        let after = page.after.as_ref().map(cursor::to_place).transpose()?;
        let rows_max = held::rows_max(page);
        let query = held::query(query);
        let mut rows = self.read(|state| state.list(&query, after, rows_max + 1))?;
        let sized = rows.iter().map(AsRef::as_ref);
        let rows_max = if query.without_output {
            rows_max
        } else {
            held::page_rows(sized, rows_max)
        };
        let next = cursor::cut(&mut rows, rows_max, |row| {
            cursor::of_place(cursor::place(row))
        });
        let items = rows
            .into_iter()
            .map(|row| copy(&row, query.without_output))
            .collect();
        Ok(Listing::new(items, next))
    }

    async fn events(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        page: &Page,
    ) -> Result<Listing<Event>, StorageError> {
        let after = page
            .after
            .as_ref()
            .map(|after| cursor::to_event(after, id))
            .transpose()?;
        let rows_max = held::rows_max(page);
        let mut rows = self.read(|state| state.events(tenant, id, after, rows_max + 1))?;
        let next = cursor::cut(&mut rows, rows_max, |row| cursor::of_event(id, row.seq));
        Ok(Listing::new(rows, next))
    }

    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError> {
        self.read(|state| state.record(tenant, kind, key))
    }

    async fn records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        page: &Page,
    ) -> Result<Listing<Record>, StorageError> {
        let after = page
            .after
            .as_ref()
            .map(|after| cursor::to_record(after, kind))
            .transpose()?;
        let rows_max = held::rows_max(page);
        let mut rows = self.read(|state| state.records(tenant, kind, after, rows_max + 1))?;
        let next = cursor::cut(&mut rows, rows_max, |row| cursor::of_record(kind, &row.key));
        Ok(Listing::new(rows, next))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        let (by_script, open, recent) = self.read(|state| {
            (
                state.by_script(query),
                state.open(query),
                state.recent(query, limits::RECENT_MAX),
            )
        })?;
        let recent = recent.iter().map(|row| copy(row, true)).collect();
        Ok(Stats::new(by_script, open, recent))
    }

    async fn health(&self) -> Result<String, StorageError> {
        self.read(|_| "memory".to_owned())
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.state
            .write()
            .take()
            .map(drop)
            .ok_or(StorageError::Closed)
    }
}

fn copy(row: &Execution, without_output: bool) -> Execution {
    if without_output {
        Execution {
            output: String::new(),
            stderr: String::new(),
            parsed_output: None,
            context: None,
            ..row.clone()
        }
    } else {
        row.clone()
    }
}
