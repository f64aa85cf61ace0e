//! Statements that are sent together and answered in one journey; and rows as columns, so that one statement writes
//! many of them.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join_all;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::error::Failure;

/// How long the server may take to answer what was sent together; beyond it, the connection counts as lost.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A value of a statement.
pub(super) type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Statements that wait to be sent together, on one connection.
pub(super) struct Pipeline<'a> {
    client: &'a ClientWrapper,
    steps: Vec<(Statement, Vec<Param<'a>>)>,
}

/// Which of the statements failed, and how.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    /// The place of the statement among those that were sent.
    pub(super) step: usize,
    pub(super) failure: Failure,
}

impl<'a> Pipeline<'a> {
    /// Begins an empty one.
    pub(super) const fn new(client: &'a ClientWrapper) -> Self {
        Self {
            client,
            steps: Vec::new(),
        }
    }

    /// Returns how many statements wait.
    pub(super) const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Adds a statement, and returns its place. The first time that a connection sees it, it is prepared at once.
    pub(super) async fn add(
        &mut self,
        sql: &str,
        params: Vec<Param<'a>>,
    ) -> Result<usize, Failure> {
        let statement = self.client.prepare_cached(sql).await?;
        self.steps.push((statement, params));
        Ok(self.steps.len() - 1)
    }

    /// Adds a statement for many rows: `{rows}` in it stands for them, under the names of their columns.
    pub(super) async fn add_rows(
        &mut self,
        sql: &str,
        columns: Columns<'a>,
    ) -> Result<usize, Failure> {
        let sql = sql.replace("{rows}", &columns.unnest());
        self.add(&sql, columns.values).await
    }

    /// Sends the statements, and returns the rows of each. The first that fails ends it; what was sent behind it is
    /// answered by the server all the same.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll leaves all statements sent.
    pub(super) async fn send(&mut self) -> Result<Vec<Vec<Row>>, Failed> {
        let client = self.client;
        let sent = self
            .steps
            .iter()
            .enumerate()
            .map(|(step, (sql, params))| async move {
                let params: Vec<_> = params
                    .iter()
                    .map(|param| param.as_ref() as &(dyn ToSql + Sync))
                    .collect();
                client.query(sql, &params).await.map_err(|error| Failed {
                    step,
                    failure: error.into(),
                })
            });
        let answered = tokio::time::timeout(ANSWER_MAX, try_join_all(sent)).await;
        self.steps.clear();
        answered.unwrap_or_else(|_| {
            Err(Failed {
                step: 0,
                failure: Failure::Away("the server does not answer".to_owned()),
            })
        })
    }
}

/// Rows as columns.
pub(super) struct Columns<'a> {
    names: Vec<(&'static str, &'static str)>,
    values: Vec<Param<'a>>,
}

impl<'a> Columns<'a> {
    /// Begins without a column.
    pub(super) const fn new() -> Self {
        Self {
            names: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Adds a column of an SQL type; all have one value a row, in one order.
    #[must_use]
    pub(super) fn with<T: ToSql + Sync + Send + 'a>(
        mut self,
        name: &'static str,
        sql_type: &'static str,
        values: impl Iterator<Item = T>,
    ) -> Self {
        self.names.push((name, sql_type));
        self.values.push(Box::new(values.collect::<Vec<T>>()));
        self
    }

    /// Returns the names, separated by commas.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.names.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    fn unnest(&self) -> String {
        let places: Vec<_> = (1..)
            .zip(&self.names)
            .map(|(n, (_, sql_type))| format!("${n}::{sql_type}[]"))
            .collect();
        format!("unnest({}) AS given ({})", places.join(", "), self.names())
    }
}
