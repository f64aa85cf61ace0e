//! The counting: some atomic additions a run, without a lock that another run holds for longer than a look.

use std::array;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use super::{DURATION_BOUNDS_US, Durations, Ends, ScriptMetrics};
use crate::execution::{Execution, Reason};
use crate::limits::METERED_SCRIPTS_MAX;
use crate::status::Status;

/// What runs beyond [`METERED_SCRIPTS_MAX`] scripts are counted under. No script can have the name.
const OTHERS: &str = "(others)";

/// The terminal statuses, as they are counted.
const ENDS: [Status; 3] = [Status::Completed, Status::Failed, Status::Cancelled];
/// A run has a reason or none.
const REASONS: usize = Reason::ALL.len() + 1;
const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// Counts ends of runs.
#[derive(Debug, Default)]
pub(crate) struct Meter(RwLock<HashMap<String, Arc<Counts>>>);

#[derive(Debug)]
struct Counts {
    ends: [[AtomicU64; REASONS]; ENDS.len()],
    durations: [AtomicU64; BUCKETS],
    duration_us: AtomicU64,
    queue_us: AtomicU64,
    cpu_us: AtomicU64,
    output_bytes: AtomicU64,
    memory_peak_bytes: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            ends: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
            durations: array::from_fn(|_| AtomicU64::new(0)),
            duration_us: AtomicU64::new(0),
            queue_us: AtomicU64::new(0),
            cpu_us: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Counts a run that has its terminal status; one that has none changes nothing.
    pub(crate) fn count(&self, execution: &Execution) {
        let known = self.0.read().get(&execution.script_name).cloned();
        known
            .unwrap_or_else(|| self.added(&execution.script_name))
            .count(execution);
    }

    /// Returns the counts of every script that had a run end.
    pub(crate) fn read(&self) -> BTreeMap<String, ScriptMetrics> {
        let scripts = self.0.read();
        let read = |(name, counts): (&String, &Arc<Counts>)| (name.clone(), counts.read());
        scripts.iter().map(read).collect()
    }

    fn added(&self, script_name: &str) -> Arc<Counts> {
        let mut scripts = self.0.write();
        let is_known = scripts.contains_key(script_name);
        let name = match !is_known && scripts.len() >= METERED_SCRIPTS_MAX {
            true => OTHERS,
            false => script_name,
        };
        Arc::clone(scripts.entry(name.to_owned()).or_default())
    }
}

