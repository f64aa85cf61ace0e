//! What the engine tells of itself to who watches it.

use super::Engine;
use crate::metrics::Metrics;

impl Engine {
    pub(crate) async fn metrics(&self) -> Metrics {
        let oldest = self.live.lock().keys().min().copied();
        // Ids begin with the time of acceptance.
        let accepted = oldest.and_then(|id| id.as_uuid().get_timestamp());
        let now = self.now().timestamp_millis();
        let age = accepted.map(|accepted| {
            let (seconds, nanos) = accepted.to_unix();
            let accepted = seconds * 1000 + u64::from(nanos / 1_000_000);
            let now = u64::try_from(now).unwrap_or_default();
            std::time::Duration::from_millis(now.saturating_sub(accepted))
        });
        Metrics {
            scripts: self.meter.read(),
            oldest_run: age,
            health: self.health().await,
        }
    }
}
