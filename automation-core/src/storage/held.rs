//! What every backend keeps alike, so that they answer alike: times to the microsecond within the years 0 to
//! 9999, numbers to 2^53 - 1. Pure; knows no backend.

use chrono::{DateTime, Utc};

use crate::execution::{Completion, Event, Execution, ResourceUsage};
use crate::limits;
use crate::request::Page;
use crate::storage::ExecutionQuery;

/// 0000-01-01T00:00:00Z in microseconds.
const TIME_MIN_US: i64 = -62_167_219_200_000_000;
/// 9999-12-31T23:59:59.999999Z in microseconds.
const TIME_MAX_US: i64 = 253_402_300_799_999_999;

/// Returns the time as it is kept.
pub(super) fn time(at: DateTime<Utc>) -> DateTime<Utc> {
    let us = at.timestamp_micros().clamp(TIME_MIN_US, TIME_MAX_US);
    DateTime::from_timestamp_micros(us).expect("the years 0 to 9999 can be represented")
}

/// Returns the number as it is kept.
pub(super) fn number(n: u64) -> u64 {
    n.min(limits::JSON_INTEGER_MAX.unsigned_abs())
}

/// Returns what a run used as it is kept.
pub(super) fn usage(usage: ResourceUsage) -> ResourceUsage {
    ResourceUsage {
        cpu_us: usage.cpu_us.map(number),
        memory_peak_bytes: usage.memory_peak_bytes.map(number),
        ..usage
    }
}

/// Counts the output of the rows of one page.
#[derive(Debug, Default)]
pub(super) struct PageBytes {
    rows: usize,
    bytes: usize,
}

impl PageBytes {
    /// Returns whether the next row still belongs to the page: the first one always does.
    pub(super) fn takes(&mut self, row: &Execution) -> bool {
        self.rows += 1;
        self.bytes += row.output.len() + row.stderr.len();
        self.rows == 1 || self.bytes <= limits::PAGE_BYTES
    }
}

/// Returns how many of the rows that were read make a page.
pub(super) fn page_rows<'a>(rows: impl Iterator<Item = &'a Execution>, rows_max: usize) -> usize {
    let mut page = PageBytes::default();
    rows.take(rows_max)
        .take_while(|row| page.takes(row))
        .count()
}

/// Brings an execution into the form in which it is kept.
pub(super) fn execution(execution: &mut Execution) {
    execution.started_at = time(execution.started_at);
    for at in [
        &mut execution.completed_at,
        &mut execution.run_at,
        &mut execution.lease_until,
    ] {
        *at = at.map(time);
    }
    for n in [&mut execution.queue_us, &mut execution.duration_us] {
        *n = n.map(number);
    }
    execution.usage = usage(execution.usage);
    execution.output_bytes = number(execution.output_bytes);
}

/// Brings the end of a run into the form in which it is kept.
pub(super) fn completion(completion: &mut Completion) {
    completion.completed_at = time(completion.completed_at);
    for n in [&mut completion.queue_us, &mut completion.duration_us] {
        *n = n.map(number);
    }
    completion.usage = usage(completion.usage);
    completion.output_bytes = number(completion.output_bytes);
}

/// Brings an event into the form in which it is kept.
pub(super) fn event(event: &mut Event) {
    event.at = time(event.at);
}

/// Brings the times of a query into the form in which rows are kept.
pub(super) fn query(query: &ExecutionQuery) -> ExecutionQuery {
    ExecutionQuery {
        since: query.since.map(time),
        until: query.until.map(time),
        lease_before: query.lease_before.map(time),
        ..query.clone()
    }
}

/// Returns how many rows a page may have.
pub(super) fn rows_max(page: &Page) -> usize {
    page.rows_max.clamp(1, limits::PAGE_ROWS_MAX)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, Utc};
    use proptest::prelude::*;

    use super::{TIME_MAX_US, TIME_MIN_US, time};

    #[test]
    fn the_bounds_are_the_years_0_and_9999() {
        let year = |us| DateTime::from_timestamp_micros(us).unwrap().year();
        assert_eq!((year(TIME_MIN_US), year(TIME_MIN_US - 1)), (0, -1));
        assert_eq!((year(TIME_MAX_US), year(TIME_MAX_US + 1)), (9999, 10_000));
        assert_eq!(time(DateTime::<Utc>::MAX_UTC).year(), 9999);
        assert_eq!(time(DateTime::<Utc>::MIN_UTC).year(), 0);
    }

    proptest! {
        #[test]
        fn a_kept_time_is_less_than_a_microsecond_earlier(ns in -4_000_000_000_000_000_000_i64..) {
            let at = DateTime::from_timestamp_nanos(ns);
            let lost = (at - time(at)).num_nanoseconds().unwrap();
            prop_assert!((0..1000).contains(&lost), "{at} lost {lost} ns");
            prop_assert_eq!(time(time(at)), time(at));
        }
    }
}
