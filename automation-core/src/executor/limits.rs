//! What a run may use: what its script's metadata states, filled in and bounded by whoever hosts it.
//!
//! Knows nothing of how a limit is kept.

use std::time::Duration;

use crate::error::BuildError;
use crate::limits;
use crate::script::Metadata;

const MIB: u64 = 1024 * 1024;

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunLimits {
    /// Time from the script's first byte to its deadline.
    pub timeout: Duration,
    /// Processor time of all its threads and programs; `None`: no limit of its own.
    pub cpu: Option<Duration>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Bytes of each stream that are kept.
    pub stream_bytes: usize,
    /// Programs that it may start in all; `None`: no limit.
    pub children_max: Option<u32>,
}

impl Default for RunLimits {
    /// What a script gets whose metadata states nothing, unless the builder was told otherwise.
    fn default() -> Self {
        Self {
            timeout: limits::SCRIPT_TIMEOUT,
            cpu: None,
            memory_bytes: limits::SCRIPT_MEMORY_MB * MIB,
            stream_bytes: limits::STREAM_HEAD_BYTES + limits::STREAM_TAIL_BYTES,
            children_max: None,
        }
    }
}

impl RunLimits {
    /// Returns the limits that a script's metadata states, the library's defaults among them.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        LimitPolicy::default().limits(metadata)
    }
}

/// The most that a run may use, whatever its script's metadata states; `None`: whatever it states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitCeilings {
    /// Time from the script's first byte to its deadline.
    pub timeout: Option<Duration>,
    /// Processor time of all its threads and programs.
    pub cpu: Option<Duration>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes of each stream that are kept.
    pub stream_bytes: Option<usize>,
    /// Programs that it may start in all.
    pub children_max: Option<u32>,
}

/// How limits follow from metadata: what is not stated is the default, and nothing exceeds its ceiling, the defaults
/// among it.
///
/// ```
/// use std::time::Duration;
///
/// use automation_core::executor::LimitPolicy;
/// use automation_core::script::Metadata;
///
/// let mut policy = LimitPolicy::default();
/// policy.defaults.timeout = Duration::from_secs(60);
/// policy.ceilings.timeout = Some(Duration::from_secs(600));
/// let mut metadata = Metadata::default();
/// assert_eq!(policy.limits(&metadata).timeout, Duration::from_secs(60));
/// metadata.timeout = Some(Duration::from_secs(3600));
/// assert_eq!(policy.limits(&metadata).timeout, Duration::from_secs(600));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitPolicy {
    /// What a run gets where its script's metadata states nothing.
    pub defaults: RunLimits,
    /// What no run exceeds.
    pub ceilings: LimitCeilings,
}

impl LimitPolicy {
    /// Returns what a run of a script with this metadata may use.
    #[must_use]
    pub fn limits(&self, metadata: &Metadata) -> RunLimits {
        let (defaults, ceilings) = (&self.defaults, &self.ceilings);
        let memory_bytes = metadata.memory_mb.map(|mb| mb * MIB);
        let cpu = metadata.cpu.or(defaults.cpu);
        let children_max = metadata.children_max.or(defaults.children_max);
        RunLimits {
            timeout: bounded(
                metadata.timeout.unwrap_or(defaults.timeout),
                ceilings.timeout,
            ),
            cpu: least(cpu, ceilings.cpu),
            memory_bytes: bounded(
                memory_bytes.unwrap_or(defaults.memory_bytes),
                ceilings.memory_bytes,
            ),
            stream_bytes: bounded(
                metadata.stream_bytes.unwrap_or(defaults.stream_bytes),
                ceilings.stream_bytes,
            ),
            children_max: least(children_max, ceilings.children_max),
        }
    }

