//! The tables: made, brought up to date, and refused when they are not ours.

use rusqlite::{Connection, OptionalExtension};

use super::error::Failure;

/// The versions and the steps that lead to them, in order. Never changed, only added to.
const STEPS: &[(u32, &str)] = &[
    (1, include_str!("migrations/0001_first.sql")),
    (2, include_str!("migrations/0002_usage_and_isolation.sql")),
];

/// Brings the tables to the present version, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if STEPS.last().is_none_or(|(newest, _)| found > *newest) {
        return Err(Failure::Unusable(format!(
            "its tables have version {found}, which a later version of this program made"
        )));
    }
    for (version, step) in STEPS.iter().filter(|(version, _)| *version > found) {
        transaction.execute_batch(step)?;
        transaction.execute("INSERT INTO automation_schema VALUES (?1)", [version])?;
    }
    Ok(transaction.commit()?)
}

/// Returns the version of the tables that are there, 0 when there are none.
fn version(connection: &Connection) -> Result<u32, Failure> {
    if !has_table(connection, "automation_schema")? && has_table(connection, "automation_logs")? {
        return Err(Failure::Unusable(
            "it has a table automation_logs that is not of this program".to_owned(),
        ));
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS automation_schema (version INTEGER PRIMARY KEY)",
    )?;
    let sql = "SELECT max(version) FROM automation_schema";
    let version: Option<u32> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(version.unwrap_or(0))
}

/// Returns whether a table is there.
pub(super) fn has_table(connection: &Connection, name: &str) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let found = connection.query_row(sql, [name], |_| Ok(())).optional()?;
    Ok(found.is_some())
}
