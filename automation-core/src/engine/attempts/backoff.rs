//! How long a run waits before it is tried again. Pure.

use std::time::Duration;

use uuid::Uuid;

use crate::limits::BACKOFF_MAX;
use crate::script::RetryPolicy;

/// Returns the pause before attempt `attempt + 1`: it doubles with each attempt, up to [`BACKOFF_MAX`], and the policy's
/// share of it is left to chance, so that what failed together does not come back together. `draw` is from 0 to 1.
pub(super) fn pause(policy: &RetryPolicy, attempt: i32, draw: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).clamp(0, 30);
    let longest = policy.backoff.saturating_mul(1 << doublings);
    let longest = longest.min(BACKOFF_MAX);
    longest.mul_f64(1.0 - policy.jitter.clamp(0.0, 1.0) * draw.clamp(0.0, 1.0))
}

/// Returns a number from 0 to 1 that nobody can foresee: from the random part of an execution's id.
pub(super) fn draw(id: &Uuid) -> f64 {
    let [.., a, b, c, d] = *id.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{draw, pause};
    use crate::limits::BACKOFF_MAX;
    use crate::script::RetryPolicy;

    fn policy(backoff: Duration, jitter: f64) -> RetryPolicy {
        RetryPolicy {
            backoff,
            jitter,
            ..RetryPolicy::default()
        }
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let policy = policy(Duration::from_secs(10), 0.0);
        let pauses: Vec<_> = (1..=12).map(|n| pause(&policy, n, 0.7).as_secs()).collect();
        let expected = [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600];
        assert_eq!(pauses, expected);
    }

    #[test]
    fn draws_differ_and_are_spread() {
        let draws: Vec<_> = (0..1000).map(|_| draw(&Uuid::now_v7())).collect();
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn a_pause_is_within_its_share_of_chance(
            ms in 0..86_400_000_u64, jitter in 0.0..=1.0, attempt in i32::MIN..i32::MAX, chance in 0.0..=1.0,
        ) {
            let policy = policy(Duration::from_millis(ms), jitter);
            let longest = pause(&policy, attempt, 0.0);
            let shortest = pause(&policy, attempt, 1.0);
            let drawn = pause(&policy, attempt, chance);
            prop_assert!(longest <= BACKOFF_MAX);
            prop_assert!(shortest <= drawn && drawn <= longest);
            let share = longest.mul_f64(1.0 - jitter);
            prop_assert!(shortest.abs_diff(share) < Duration::from_micros(1), "{shortest:?} {share:?}");
        }

        #[test]
        fn later_attempts_never_wait_less(ms in 0..86_400_000_u64, attempt in 1..100) {
            let policy = policy(Duration::from_millis(ms), 0.0);
            prop_assert!(pause(&policy, attempt, 0.0) <= pause(&policy, attempt + 1, 0.0));
        }
    }
}
