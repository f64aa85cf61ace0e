//! The tables: made, brought up to date, and refused when they are not ours.

use tokio_postgres::Client;

use super::error::Failure;

/// The tables as one file, which people may run themselves.
pub(super) const SCHEMA: &str = include_str!("automation-schema.sql");

/// Held while tables are brought up to date, so that servers that start together do it once.
const LOCK_SQL: &str = "SELECT pg_advisory_xact_lock(hashtext('automation_schema'))";

/// The steps to each version, in order.
fn steps() -> impl Iterator<Item = (i32, &'static str)> {
    let (body, _) = SCHEMA.split_once("\n-- end\n").unwrap_or((SCHEMA, ""));
    body.split("\n-- version ").skip(1).map(|step| {
        let (version, sql) = step.split_once('\n').unwrap_or((step, ""));
        let version = version.parse().expect("each step is headed by its number");
        (version, sql)
    })
}

/// Brings the tables to the present version, in one transaction. Changes nothing where they have it.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Failure> {
    let found = version(client).await?;
    if steps().last().is_none_or(|(newest, _)| found > newest) {
        return Err(Failure::Unusable(format!(
            "its tables have version {found}, which a later version of this program made"
        )));
    }
    if steps().all(|(version, _)| version <= found) {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    // Its notices tell what was there already.
    transaction
        .batch_execute("SET LOCAL client_min_messages = warning")
        .await?;
    transaction.batch_execute(LOCK_SQL).await?;
    for (_, step) in steps().filter(|(version, _)| *version > found) {
        let done = transaction.batch_execute(step).await;
        done.map_err(|error| not_migrated(error.into()))?;
    }
    Ok(transaction.commit().await?)
}

fn not_migrated(failure: Failure) -> Failure {
    if failure.is_forbidden() {
        return Failure::Unusable(format!(
            "its tables are not up to date, and this user may not change them ({failure}): \
             let their owner run automation-schema.sql"
        ));
    }
    if failure.is_of_what_was_asked() {
        return Failure::Unusable(format!("its tables can't be brought up to date: {failure}"));
    }
    failure
}

/// Returns the version of the tables that are there, 0 when there are none or those of the original program. They
/// are read in the server's role, since Row Level Security holds for their owner too.
async fn version(client: &mut Client) -> Result<i32, Failure> {
    let transaction = client.transaction().await?;
    let read = async {
        transaction
            .batch_execute("SET LOCAL ROLE automation_writer")
            .await?;
        let sql = "SELECT coalesce(max(version), 0) FROM automation_schema";
        transaction.query_one(sql, &[]).await?.try_get(0)
    };
    match read.await.map_err(Failure::from) {
        Err(failure) if failure.is_lost() => Err(failure),
        read => {
            transaction.rollback().await?;
            Ok(read.unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SCHEMA, steps};

    #[test]
    fn the_file_is_its_steps_in_order() {
        let versions: Vec<_> = steps().map(|(version, _)| version).collect();
        let count = i32::try_from(versions.len()).unwrap();
        assert!(
            count >= 1 && versions.iter().copied().eq(1..=count),
            "{versions:?}"
        );
        for (version, sql) in steps() {
            let noted = format!("SELECT {version} WHERE NOT EXISTS");
            assert!(sql.contains(&noted), "version {version} is not noted");
            assert!(!sql.contains("\nCOMMIT;") && !sql.contains("\nBEGIN;"));
        }
        assert!(SCHEMA.ends_with("\n-- end\nCOMMIT;\n"));
    }

    /// Users edit `user_metadata` themselves, and `SET` outlives a transaction.
    #[test]
    fn traps_of_row_level_security_are_not_in_the_file() {
        let code = SCHEMA
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        for line in code {
            for trap in [
                "user_metadata",
                "auth.uid",
                "SECURITY DEFINER",
                "TRUNCATE",
                "SET SESSION",
            ] {
                assert!(!line.contains(trap), "{trap}: {line}");
            }
        }
    }
}
