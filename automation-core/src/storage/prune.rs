//! Pruning: which ended executions go, and the totals that keep the statistics exact without them (promise P8).
//! Pure; knows no backend.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde_json::Value;

use super::cursor::{self, Place};
use super::tally::{Day, Tally};
use super::{Record, RecordKind, StorageError, held};
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::request::Cursor;
use crate::stats::ScriptStats;
use crate::status::Status;

/// Deletes executions that ended before a day, with their events and the keyed records that belong to them, and adds
/// what the statistics counted of them to the pruned totals.
///
/// Looks at up to `rows_max` ended executions, in the order of their tenants and times, and deletes those that
/// fit; so a call is short however many executions are kept. One that an open execution names as its root or parent
/// is kept until that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    /// Whose executions; `None` is every tenant's and is for the engine alone.
    pub tenant_id: Option<TenantId>,
    /// The first day (UTC) that is kept: what ended earlier goes.
    pub before: NaiveDate,
    /// With one of these statuses; with any terminal one when empty. Open executions are never deleted.
    pub statuses: Vec<Status>,
    /// Ended executions to look at, at most; held to 1 and [`PRUNE_ROWS_MAX`](crate::limits::PRUNE_ROWS_MAX).
    pub rows_max: usize,
    /// Where the call before this one ended.
    pub after: Option<Cursor>,
}

impl Prune {
    /// Returns where a call begins; `None` begins with the first tenant.
    pub(super) fn begin(&self) -> Result<Option<Stretch>, StorageError> {
        let Some(after) = &self.after else {
            let first = |tenant: &TenantId| Stretch::of(tenant.clone());
            return Ok(self.tenant_id.as_ref().map(first));
        };
        let stretch = cursor::to_stretch(after)?;
        match &self.tenant_id {
            Some(tenant) if *tenant != stretch.tenant => Err(cursor::invalid(after)),
            _ => Ok(Some(stretch)),
        }
    }

    /// Returns the first instant that is kept.
    pub(super) fn until(&self) -> DateTime<Utc> {
        held::time(self.before.and_time(NaiveTime::MIN).and_utc())
    }

    /// Returns how many rows to look at.
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max.clamp(1, crate::limits::PRUNE_ROWS_MAX)
    }

    /// Returns whether an execution fits, whatever other executions say of it.
    pub(super) fn takes(&self, row: &Execution) -> bool {
        row.status.is_terminal()
            && (self.statuses.is_empty() || self.statuses.contains(&row.status))
            && row.completed_at.is_some_and(|at| at < self.until())
    }

    /// Returns where the next call begins, if this one did not reach the end of the tenant's executions.
    pub(super) fn goes_on(&self, stretch: &Stretch, looked_at: &[Place]) -> Option<Cursor> {
        let last = looked_at
            .last()
            .filter(|_| looked_at.len() >= self.rows_max());
        last.map(|last| {
            cursor::of_stretch(&Stretch {
                tenant: stretch.tenant.clone(),
                after: Some(*last),
            })
        })
    }
}

/// Where a call begins: with a tenant's oldest execution, or behind one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) tenant: TenantId,
    pub(super) after: Option<Place>,
}

impl Stretch {
    /// Begins with a tenant's oldest execution.
    pub(super) const fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            after: None,
        }
    }

    /// Returns the cursor that begins with a tenant's oldest execution.
    pub(super) fn cursor_of(tenant: TenantId) -> Cursor {
        cursor::of_stretch(&Self::of(tenant))
    }
}

/// Returns what the statistics counted of executions.
pub(super) fn counted<'a>(rows: impl IntoIterator<Item = &'a Execution>) -> Tally {
    let mut tally = Tally::default();
    for row in rows {
        tally.add_ended(row);
    }
    tally
}

/// Returns the key of the record that has the pruned totals of a script's day.
pub(super) fn key((_, script, day): &Day) -> String {
    format!("{day} {script}")
}

/// Adds sums to the totals that a record has; `None` where there is no record yet.
///
/// # Errors
/// A sentence: the record is not ours.
pub(super) fn add(totals: Option<&Value>, sums: &ScriptStats) -> Result<Value, String> {
    let mut all = totals.map_or_else(|| Ok(ScriptStats::default()), read)?;
    all.merge(sums);
    let all = ScriptStats {
        total: held::number(all.total),
        successful: held::number(all.successful),
        failed: held::number(all.failed),
        cancelled: held::number(all.cancelled),
        queue_us: held::number(all.queue_us),
        duration_us: held::number(all.duration_us),
        cpu_us: held::number(all.cpu_us),
        memory_peak_bytes: held::number(all.memory_peak_bytes),
        children: held::number(all.children),
        threads: held::number(all.threads),
        output_bytes: held::number(all.output_bytes),
        durations: all.durations,
    };
    serde_json::to_value(all).map_err(|error| format!("pruned totals can't be written: {error}"))
}

fn read(value: &Value) -> Result<ScriptStats, String> {
    serde::Deserialize::deserialize(value)
        .map_err(|error| format!("a record of pruned totals can't be read: {error}"))
}

/// Returns the sums of each script, from records of [`RecordKind::Pruned`]: what the statistics counted of executions
/// that are no longer there. Together with a recount of those that are, it equals the statistics (promise P8).
///
/// # Errors
/// [`StorageError::Unusable`]: a record is not ours.
pub fn pruned_totals<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<BTreeMap<String, ScriptStats>, StorageError> {
    let mut by_script = BTreeMap::<String, ScriptStats>::new();
    for record in records {
        let unusable = |detail| StorageError::Unusable {
            backend: "any",
            detail,
        };
        let foreign = || unusable(format!("record {:?} is of no script's day", record.key));
        let (_, script) = record.key.split_once(' ').ok_or_else(foreign)?;
        let sums = read(&record.value).map_err(unusable)?;
        by_script.entry(script.to_owned()).or_default().merge(&sums);
    }
    Ok(by_script)
}

/// Returns the keys between which those of the records lie that belong to an execution: all that begin with its id.
pub(super) fn own_keys(id: ExecutionId) -> (String, String) {
    let first = id.to_string();
    // The last character is a digit or one of a to f, so that the next one is ASCII too.
    let mut behind = first.clone().into_bytes();
    if let Some(last) = behind.last_mut() {
        *last += 1;
    }
    (first, behind.into_iter().map(char::from).collect())
}

/// Every kind of record; which of them belong to an execution is known by the key.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    RecordKind::ALL.iter().map(|kind| kind.as_str())
}
