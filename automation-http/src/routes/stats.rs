//! `GET /automation/stats`: what was counted, of all time or of a window of days.

use automation_core::StatsQuery;
use axum::extract::State;
use chrono::{Days, NaiveDate};
use serde::Deserialize;

use super::Shared;
use super::parameters::{self, QueryResult, refused};
use crate::dto::{Envelope, StatsDto};
use crate::error::ApiResult;

/// Longest window in days: ten years.
const WINDOW_DAYS_MAX: u64 = 3660;

#[derive(Debug, Default, Deserialize)]
pub(super) struct StatsParameters {
    /// A day (UTC), `2026-01-31`.
    since: Option<String>,
    /// The last days up to today (UTC), `7d`; instead of `since`.
    window: Option<String>,
    /// A script's name.
    script: Option<String>,
}

pub(super) async fn stats(
    State(Shared {
        automation, config, ..
    }): State<Shared>,
    query: QueryResult<StatsParameters>,
) -> ApiResult<Envelope<StatsDto>> {
    let asked = parameters::query(query)?;
    let since = match (&asked.since, &asked.window) {
        (Some(_), Some(_)) => {
            return Err(refused("/window", "stands beside since, one is allowed"));
        }
        (Some(since), None) => Some(parameters::day("since", since)?),
        (None, Some(window)) => Some(first_day(window, config.clock.now().date_naive())?),
        (None, None) => None,
    };
    let query = StatsQuery {
        since,
        script_name: asked.script,
        ..StatsQuery::default()
    };
    let stats = automation.stats(query).await?;
    let message = format!("Statistics of {} automations", stats.all.total);
    let since = since.map(|day| day.to_string());
    Ok(Envelope::new(StatsDto::from(stats), message).with("since", since))
}

/// Returns the first of the last days that a window has.
fn first_day(window: &str, today: NaiveDate) -> ApiResult<NaiveDate> {
    let days = window.strip_suffix('d').and_then(|days| days.parse().ok());
    let days = days.filter(|days| (1..=WINDOW_DAYS_MAX).contains(days));
    let first = days.and_then(|days| today.checked_sub_days(Days::new(days - 1)));
    let expected =
        || format!("is {window:?}, days such as 7d, up to {WINDOW_DAYS_MAX}d, are expected");
    first.ok_or_else(|| refused("/window", expected()))
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::first_day;

    #[test]
    fn a_window_ends_today() {
        let today = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap();
        let first = |window| first_day(window, today).map(|day| day.to_string()).ok();
        assert_eq!(first("1d").as_deref(), Some("2026-03-01"));
        assert_eq!(first("7d").as_deref(), Some("2026-02-23"));
        for window in ["", "0d", "d", "7", "-1d", "7h", "3661d"] {
            assert_eq!(first(window), None, "{window:?}");
        }
    }
}
