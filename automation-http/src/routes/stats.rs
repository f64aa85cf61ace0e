//! `GET /automation/stats`: what was counted.

use automation_core::{Automation, Problem, StatsQuery};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use chrono::NaiveDate;
use serde::Deserialize;

use crate::dto::{Envelope, StatsDto};
use crate::error::{ApiError, ApiResult};

#[derive(Debug, Default, Deserialize)]
pub(super) struct StatsParameters {
    /// A day (UTC), `2026-01-31`.
    since: Option<String>,
    /// A script's name.
    script: Option<String>,
}

pub(super) async fn stats(
    State(automation): State<Automation>,
    parameters: Result<Query<StatsParameters>, QueryRejection>,
) -> ApiResult<Envelope<StatsDto>> {
    let refused = |pointer: &str, detail: String| {
        ApiError::invalid_request(vec![Problem::new(pointer, detail)])
    };
    let Query(parameters) = parameters.map_err(|rejection| refused("", rejection.body_text()))?;
    let expected = |text: &str| {
        let detail = format!("is {text:?}, a day such as 2026-01-31 is expected");
        refused("/since", detail)
    };
    let since = parameters
        .since
        .map(|text| day(&text).ok_or_else(|| expected(&text)));
    let query = StatsQuery {
        since: since.transpose()?,
        script_name: parameters.script,
        ..StatsQuery::default()
    };
    let stats = automation.stats(query).await?;
    let message = format!("Statistics of {} automations", stats.all.total);
    Ok(Envelope::new(StatsDto::from(stats), message))
}

/// Only the four-digit form: chrono also reads signs and single digits.
fn day(text: &str) -> Option<NaiveDate> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    (day.format("%Y-%m-%d").to_string() == text).then_some(day)
}

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn a_day_has_one_form() {
        assert!(day("2026-01-31").is_some());
        for text in [
            "",
            "2026-1-31",
            "2026-02-30",
            "+2026-01-31",
            "2026-01-31T00:00:00Z",
            "31.01.2026",
            " 2026-01-31",
        ] {
            assert_eq!(day(text), None, "{text:?}");
        }
    }
}
