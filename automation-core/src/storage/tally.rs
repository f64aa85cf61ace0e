//! What the ends of one transaction add to the statistics: kept in memory while its calls are applied, written once
//! at its end. Knows no backend.

use std::collections::BTreeMap;

use chrono::NaiveDate;

use crate::execution::{Completion, Execution, TenantId, Trigger};
use crate::stats::{Counted, ScriptStats};
use crate::storage::held;

/// One counted execution that ended.
#[derive(Debug)]
pub(super) struct Ended {
    day: Day,
    counted: Counted,
}

/// Whose sums, of which script, on which day.
pub(super) type Day = (TenantId, String, NaiveDate);

impl Ended {
    /// Returns what an end adds; `None` when it is not counted.
    pub(super) fn new(
        tenant: &TenantId,
        script_name: String,
        trigger: Trigger,
        end: &Completion,
    ) -> Option<Self> {
        trigger.is_counted().then(|| Self {
            day: (
                tenant.clone(),
                script_name,
                held::time(end.completed_at).date_naive(),
            ),
            counted: Counted {
                status: end.status,
                queue_us: end.queue_us.map(held::number),
                duration_us: end.duration_us.map(held::number),
                usage: held::usage(end.usage),
                output_bytes: held::number(end.output_bytes),
            },
        })
    }
}

/// The sums of a transaction, in one order for all, so that two servers never wait for each other.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Day, ScriptStats>);

impl Tally {
    /// Adds what a call ended.
    pub(super) fn add(&mut self, ended: Ended) {
        let sums = self.0.entry(ended.day).or_default();
        sums.count(&ended.counted);
    }

    /// Adds an execution that ended and is counted.
    pub(super) fn add_ended(&mut self, row: &Execution) {
        if let Some(completed_at) = row.completed_at
            && row.trigger.is_counted()
        {
            let day = held::time(completed_at).date_naive();
            let day = (row.tenant_id.clone(), row.script_name.clone(), day);
            self.0.entry(day).or_default().add(row);
        }
    }

    /// Returns the sums of each day.
    pub(super) fn days(&self) -> impl Iterator<Item = (&Day, &ScriptStats)> {
        self.0.iter()
    }
}
