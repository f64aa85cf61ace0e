//! Executions in a PostgreSQL database, Supabase's for instance: one task writes and commits what waits together,
//! reads for a tenant are made as that tenant, under Row Level Security.

mod apply;
mod changes;
mod claims;
mod error;
mod lookup;
mod pipeline;
mod prune;
mod reads;
mod resolution;
mod round;
mod row;
mod schema;
mod session;
mod stats;
mod tls;
mod url;
mod value;
mod writer;

use std::fmt;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use tokio_postgres::Row;

use self::error::Failure;
use self::reads::{As, Query};
use self::round::Rounds;
use self::session::Purpose;
use self::url::Place;
use self::writer::Writer;
use super::{
    Applied, ExecutionQuery, Record, RecordKind, Storage, StorageCapabilities, StorageError, Write,
    WriteError, cursor, held,
};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::request::{Listing, Page, StatsQuery};
use crate::stats::Stats;

/// Connections that read, unless told otherwise.
const READERS: usize = 8;

/// Keeps everything in a PostgreSQL database, 15 or later. Several servers may share one.
///
/// Calls that are made at the same time are committed together, so that many callers share the cost of bringing a
/// commit to the disk. Where a connection is lost during a commit, the database says whether it was applied, and it is
/// tried again if not. While the database is away, calls answer [`StorageError::Unavailable`]; connections come back
/// by themselves.
///
/// Row Level Security holds for everything: the server writes as `automation_writer`, and reads for a tenant as
/// `authenticated` with the tenant's claims. Views on the tables have to be `security_invoker`.
///
/// The text character U+0000, which PostgreSQL has not, is kept as U+FFFD.
///
/// Dropping the storage lets what was handed over be committed as long as the runtime lives on which it was opened;
/// [`Storage::close`] waits for it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use automation_core::storage::Storage;
/// use automation_core::{PostgresStorage, StatsQuery};
///
/// let storage = PostgresStorage::connect("postgres://automation@localhost/helpdesk").await?;
/// println!("{}", storage.stats(&StatsQuery::default()).await?.all.total);
/// storage.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct PostgresStorage {
    shown: String,
    readers: Pool,
    writer: Writer,
}

/// How a [`PostgresStorage`] is connected.
#[derive(Clone)]
pub struct PostgresBuilder {
    url: String,
    readers: usize,
    superuser_allowed: bool,
    migrates: bool,
}

impl PostgresBuilder {
    /// Sets how many connections read at a time, from 1; 8 by default. One more writes.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Also works as a superuser, or in a role with BYPASSRLS, whom Row Level Security does not bind: the tenants of
    /// one database are then kept apart by this program alone. For databases of one's own machine.
    #[must_use]
    pub const fn allow_superuser(mut self) -> Self {
        self.superuser_allowed = true;
        self
    }

    /// Leaves the tables as they are; they must be up to date.
    #[must_use]
    pub const fn without_migration(mut self) -> Self {
        self.migrates = false;
        self
    }

    /// Connects, and brings the tables up to date.
    ///
    /// # Errors
    /// [`StorageError::Unusable`] when the URL is wrong, the user may not do what is needed or may do too much (a
    /// superuser, a writer with BYPASSRLS), or the tables are those of a later version or not secured;
    /// [`StorageError::Unavailable`] when the server can't be reached.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tables up to date or as they were.
    pub async fn connect(self) -> Result<PostgresStorage, StorageError> {
        Ok(self.connected().await?)
    }

    async fn connected(self) -> Result<PostgresStorage, Failure> {
        let mut place = Place::parse(&self.url)?;
        place.superuser_allowed |= self.superuser_allowed;
        if !place.is_local() && place.trust.is_none() {
            tracing::warn!(
                database = place.shown(),
                "what is sent to the database is not encrypted"
            );
        }
        let mut client = session::connect(&place).await?;
        session::check_superuser(&client, place.superuser_allowed).await?;
        if self.migrates {
            schema::migrate(&mut client).await?;
        }
        drop(client);
        let writers = session::pool(&place, Purpose::Write, 1)?;
        let readers = session::pool(&place, Purpose::Read, self.readers)?;
        let mut rounds = Rounds::new(writers);
        rounds.begin().await?;
        Ok(PostgresStorage {
            shown: place.shown(),
            readers,
            writer: Writer::start(rounds),
        })
    }
}

