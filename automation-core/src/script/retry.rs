//! What a script says about trying it again: the table `[tool.automation.retry]`.

use std::time::Duration;

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::fields::{Fields, Findings, integer, number, shown};
use super::metadata::Metadata;
use crate::execution::Reason;
use crate::limits::{BACKOFF_MAX, RETRIES_MAX};

/// Reasons of a failure after which a script may be tried again.
const REASONS: [Reason; 9] = [
    Reason::Timeout,
    Reason::MemoryLimit,
    Reason::CpuLimit,
    Reason::Exception,
    Reason::ExitCode,
    Reason::InvalidOutput,
    Reason::NotStarted,
    Reason::ExecutorError,
    Reason::Orphaned,
];

/// When and how often a failed run is tried again by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RetryPolicy {
    /// Attempts after the first one at most.
    pub max: u32,
    /// Pause before the second attempt; it doubles with each further one, up to [`BACKOFF_MAX`].
    pub backoff: Duration,
    /// Share of a pause that is left to chance, from 0 to 1: 0.5 means half of the pause to all of it.
    pub jitter: f64,
    /// After which reasons.
    pub on: Vec<Reason>,
}

impl Default for RetryPolicy {
    /// What holds where a table leaves something out.
    fn default() -> Self {
        Self {
            max: 3,
            backoff: Duration::from_secs(10),
            jitter: 0.5,
            on: vec![
                Reason::Exception,
                Reason::ExitCode,
                Reason::Timeout,
                Reason::NotStarted,
            ],
        }
    }
}

/// Reads the table of a script with this metadata.
pub(super) fn read(
    table: &DeTable<'_>,
    metadata: &Metadata,
    findings: &mut Findings<'_>,
) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let mut fields = Fields::new("[tool.automation.retry]", table, findings);
    let expected = format!("a whole number from 1 to {RETRIES_MAX}");
    let max = fields.read("max", &expected, |value| {
        let max = u32::try_from(integer(value)?).ok();
        max.filter(|max| (1..=RETRIES_MAX).contains(max))
    });
    let expected = format!("a number of seconds from 0 to {}", BACKOFF_MAX.as_secs());
    let backoff = fields.read("backoff", &expected, seconds);
    let jitter = fields.read("jitter", "a number from 0 to 1", |value| {
        let share = number(value)?.as_f64()?;
        (0.0..=1.0).contains(&share).then_some(share)
    });
    policy.max = max.unwrap_or(policy.max);
    policy.backoff = backoff.unwrap_or(policy.backoff);
    policy.jitter = jitter.unwrap_or(policy.jitter);
    if let Some(on) = reasons(&mut fields, metadata.idempotent) {
        policy.on = on;
    }
    fields.finish();
    policy
}

fn reasons(fields: &mut Fields<'_, '_, '_>, idempotent: bool) -> Option<Vec<Reason>> {
    let items = fields.read("on", "a list of reasons", DeValue::as_array)?;
    let mut reasons = Vec::new();
    for item in items {
        let word = item.get_ref().as_str();
        match REASONS.into_iter().find(|reason| word == Some(reason.as_str())) {
            Some(Reason::Orphaned) if !idempotent => fields.error_at(
                &item.span(),
                "on holds \"orphaned\", after which nobody knows what the script did: that needs idempotent = true",
            ),
            Some(reason) => reasons.push(reason),
            None => fields.error_at(
                &item.span(),
                &format!("on holds {}, expected one of {}", shown(item.get_ref()), words()),
            ),
        }
    }
    Some(reasons)
}

fn words() -> String {
    let words: Vec<_> = REASONS
        .iter()
        .map(|reason| format!("\"{reason}\""))
        .collect();
    words.join(", ")
}

fn seconds(value: &DeValue<'_>) -> Option<Duration> {
    let seconds = number(value)?.as_f64()?;
    let backoff = Duration::try_from_secs_f64(seconds).ok();
    backoff.filter(|backoff| *backoff <= BACKOFF_MAX)
}
