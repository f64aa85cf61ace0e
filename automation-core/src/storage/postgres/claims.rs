//! The writes about rows that only the database knows: claims and renewals of leases.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::error::Failure;
use super::pipeline::{Param, Pipeline};
use super::row;
use super::value::text;
use crate::execution::InstanceId;
use crate::storage::{Applied, Claim, held};

/// Takes what is due. A row that another server takes at the same time is skipped, not waited for.
fn claim_sql() -> String {
    let columns = row::columns(false);
    format!(
        "WITH due AS (
             SELECT id FROM automation_logs
             WHERE tenant_id = $1 AND status = 'starting' AND run_at IS NOT NULL AND run_at <= $2
                 AND (lease_until IS NULL OR lease_until <= $2)
             ORDER BY priority DESC, run_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
         ), taken AS (
             UPDATE automation_logs AS log SET claimed_by = $4, lease_until = $5, epoch = log.epoch + 1
             FROM due WHERE log.id = due.id RETURNING log.*
         )
         SELECT {columns} FROM taken ORDER BY priority DESC, run_at, id"
    )
}

const RENEW_SQL: &str = "\
WITH held AS (
    SELECT id FROM automation_logs
    WHERE status IN ('starting', 'running') AND claimed_by = $1 AND lease_until < $2
    ORDER BY id FOR NO KEY UPDATE
), renewed AS (
    UPDATE automation_logs AS log SET lease_until = $2 FROM held WHERE log.id = held.id RETURNING 1
)
SELECT count(*) AS renewed FROM renewed";

/// Adds a claim to a pipeline; returns the place of its answer.
pub(super) async fn claim(pipeline: &mut Pipeline<'_>, claim: &Claim) -> Result<usize, Failure> {
    let rows_max = i64::try_from(claim.rows_max).unwrap_or(i64::MAX);
    let params: Vec<Param<'_>> = vec![
        Box::new(text(claim.tenant_id.as_str()).into_owned()),
        Box::new(held::time(claim.now)),
        Box::new(rows_max),
        Box::new(text(claim.instance.as_str()).into_owned()),
        Box::new(held::time(claim.lease_until)),
    ];
    pipeline.add(&claim_sql(), params).await
}

/// Reads what a claim took.
pub(super) fn claimed(rows: &[Row]) -> Result<Applied, Failure> {
    Ok(Applied::Claimed(row::read_all(rows)?))
}

/// Adds a renewal to a pipeline; returns the place of its answer.
pub(super) async fn renew(
    pipeline: &mut Pipeline<'_>,
    instance: &InstanceId,
    lease_until: DateTime<Utc>,
) -> Result<usize, Failure> {
    let instance = text(instance.as_str()).into_owned();
    let lease_until = held::time(lease_until);
    pipeline
        .add(RENEW_SQL, vec![Box::new(instance), Box::new(lease_until)])
        .await
}

/// Reads how many leases were renewed.
pub(super) fn renewed(rows: &[Row]) -> Result<Applied, Failure> {
    let count: i64 = match rows {
        [row] => row::get(row, "renewed")?,
        _ => 0,
    };
    Ok(Applied::Renewed(usize::try_from(count).unwrap_or(0)))
}
