//! Statistics: a pure fold over executions, and the model that backends are compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::execution::{Execution, ResourceUsage};
use crate::status::Status;

/// What is counted of one script, or of all (promise P8). Sums are integers; averages are derived.
/// What was not measured of a run (a value of its [`ResourceUsage`] that is `None`) adds 0, so that a sum over runs some of
/// which were not measured is a lower bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptStats {
    /// Runs that completed or failed.
    pub total: u64,
    /// Runs that completed.
    pub successful: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were cancelled; not part of `total`.
    pub cancelled: u64,
    /// Time that the runs in `total` waited for a worker, in microseconds.
    pub queue_us: u64,
    /// Length of the runs in `total`, in microseconds.
    pub duration_us: u64,
    /// Processor time of the runs in `total` where it was measured, in microseconds.
    pub cpu_us: u64,
    /// Largest memory use of a run in `total`, in bytes; 0 where none was measured.
    pub memory_peak_bytes: u64,
    /// Programs that the runs in `total` started, where they were counted.
    pub children: u64,
    /// Threads that the runs in `total` started, where they were counted.
    pub threads: u64,
    /// Bytes that the runs in `total` wrote to both streams.
    pub output_bytes: u64,
    /// Lengths of the runs in `total`.
    pub durations: Histogram,
}

impl ScriptStats {
    /// Adds an execution that became terminal. Open executions and triggers that do not count change nothing.
    pub fn add(&mut self, execution: &Execution) {
        if execution.trigger.is_counted() {
            self.count(&Counted {
                status: execution.status,
                queue_us: execution.queue_us,
                duration_us: execution.duration_us,
                usage: execution.usage,
                output_bytes: execution.output_bytes,
            });
        }
    }

    /// Adds what became of an execution of a trigger that counts.
    pub(crate) fn count(&mut self, run: &Counted) {
        match run.status {
            Status::Completed => self.successful += 1,
            Status::Failed => self.failed += 1,
            Status::Cancelled => {
                self.cancelled += 1;
                return;
            }
            Status::Starting | Status::Running => return,
        }
        let Counted {
            duration_us, usage, ..
        } = *run;
        let duration_us = duration_us.unwrap_or(0);
        self.total += 1;
        self.queue_us += run.queue_us.unwrap_or(0);
        self.duration_us += duration_us;
        self.cpu_us += usage.cpu_us.unwrap_or(0);
        let peak = usage.memory_peak_bytes.unwrap_or(0);
        self.memory_peak_bytes = self.memory_peak_bytes.max(peak);
        self.children += u64::from(usage.children.unwrap_or(0));
        self.threads += u64::from(usage.threads.unwrap_or(0));
        self.output_bytes += run.output_bytes;
        self.durations.add(Histogram::bucket(duration_us), 1);
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.successful += other.successful;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.queue_us += other.queue_us;
        self.duration_us += other.duration_us;
        self.cpu_us += other.cpu_us;
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.children += other.children;
        self.threads += other.threads;
        self.output_bytes += other.output_bytes;
        self.durations.merge(&other.durations);
    }

    /// Returns successful / total in percent, 0 when nothing ran.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn success_rate(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            self.successful as f64 * 100.0 / self.total as f64
        }
    }

    /// Returns the mean length in microseconds, 0 when nothing ran.
    #[must_use]
    pub fn avg_duration_us(&self) -> f64 {
        self.mean(self.duration_us)
    }

    /// Returns the mean wait for a worker in microseconds, 0 when nothing ran.
    #[must_use]
    pub fn avg_queue_us(&self) -> f64 {
        self.mean(self.queue_us)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "2^52 microseconds are 142 years"
    )]
    fn mean(&self, sum: u64) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            sum as f64 / self.total as f64
        }
    }
}

/// What the end of one run adds to the sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) status: Status,
    pub(crate) queue_us: Option<u64>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) usage: ResourceUsage,
    pub(crate) output_bytes: u64,
}