impl fmt::Debug for PostgresBuilder {
    // The URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder").finish_non_exhaustive()
    }
}

impl fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStorage")
            .field("database", &self.shown)
            .finish_non_exhaustive()
    }
}

impl PostgresStorage {
    /// Connects with the default settings; see [`PostgresBuilder::connect`].
    ///
    /// # Errors
    /// As [`PostgresBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, StorageError> {
        Self::builder(url).connect().await
    }

    /// Begins to connect to the database of a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS`. Of the
    /// options, `sslmode` is `disable`, `prefer` (the default), `require` or `verify-full`, the latter with
    /// `sslrootcert`, a file of certificate authorities, or those of the system; `superuser=allow` is
    /// [`allow_superuser`](PostgresBuilder::allow_superuser).
    #[must_use]
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder {
            url: url.into(),
            readers: READERS,
            superuser_allowed: false,
            migrates: true,
        }
    }

    /// Checks the URL of a database, without connecting; returns the place that it names, without credentials.
    ///
    /// # Errors
    /// [`StorageError::Unusable`], with what is wrong and without the password.
    pub fn check_url(url: &str) -> Result<String, StorageError> {
        Ok(Place::parse(url)?.shown())
    }

    /// Returns the tables as SQL, which can be run by hand: again, and over those of every earlier version.
    #[must_use]
    pub const fn schema() -> &'static str {
        schema::SCHEMA
    }

    /// Returns how many calls of `commit` were answered, and how many rounds that took.
    #[must_use]
    pub fn commit_counts(&self) -> (u64, u64) {
        self.writer.counts()
    }

    /// Asks one question.
    async fn ask(
        &self,
        who: As<'_>,
        query: impl Fn() -> Query + Send + Sync,
    ) -> Result<Vec<Row>, Failure> {
        let mut answers = reads::ask(&self.readers, who, || vec![query()]).await?;
        Ok(answers.pop().unwrap_or_default())
    }
}

#[async_trait]
impl Storage for PostgresStorage {
    fn capabilities(&self) -> StorageCapabilities {
        StorageCapabilities { durable: true }
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        self.writer.commit(writes).await
    }

    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError> {
        let rows = self
            .ask(As::Tenant(tenant), || reads::execution(tenant, id))
            .await?;
        let mut found = reads::executions(&rows)?;
        found.pop().ok_or_else(|| StorageError::NotFound {
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
        let asked = || reads::list(query, after, rows_max + 1);
        let who = query.tenant_id.as_ref().map_or(As::Server, As::Tenant);
        let rows = self.ask(who, asked).await?;
        let mut rows = reads::executions(&rows)?;
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
        let asked = || reads::events(tenant, id, after, rows_max + 1);
        let rows = self.ask(As::Tenant(tenant), asked).await?;
        let events = rows.iter().map(|row| reads::event(row, tenant, id));
        let mut events = events.collect::<Result<Vec<_>, _>>()?;
        let next = cursor::cut(&mut events, rows_max, |row| cursor::of_event(id, row.seq));
        Ok(Listing::new(events, next))
    }

    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError> {
        let rows = self
            .ask(As::Server, || reads::record(tenant, kind, key))
            .await?;
        let record = rows
            .first()
            .map(|row| reads::read_record(row, tenant, kind));
        Ok(record.transpose()?)
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
        let asked = || reads::records(tenant, kind, after.as_deref(), rows_max + 1);
        let rows = self.ask(As::Server, asked).await?;
        let records = rows.iter().map(|row| reads::read_record(row, tenant, kind));
        let mut records = records.collect::<Result<Vec<_>, _>>()?;
        let next = cursor::cut(&mut records, rows_max, |row| {
            cursor::of_record(kind, &row.key)
        });
        Ok(Listing::new(records, next))
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        let who = As::Tenant(&query.tenant_id);
        let answers = reads::ask(&self.readers, who, || stats::queries(query)).await?;
        Ok(stats::read(&answers)?)
    }

    async fn health(&self) -> Result<String, StorageError> {
        let asked = || ("SELECT count(*) FROM automation_schema".to_owned(), vec![]);
        self.ask(As::Server, asked).await?;
        Ok(format!("postgres {}", self.shown))
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.readers.close();
        self.writer.close().await
    }
}
