//! What this process counts and sees of itself, for who watches it: counts since its start and the state of now. Knows
//! no format: each front door writes its own. What is recorded for good is `stats`' business.

mod meter;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::meter::Meter;
use crate::automation::Health;
use crate::execution::Reason;
use crate::status::Status;

/// The largest lengths of each part of [`Durations`] but the last, which has none; in microseconds.
pub const DURATION_BOUNDS_US: [u64; 15] = [
    100,
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Counts since the start of this process, and how it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Script by script; at most [`METERED_SCRIPTS_MAX`](crate::limits::METERED_SCRIPTS_MAX), the rest together.
    /// Every trigger counts, tests too.
    pub scripts: BTreeMap<String, ScriptMetrics>,
    /// How long ago the oldest run that this process has in hand was accepted.
    pub oldest_run: Option<Duration>,
    /// How everything is.
    pub health: Health,
}

/// What was counted of one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ScriptMetrics {
    /// How runs ended.
    pub ends: Vec<Ends>,
    /// Lengths of the runs that began.
    pub durations: Durations,
    /// Time that runs waited for a worker, in microseconds.
    pub queue_us: u64,
    /// Processor time where it was measured, in microseconds.
    pub cpu_us: u64,
    /// Bytes written to both streams.
    pub output_bytes: u64,
    /// Largest memory use of a run, in bytes; 0 where none was measured.
    pub memory_peak_bytes: u64,
}

/// How many runs ended in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ends {
    /// The terminal status.
    pub status: Status,
    /// Its cause, if it has one.
    pub reason: Option<Reason>,
    /// Runs that ended so.
    pub runs: u64,
}

/// Lengths of runs, counted in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Durations {
    /// Runs of each part: up to the bound of [`DURATION_BOUNDS_US`] and longer than the one before it.
    pub counts: [u64; DURATION_BOUNDS_US.len() + 1],
    /// All lengths together, in microseconds.
    pub sum_us: u64,
}
