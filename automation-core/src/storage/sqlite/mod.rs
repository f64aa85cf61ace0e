//! Executions in one SQLite file: one thread writes and commits what waits together, others read beside it.

mod apply;
mod backup;
mod body;
mod connection;
mod durations;
mod error;
mod lock;
mod place;
mod prune;
mod readers;
mod reads;
mod resolution;
mod round;
mod row;
mod schema;
mod stats;
mod tally;
mod text;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use self::error::{BACKEND, Failure};
use self::lock::ProcessLock;
use self::place::Place;
use self::readers::Readers;
use self::writer::Writer;
use super::{
    Applied, ExecutionQuery, Record, RecordKind, Storage, StorageCapabilities, StorageError, Write,
    WriteError, cursor, held,
};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::request::{Listing, Page, StatsQuery};
use crate::stats::Stats;

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is on the disk.
    #[default]
    Full,
    /// When it is with the operating system: a power cut may lose the latest commits, the end of the process
    /// none. Many times faster where few runs are recorded at a time.
    Normal,
}

impl Durability {
    const fn pragma(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// Keeps everything in one SQLite file, which no other process may use at the same time: opening it ends the leases
/// of executions that an earlier process left open, so that they are recovered at once.
///
/// A script that runs in this process must not open the file with Python's own `sqlite3`: closing it there would drop
/// the locks of this one.
///
/// Calls that are made at the same time are committed together, so that many callers share the cost of
/// bringing a commit to the disk. Beside the file `a.db` there are `a.db-wal`, `a.db-shm` and `a.db.lock`.
///
/// Dropping the storage commits what was handed over, and blocks for as long; [`Storage::close`] waits for the
/// same without blocking.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("automation.db");
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use automation_core::storage::Storage;
/// use automation_core::{SqliteStorage, StatsQuery};
///
/// let storage = SqliteStorage::open(&path).await?;
/// assert_eq!(storage.stats(&StatsQuery::default()).await?.all.total, 0);
/// storage.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SqliteStorage {
    place: Arc<Place>,
    readers: Readers,
    writer: Writer,
}

/// How a [`SqliteStorage`] is opened.
#[derive(Debug, Clone)]
pub struct SqliteBuilder {
    path: PathBuf,
    durability: Durability,
    file_bytes_max: Option<u64>,
}

impl SqliteBuilder {
    /// Says when a commit is acknowledged; by default when it is on the disk.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Limits the file, so that runs are refused before the disk is full; by default it is not limited. Held
    /// to whole pages, and to the size that the file has already; `-wal` comes on top.
    #[must_use]
    pub const fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Opens the file, or creates it readable by its owner only, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] when the file can't be opened, is no database, has tables of another program
    /// or of a later version, or is in use by another process or handle;
    /// [`StorageError::Unavailable`] when the disk is full or fails.
    ///
    /// # Cancel safety
    /// Dropping the future opens the file nevertheless, and closes it at once.
    pub async fn open(self) -> Result<SqliteStorage, StorageError> {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || self.open_blocking()).await;
        let opened = opened.map_err(|error| StorageError::Backend {
            backend: BACKEND,
            source: Box::new(error),
        })?;
        opened.map_err(|failure| place::told(&path, failure))
    }

    fn open_blocking(self) -> Result<SqliteStorage, Failure> {
        let path = connection::place(&self.path)?;
        let lock = ProcessLock::take(&path)?;
        let connection = match self.connect(&path) {
            Ok(connection) => connection,
            Err(failure) => {
                lock.discard();
                return Err(failure);
            }
        };
        let place = Arc::new(Place::new(path));
        Ok(SqliteStorage {
            writer: Writer::start(connection, lock, Arc::clone(&place))?,
            readers: Readers::new(Arc::clone(&place)),
            place,
        })
    }

    fn connect(&self, path: &Path) -> Result<Connection, Failure> {
        connection::create(path)?;
        let connection = connection::open_writer(path, self.durability, self.file_bytes_max)?;
        connection::end_leases(&connection)?;
        Ok(connection)
    }
}

impl SqliteStorage {
    /// Opens or creates a file with the default settings; see [`SqliteBuilder::open`].
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::builder(path).open().await
    }

    /// Begins to open or create a file.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> SqliteBuilder {
        SqliteBuilder {
            path: path.as_ref().to_owned(),
            durability: Durability::default(),
            file_bytes_max: None,
        }
    }

    /// Copies a file as it is at one moment into a new one, and returns its size in bytes. Any process may do so while
    /// another has the file open; within that process, [`Storage::back_up`] does the same. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] when there is no such file, or the new one is there already or can't be written; that
    /// the disk broke. Then no new file is left.
    pub fn back_up_file(from: &Path, to: &Path) -> Result<u64, StorageError> {
        let unreadable =
            |failure| Failure::Unusable(format!("{} can't be read: {failure}", from.display()));
        connection::open_reader(from)
            .map_err(unreadable)
            .and_then(|connection| backup::write(&connection, to))
            .map_err(|failure| place::told(from, failure))
    }

    /// Returns the file, by the one name that it has without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Returns how many calls of `commit` were answered, and how many transactions that took.
    #[must_use]
    pub fn commit_counts(&self) -> (u64, u64) {
        self.writer.counts()
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    fn capabilities(&self) -> StorageCapabilities {
        StorageCapabilities { durable: true }
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        self.writer.commit(writes).await
    }

    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError> {
        let tenant = tenant.clone();
        self.readers
            .read(move |connection| reads::execution(connection, &tenant, id))
            .await?
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
        let query = query.clone();
        let mut rows = self
            .readers
            .read(move |connection| reads::list(connection, &query, after, rows_max + 1))
            .await?;
        let rows_max = held::page_rows(rows.iter(), rows_max);
        let next = cursor::cut(&mut rows, rows_max, |row| {
            cursor::of_place(cursor::place(row))
        });
        Ok(Listing::new(rows, next))
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
        let tenant = tenant.clone();
        let mut rows = self
            .readers
            .read(move |connection| reads::events(connection, &tenant, id, after, rows_max + 1))
            .await?;
        let next = cursor::cut(&mut rows, rows_max, |row| cursor::of_event(id, row.seq));
        Ok(Listing::new(rows, next))
    }

    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        self.readers
            .read(move |connection| reads::record(connection, &tenant, kind, &key))
            .await
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
        let tenant = tenant.clone();
        let read = move |connection: &mut Connection| {
            reads::records(connection, &tenant, kind, after.as_deref(), rows_max + 1)
        };
        let mut rows = self.readers.read(read).await?;
        let next = cursor::cut(&mut rows, rows_max, |row| cursor::of_record(kind, &row.key));
        Ok(Listing::new(rows, next))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        let query = query.clone();
        self.readers
            .read(move |connection| stats::stats(connection, &query))
            .await
    }

    async fn health(&self) -> Result<String, StorageError> {
        self.readers
            .read(|connection| {
                Ok(connection.query_row(
                    "SELECT count(*) FROM automation_schema",
                    [],
                    |_| Ok(()),
                )?)
            })
            .await?;
        Ok(format!("sqlite {}", self.place.path().display()))
    }

    async fn back_up(&self, to: &Path) -> Result<u64, StorageError> {
        let to = to.to_owned();
        self.readers
            .read(move |connection| backup::write(connection, &to))
            .await
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.readers.close().await;
        self.writer.close().await
    }
}