    /// Refuses what would leave nothing to a script that states nothing, or more than metadata may state.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let least = self.limits(&Metadata::default());
        let (ms, mib, kib) = (Duration::from_millis(1), MIB, 1024);
        let times = ms..=limits::SCRIPT_TIMEOUT_MAX;
        let memory = mib..=limits::SCRIPT_MEMORY_MB_MAX * mib;
        let streams = kib..=limits::STREAM_KIB_MAX * kib;
        let (value, expected) = if !times.contains(&least.timeout) {
            let expected = "a timeout of 1 millisecond to 24 hours is allowed";
            (format!("{:?}", least.timeout), expected)
        } else if let Some(cpu) = least.cpu.filter(|cpu| !times.contains(cpu)) {
            let expected = "processor time of 1 millisecond to 24 hours is allowed";
            (format!("{cpu:?}"), expected)
        } else if !memory.contains(&least.memory_bytes) {
            let expected = "memory of 1 MiB to 1 TiB is allowed";
            (format!("{} bytes", least.memory_bytes), expected)
        } else if !streams.contains(&least.stream_bytes) {
            let expected = "1 KiB to 16 MiB of each stream are allowed";
            (format!("{} bytes", least.stream_bytes), expected)
        } else {
            return Ok(());
        };
        Err(BuildError::Setting {
            setting: "limits",
            value,
            expected,
        })
    }
}

fn bounded<T: Ord>(value: T, ceiling: Option<T>) -> T {
    match ceiling {
        Some(ceiling) => value.min(ceiling),
        None => value,
    }
}

/// `None` stands for no limit.
fn least<T: Ord>(value: Option<T>, ceiling: Option<T>) -> Option<T> {
    match value {
        Some(value) => Some(bounded(value, ceiling)),
        None => ceiling,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LimitCeilings, LimitPolicy, MIB, RunLimits};
    use crate::script::Metadata;

    fn stated() -> Metadata {
        Metadata {
            timeout: Some(Duration::from_secs(7)),
            cpu: Some(Duration::from_secs(6)),
            memory_mb: Some(5),
            stream_bytes: Some(4096),
            children_max: Some(3),
            ..Metadata::default()
        }
    }

    const STATED: RunLimits = RunLimits {
        timeout: Duration::from_secs(7),
        cpu: Some(Duration::from_secs(6)),
        memory_bytes: 5 * MIB,
        stream_bytes: 4096,
        children_max: Some(3),
    };

    const LOW: RunLimits = RunLimits {
        timeout: Duration::from_secs(2),
        cpu: Some(Duration::from_secs(1)),
        memory_bytes: 2 * MIB,
        stream_bytes: 1024,
        children_max: Some(0),
    };

    fn ceilings(of: RunLimits) -> LimitCeilings {
        LimitCeilings {
            timeout: Some(of.timeout),
            cpu: of.cpu,
            memory_bytes: Some(of.memory_bytes),
            stream_bytes: Some(of.stream_bytes),
            children_max: of.children_max,
        }
    }

    #[test]
    fn what_is_stated_goes_before_the_defaults_and_the_ceilings_before_both() {
        let silent = Metadata::default();
        let mut policy = LimitPolicy::default();
        assert_eq!(policy.limits(&silent), RunLimits::default());
        assert_eq!(policy.limits(&stated()), STATED);
        policy.defaults = LOW;
        assert_eq!(policy.limits(&silent), LOW);
        assert_eq!(policy.limits(&stated()), STATED);
        policy.ceilings = ceilings(STATED);
        assert_eq!(policy.limits(&silent), LOW);
        assert_eq!(policy.limits(&stated()), STATED);
        policy.ceilings = ceilings(LOW);
        policy.defaults = RunLimits::default();
        assert_eq!(
            policy.limits(&silent),
            LOW,
            "no limit is above every ceiling"
        );
        assert_eq!(policy.limits(&stated()), LOW);
    }

    #[test]
    fn a_policy_that_leaves_nothing_is_refused() {
        type Change = fn(&mut LimitPolicy);
        let wrong: [(Change, &str); 5] = [
            (|policy| policy.defaults.timeout = Duration::ZERO, "timeout"),
            (
                |policy| policy.ceilings.timeout = Some(Duration::ZERO),
                "timeout",
            ),
            (
                |policy| policy.ceilings.cpu = Some(Duration::ZERO),
                "processor",
            ),
            (|policy| policy.defaults.memory_bytes = u64::MAX, "memory"),
            (|policy| policy.ceilings.stream_bytes = Some(1023), "stream"),
        ];
        for (change, word) in wrong {
            let mut policy = LimitPolicy::default();
            policy.check().unwrap();
            change(&mut policy);
            let text = policy.check().unwrap_err().to_string();
            assert!(
                text.starts_with("limits is ") && text.contains(word),
                "{text}"
            );
        }
    }
}
