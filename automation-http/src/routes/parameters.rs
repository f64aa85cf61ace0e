//! What stands in paths and queries: each fault names its parameter and what is allowed. Unknown ones are ignored.

use std::time::Duration;

use automation_core::limits::{PAGE_ROWS, PAGE_ROWS_MAX};
use automation_core::{Cursor, ExecutionId, Page, Problem, Status};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use chrono::{DateTime, NaiveDate, Utc};

use crate::error::{ApiError, ApiResult};

/// Longest time for which an answer may be asked to wait.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

pub(super) type PathResult = Result<Path<String>, PathRejection>;
pub(super) type QueryResult<T> = Result<Query<T>, QueryRejection>;

/// Returns a segment of the path.
pub(super) fn segment(name: &str, segment: PathResult) -> ApiResult<String> {
    let Path(segment) =
        segment.map_err(|rejection| refused(&format!("/{name}"), rejection.body_text()))?;
    Ok(segment)
}

/// Returns the execution that a path names.
pub(super) fn execution_id(id: PathResult) -> ApiResult<ExecutionId> {
    let id = segment("id", id)?;
    id.parse().map_err(|_| {
        refused(
            "/id",
            format!("is {id:?}, the id of an execution is expected"),
        )
    })
}

/// Returns the parameters of the query.
pub(super) fn query<T>(query: QueryResult<T>) -> ApiResult<T> {
    let Query(parameters) = query.map_err(|rejection| refused("", rejection.body_text()))?;
    Ok(parameters)
}

/// Returns the part of a list that is asked for.
pub(super) fn page(limit: Option<&str>, cursor: Option<String>) -> ApiResult<Page> {
    let expected = |text| format!("is {text:?}, 1 to {PAGE_ROWS_MAX} is allowed");
    let rows_max = match limit {
        None => PAGE_ROWS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|rows| (1..=PAGE_ROWS_MAX).contains(rows))
            .ok_or_else(|| refused("/limit", expected(text)))?,
    };
    let page = Page::first(rows_max);
    Ok(match cursor {
        Some(cursor) => page.after(Cursor::new(cursor)),
        None => page,
    })
}

/// Reads statuses, separated by commas.
pub(super) fn statuses(words: Option<&str>) -> ApiResult<Vec<Status>> {
    let allowed = || Status::ALL.map(Status::as_str).join(", ");
    let status = |word| {
        let expected = || {
            refused(
                "/status",
                format!("has {word:?}, {} are allowed", allowed()),
            )
        };
        Status::from_word(word).ok_or_else(expected)
    };
    let words = words.into_iter().flat_map(|words| words.split(','));
    words.map(status).collect()
}

/// Reads a day. Only the four-digit form: chrono also reads signs and single digits.
pub(super) fn day(name: &str, text: &str) -> ApiResult<NaiveDate> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let day = day.filter(|day| day.format("%Y-%m-%d").to_string() == text);
    let expected = || format!("is {text:?}, a day such as 2026-01-31 is expected");
    day.ok_or_else(|| refused(&format!("/{name}"), expected()))
}

/// Reads a time, or a day for its beginning (UTC).
pub(super) fn time(name: &str, text: &str) -> ApiResult<DateTime<Utc>> {
    if let Ok(day) = day(name, text) {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let expected =
        || format!("is {text:?}, a time such as 2026-01-31T12:00:00Z or a day is expected");
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.to_utc())
        .map_err(|_| refused(&format!("/{name}"), expected()))
}

/// Reads how long an answer may wait for a run's end: `30s`, `2m`, or seconds.
pub(super) fn wait(text: Option<&str>) -> ApiResult<Option<Duration>> {
    let Some(text) = text else { return Ok(None) };
    let seconds = text.parse().ok().map(Duration::from_secs);
    let wait = seconds.or_else(|| humantime::parse_duration(text).ok());
    let expected =
        || format!("is {text:?}, a time such as 30s, up to 1h, is expected; 0 does not wait");
    wait.filter(|wait| *wait <= WAIT_MAX)
        .map(Some)
        .ok_or_else(|| refused("/wait", expected()))
}

/// Says what is wrong with a parameter.
pub(super) fn refused(pointer: &str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid_request(vec![Problem::new(pointer, detail.into())])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{day, time, wait};

    #[test]
    fn a_day_has_one_form() {
        assert!(day("since", "2026-01-31").is_ok());
        for text in [
            "",
            "2026-1-31",
            "2026-02-30",
            "+2026-01-31",
            "2026-01-31T00:00:00Z",
            "31.01.2026",
            " 2026-01-31",
        ] {
            assert!(day("since", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_or_a_day() {
        let noon = time("since", "2026-01-31T12:00:00Z").unwrap();
        assert_eq!(time("since", "2026-01-31T13:00:00+01:00").unwrap(), noon);
        let midnight = time("since", "2026-01-31").unwrap();
        assert_eq!(noon - midnight, chrono::TimeDelta::hours(12));
        for text in ["", "now", "2026-01-31 12:00", "2026-01-31T12:00:00"] {
            assert!(time("since", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn waits_have_units_or_are_seconds_and_are_bounded() {
        for (text, seconds) in [("0", 0), ("30", 30), ("30s", 30), ("2m", 120), ("1h", 3600)] {
            let read = wait(Some(text)).unwrap();
            assert_eq!(read, Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(wait(None).unwrap(), None);
        for text in ["", "-1", "1.5", "soon", "61m", "99999999999999999999"] {
            assert!(wait(Some(text)).is_err(), "{text:?}");
        }
    }
}
