//! Where executions are recorded: the trait, its writes and its reads.

mod cursor;
mod held;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod prune;
mod query;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tally;
mod write;

use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;
use serde::Serialize;
use thiserror::Error as ThisError;

pub use self::memory::MemoryStorage;
#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresBuilder, PostgresStorage};
pub use self::prune::{Prune, pruned_totals};
pub use self::query::{ExecutionQuery, Record, RecordKind};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{Durability, SqliteBuilder, SqliteStorage};
pub use self::write::{Applied, Change, Claim, Transition, Write, WriteError};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::request::{Listing, Page, StatsQuery};
use crate::stats::Stats;

/// Records executions.
///
/// # Contract
/// - `commit` returns when its writes are as durable as the backend promises, and readers see them from then on.
/// - The writes of one call are atomic: one that fails leaves none applied, and the others answer
///   [`WriteError::Aborted`]. A write sees what those before it in its call did. Different calls may share a
///   transaction and never harm each other.
/// - An execution's id is taken once among all tenants; an idempotency key and a record's key once a tenant.
/// - Statistics, and the resolution of a completed ticket run, follow from the transition inside the backend,
///   in the same transaction. They are the pruned totals and a recount of the executions that are there.
/// - Executions of one tenant are invisible to every read of another.
/// - Lists are newest first: by `started_at`, then by id. A page has 1 to
///   [`PAGE_ROWS_MAX`](crate::limits::PAGE_ROWS_MAX) rows, whatever was asked.
/// - Times are kept to the microsecond, cut and not rounded, within the years 0 to 9999; numbers up to 2^53 - 1; the
///   character U+0000 may come back as U+FFFD; all else comes back as it was given.
///
/// Each sentence is a promise of `conformance::storage` (feature `conformance`).
///
/// # Cancel safety
/// Dropping the future of `commit` leaves it open whether its writes were applied, never applies half of them.
///
/// # Clone
/// Backends are shared behind an `Arc`; two handles on the same backend see the same data.
#[async_trait]
pub trait Storage: Debug + Send + Sync + 'static {
    /// Returns what this backend can do.
    fn capabilities(&self) -> StorageCapabilities;

    /// Applies conditional writes, all or none; answers in their order.
    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>>;

    /// Returns an execution.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], or that the backend broke.
    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError>;

    /// Returns a page of the executions that fit `query`, newest first.
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`], or that the backend broke.
    async fn list(
        &self,
        query: &ExecutionQuery,
        page: &Page,
    ) -> Result<Listing<Execution>, StorageError>;

    /// Returns a page of an execution's events, oldest first; empty when there are none.
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`], or that the backend broke.
    async fn events(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        page: &Page,
    ) -> Result<Listing<Event>, StorageError>;

    /// Returns a keyed record, if there is one.
    ///
    /// # Errors
    /// That the backend broke.
    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError>;

    /// Returns a page of the keyed records of a kind, by their keys as byte strings sort; empty when there are
    /// none.
    ///
    /// # Errors
    /// [`StorageError::InvalidCursor`], or that the backend broke.
    async fn records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        page: &Page,
    ) -> Result<Listing<Record>, StorageError>;

    /// Returns the statistics (promise P8).
    ///
    /// # Errors
    /// That the backend broke.
    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError>;

    /// Returns whether the backend answers, and from where it does, without credentials.
    ///
    /// # Errors
    /// That it does not.
    async fn health(&self) -> Result<String, StorageError>;

    /// Copies everything as it is at one moment into a new file, beside writers and readers, and returns its size in
    /// bytes.
    ///
    /// # Errors
    /// [`StorageError::Unsupported`] where the backend has its own means (`pg_dump`) or nothing to copy;
    /// [`StorageError::Unusable`] when the file is there already or its folder can't be written; that the backend or
    /// the disk broke, and then no file is left.
    async fn back_up(&self, _to: &Path) -> Result<u64, StorageError> {
        Err(StorageError::Unsupported {
            what: "a back-up of this storage into a file",
        })
    }

    /// Finishes accepted writes and releases the backend. Calls after it answer [`StorageError::Closed`].
    ///
    /// # Errors
    /// That the backend broke; it is released all the same.
    async fn close(&self) -> Result<(), StorageError>;
}

/// What a backend can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StorageCapabilities {
    /// Committed writes survive the end of the process.
    pub durable: bool,
}

/// That a backend could not do its part.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum StorageError {
    /// No such row.
    #[error("{what} not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The cursor is not one of this list.
    #[error("invalid cursor {cursor:?}")]
    InvalidCursor {
        /// What was given.
        cursor: String,
    },
    /// The backend can't be reached or is full; the same call may succeed later.
    #[error("storage {backend} is unavailable: {detail}")]
    Unavailable {
        /// The backend's name.
        backend: &'static str,
        /// Why.
        detail: String,
    },
    /// The backend can't be used as it is: a broken file, a foreign schema, a second process.
    #[error("storage {backend} can't be used: {detail}")]
    Unusable {
        /// The backend's name.
        backend: &'static str,
        /// Why, and what is expected.
        detail: String,
    },
    /// The backend can't do this at all.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// The backend broke.
    #[error("storage {backend} failed")]
    Backend {
        /// The backend's name.
        backend: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The backend was closed.
    #[error("storage is closed")]
    Closed,
}

impl StorageError {
    /// Returns whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