/// The statistics of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// All scripts together.
    pub all: ScriptStats,
    /// Script by script.
    pub by_script: BTreeMap<String, ScriptStats>,
    /// Executions of counted triggers that are open now.
    pub open: u64,
    /// The newest finished executions of counted triggers, without output.
    pub recent: Vec<Execution>,
}

impl Stats {
    /// Puts the sums of the scripts together.
    #[must_use]
    pub fn new(
        by_script: BTreeMap<String, ScriptStats>,
        open: u64,
        recent: Vec<Execution>,
    ) -> Self {
        let mut all = ScriptStats::default();
        for script in by_script.values() {
            all.merge(script);
        }
        Self {
            all,
            by_script,
            open,
            recent,
        }
    }

    /// Counts executions one by one, newest first: what every backend must agree with.
    #[must_use]
    pub fn fold<'a>(
        executions: impl IntoIterator<Item = &'a Execution>,
        recent_max: usize,
    ) -> Self {
        let mut by_script = BTreeMap::<String, ScriptStats>::new();
        let (mut open, mut recent) = (0, Vec::new());
        for execution in executions
            .into_iter()
            .filter(|execution| execution.trigger.is_counted())
        {
            if !execution.status.is_terminal() {
                open += 1;
                continue;
            }
            by_script
                .entry(execution.script_name.clone())
                .or_default()
                .add(execution);
            if recent.len() < recent_max {
                recent.push(Execution {
                    output: String::new(),
                    stderr: String::new(),
                    parsed_output: None,
                    context: None,
                    ..execution.clone()
                });
            }
        }
        Self::new(by_script, open, recent)
    }
}

/// Counts of lengths in buckets that grow by an eighth of a power of two, so that a percentile is exact to
/// 12.5 % and sums of histograms are histograms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u16, u64>);

/// Each power of two is cut into 2^3 buckets.
const SUB_BITS: u32 = 3;

impl Histogram {
    /// Returns the bucket of a length in microseconds.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the largest bucket is 495")]
    pub const fn bucket(us: u64) -> u16 {
        if us < (1 << SUB_BITS) {
            return us as u16;
        }
        let exponent = u64::BITS - 1 - us.leading_zeros();
        let sub = (us >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1);
        (((exponent - SUB_BITS + 1) << SUB_BITS) + sub as u32) as u16
    }

    /// Returns the largest length, in microseconds, that falls into a bucket.
    #[must_use]
    pub const fn bucket_max_us(bucket: u16) -> u64 {
        let bucket = bucket as u64;
        if bucket < (1 << SUB_BITS) {
            return bucket;
        }
        let shift = (bucket >> SUB_BITS) - 1;
        let sub = bucket & ((1 << SUB_BITS) - 1);
        // Written so that the last bucket does not overflow.
        (((1 << SUB_BITS) | sub) << shift) + ((1 << shift) - 1)
    }

    /// Adds `count` lengths of a bucket.
    pub fn add(&mut self, bucket: u16, count: u64) {
        *self.0.entry(bucket).or_default() += count;
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            self.add(*bucket, *count);
        }
    }

    /// Returns the buckets that are not empty, shortest first, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// Returns the length in microseconds that `percent` of the runs do not exceed; `None` when nothing ran.
    #[must_use]
    pub fn percentile_us(&self, percent: u8) -> Option<u64> {
        let count: u64 = self.0.values().sum();
        let rank = (count * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then(|| Self::bucket_max_us(bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Histogram;

    #[test]
    fn percentiles_of_a_hundred() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_us(50), None);
        for us in 1..=100 {
            histogram.add(Histogram::bucket(us), 1);
        }
        let p50 = histogram.percentile_us(50).unwrap();
        assert!((50..=56).contains(&p50), "{p50}");
        assert!(histogram.percentile_us(100).unwrap() >= 100);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_length_to_an_eighth(us: u64) {
            let max = Histogram::bucket_max_us(Histogram::bucket(us));
            prop_assert!(max >= us);
            prop_assert!(max - us <= us / 8);
        }

        #[test]
        fn buckets_are_ordered(a: u64, b: u64) {
            prop_assert_eq!(a <= b || Histogram::bucket(a) >= Histogram::bucket(b), true);
        }
    }
}