impl Counts {
    fn count(&self, execution: &Execution) {
        let Some(end) = ENDS.iter().position(|end| *end == execution.status) else {
            return;
        };
        let reason = execution.reason.map_or(0, |reason| reason as usize + 1);
        self.ends[end][reason].fetch_add(1, Relaxed);
        if let Some(us) = execution.duration_us {
            let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < us);
            self.durations[bucket].fetch_add(1, Relaxed);
            self.duration_us.fetch_add(us, Relaxed);
        }
        let usage = &execution.usage;
        self.queue_us
            .fetch_add(execution.queue_us.unwrap_or(0), Relaxed);
        self.cpu_us.fetch_add(usage.cpu_us.unwrap_or(0), Relaxed);
        self.output_bytes.fetch_add(execution.output_bytes, Relaxed);
        let peak = usage.memory_peak_bytes.unwrap_or(0);
        self.memory_peak_bytes.fetch_max(peak, Relaxed);
    }

    fn read(&self) -> ScriptMetrics {
        ScriptMetrics {
            ends: self.ends(),
            durations: Durations {
                counts: array::from_fn(|bucket| self.durations[bucket].load(Relaxed)),
                sum_us: self.duration_us.load(Relaxed),
            },
            queue_us: self.queue_us.load(Relaxed),
            cpu_us: self.cpu_us.load(Relaxed),
            output_bytes: self.output_bytes.load(Relaxed),
            memory_peak_bytes: self.memory_peak_bytes.load(Relaxed),
        }
    }

    fn ends(&self) -> Vec<Ends> {
        let mut ends = Vec::new();
        for (status, counts) in ENDS.iter().zip(&self.ends) {
            let reasons = std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some));
            for (reason, count) in reasons.zip(counts) {
                let (status, runs) = (*status, count.load(Relaxed));
                if runs > 0 {
                    ends.push(Ends {
                        status,
                        reason,
                        runs,
                    });
                }
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{ENDS, Meter, OTHERS};
    use crate::execution::{Execution, ExecutionId, Reason, Trigger};
    use crate::limits::METERED_SCRIPTS_MAX;
    use crate::metrics::DURATION_BOUNDS_US;
    use crate::status::Status;

    fn ended(script: &str, status: Status, reason: Option<Reason>, us: u64) -> Execution {
        let id = ExecutionId::from_uuid(Uuid::nil());
        let mut run = Execution::new(id, script, "v", Trigger::Test, DateTime::UNIX_EPOCH);
        (run.status, run.reason) = (status, reason);
        (run.duration_us, run.queue_us) = (Some(us), Some(2));
        (run.usage.cpu_us, run.usage.memory_peak_bytes) = (Some(3), Some(us));
        run.output_bytes = 5;
        run
    }

    #[test]
    fn reasons_are_counted_under_their_own_names() {
        for reason in Reason::ALL {
            assert_eq!(Reason::ALL[*reason as usize], *reason);
        }
    }

    #[test]
    fn open_runs_are_not_counted() {
        let meter = Meter::default();
        meter.count(&ended("a.py", Status::Running, None, 1));
        assert_eq!(meter.read()["a.py"].ends, []);
    }

    #[test]
    fn scripts_beyond_the_bound_share_one_name() {
        let meter = Meter::default();
        for n in 0..METERED_SCRIPTS_MAX + 7 {
            meter.count(&ended(&format!("{n}.py"), Status::Completed, None, 1));
        }
        let read = meter.read();
        assert_eq!(read.len(), METERED_SCRIPTS_MAX + 1);
        assert_eq!(read[OTHERS].ends[0].runs, 7);
        meter.count(&ended("0.py", Status::Completed, None, 1));
        assert_eq!(meter.read()["0.py"].ends[0].runs, 2);
    }

    proptest! {
        #[test]
        fn every_run_is_counted_once(
            runs in proptest::collection::vec((0..ENDS.len(), 0..=Reason::ALL.len(), 0_u64..400_000_000), 0..50),
        ) {
            let meter = Meter::default();
            let reason = |index: usize| Reason::ALL.get(index).copied();
            for (end, index, us) in &runs {
                meter.count(&ended("a.py", ENDS[*end], reason(*index), *us));
            }
            let read = meter.read().remove("a.py");
            prop_assert_eq!(read.is_none(), runs.is_empty());
            let Some(read) = read else { return Ok(()) };
            for ends in &read.ends {
                let same = |(end, index, _): &&(usize, usize, u64)| {
                    (ENDS[*end], reason(*index)) == (ends.status, ends.reason)
                };
                prop_assert_eq!(ends.runs as usize, runs.iter().filter(same).count());
            }
            let count = runs.len() as u64;
            prop_assert_eq!(read.ends.iter().map(|ends| ends.runs).sum::<u64>(), count);
            prop_assert_eq!(read.durations.sum_us, runs.iter().map(|run| run.2).sum::<u64>());
            for (bucket, bound) in DURATION_BOUNDS_US.iter().enumerate() {
                let within = read.durations.counts[..=bucket].iter().sum::<u64>() as usize;
                prop_assert_eq!(within, runs.iter().filter(|run| run.2 <= *bound).count());
            }
            prop_assert_eq!(read.durations.counts.iter().sum::<u64>(), count);
            prop_assert_eq!((read.queue_us, read.cpu_us, read.output_bytes), (count * 2, count * 3, count * 5));
            prop_assert_eq!(read.memory_peak_bytes, runs.iter().map(|run| run.2).max().unwrap());
        }
    }
}
