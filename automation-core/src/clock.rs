//! Where the library takes its time from.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

/// A source of wall-clock time, so that tests never sleep.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until it is `at`, or somewhat longer. Needs a tokio runtime.
    ///
    /// # Cancel safety
    /// Safe.
    async fn until(&self, at: DateTime<Utc>) {
        while let Ok(rest) = (at - self.now()).to_std()
            && !rest.is_zero()
        {
            tokio::time::sleep(rest.min(SLICE)).await;
        }
    }
}

/// Longest sleep before the clock is looked at again: it may be set, and machines are suspended.
const SLICE: Duration = Duration::from_secs(60);

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system's clock"
    )]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that stands still until it is moved by hand.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<DateTime<Utc>>);

impl ManualClock {
    /// Creates a clock that shows `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(watch::Sender::new(now))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        self.0.send_modify(|now| {
            *now = now
                .checked_add_signed(by)
                .unwrap_or(DateTime::<Utc>::MAX_UTC);
        });
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.borrow()
    }

    async fn until(&self, at: DateTime<Utc>) {
        let mut now = self.0.subscribe();
        // The sender is this clock, so it is there.
        let _ = now.wait_for(|now| *now >= at).await;
    }
}
