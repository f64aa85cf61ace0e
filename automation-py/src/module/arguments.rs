//! From Python arguments to requests. An argument of a wrong type is a `TypeError` that names it, as everywhere in
//! Python; one whose value can't be used is an `InvalidRequestError`.

use std::collections::HashMap;
use std::time::Duration;

use automation_core::limits::PAGE_ROWS_MAX;
use automation_core::secret::{Secret, Secrets, is_secret_name};
use automation_core::{
    Classification, Cursor, Error, ExecutionId, Page, Problem, Retention, Status, Ticket,
};
use chrono::{DateTime, NaiveDate, Utc};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDate, PyDateTime, PyDict};
use serde_json::{Map, Value};

use super::errors;
use crate::convert;

/// Returns the fields of a dictionary that is an argument; problems point into the argument.
fn object(dict: &Bound<'_, PyDict>) -> Result<Map<String, Value>, Problem> {
    match convert::to_json(dict.as_any())? {
        Value::Object(fields) => Ok(fields),
        _ => unreachable!("a dictionary becomes an object"),
    }
}

fn below(pointer: &str, problem: Problem) -> Error {
    Error::invalid_request(format!("{pointer}{}", problem.pointer), problem.detail)
}

pub(super) fn ticket(dict: &Bound<'_, PyDict>) -> Result<Ticket, Error> {
    Ticket::from_fields(object(dict).map_err(|problem| below("/ticket", problem))?)
}

pub(super) fn classification(dict: &Bound<'_, PyDict>) -> Result<Classification, Error> {
    let mut fields = object(dict).map_err(|problem| below("/classification", problem))?;
    let mut problems = Vec::new();
    let category = take(&mut fields, "category", "a str", into_text, &mut problems);
    let possible = take(
        &mut fields,
        "automation_possible",
        "a bool",
        |value| value.as_bool(),
        &mut problems,
    );
    let confidence = match fields.get("confidence") {
        None | Some(Value::Null) => {
            fields.remove("confidence");
            None
        }
        Some(_) => take(
            &mut fields,
            "confidence",
            "a number",
            |value| value.as_f64(),
            &mut problems,
        ),
    };
    let (Some(category), Some(possible), []) = (category, possible, &problems[..]) else {
        return Err(Error::InvalidRequest { problems });
    };
    let mut classification = Classification::new(category);
    classification.automation_possible = possible;
    classification.confidence = confidence;
    classification.more = fields;
    Ok(classification)
}

fn into_text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

fn take<T>(
    fields: &mut Map<String, Value>,
    name: &str,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let value = fields.remove(name);
    let read = value.as_ref().and_then(read);
    if read.is_none() {
        let detail = match value {
            None => "is missing".to_owned(),
            Some(_) => format!("must be {expected}"),
        };
        problems.push(Problem::new(format!("/classification/{name}"), detail));
    }
    read
}

/// Returns a run's parameters; what JSON does not have is a problem of the parameters.
pub(super) fn parameters(
    script_name: &str,
    dict: Option<&Bound<'_, PyDict>>,
) -> Result<Map<String, Value>, Error> {
    let Some(dict) = dict else {
        return Ok(Map::new());
    };
    object(dict).map_err(|problem| Error::InvalidParameters {
        script: script_name.to_owned(),
        problems: vec![problem],
    })
}

pub(super) fn execution_id(text: &str) -> Result<ExecutionId, Error> {
    text.parse().map_err(|_| {
        Error::invalid_request(
            "/id",
            format!("is {text:?}, expected the id of an execution"),
        )
    })
}

pub(super) fn page(limit: i64, cursor: Option<String>) -> Result<Page, Error> {
    let rows_max = usize::try_from(limit)
        .ok()
        .filter(|rows| (1..=PAGE_ROWS_MAX).contains(rows))
        .ok_or_else(|| {
            let detail = format!("is {limit}, expected 1 to {PAGE_ROWS_MAX}");
            Error::invalid_request("/limit", detail)
        })?;
    let page = Page::first(rows_max);
    Ok(match cursor {
        Some(cursor) => page.after(Cursor::new(cursor)),
        None => page,
    })
}

pub(super) fn statuses(words: Option<Vec<String>>) -> Result<Vec<Status>, Error> {
    let words = words.unwrap_or_default();
    let status = |word: &String| {
        Status::from_word(word).ok_or_else(|| {
            let known = Status::ALL.map(Status::as_str).join(", ");
            Error::invalid_request("/statuses", format!("has {word:?}, expected {known}"))
        })
    };
    words.iter().map(status).collect()
}

/// Returns a day. A time is refused, since a day is all that is looked at.
pub(super) fn day(name: &str, value: &Bound<'_, PyAny>) -> PyResult<NaiveDate> {
    if !value.is_instance_of::<PyDate>() || value.is_instance_of::<PyDateTime>() {
        return Err(PyTypeError::new_err(format!(
            "argument '{name}': expected a datetime.date (a day in UTC), got {}",
            value.get_type().name()?
        )));
    }
    value.extract()
}

/// Returns an instant. One without a time zone is refused: whose noon it is, nobody knows.
pub(super) fn instant(
    name: &str,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<DateTime<Utc>>> {
    let Some(value) = value else { return Ok(None) };
    let is_known = value.is_instance_of::<PyDateTime>() && !value.getattr("tzinfo")?.is_none();
    if !is_known {
        return Err(PyTypeError::new_err(format!(
            "argument '{name}': expected a datetime.datetime with a time zone, got {}",
            value.repr()?
        )));
    }
    let utc = value
        .py()
        .import("datetime")?
        .getattr("timezone")?
        .getattr("utc")?;
    value
        .call_method1("astimezone", (utc,))?
        .extract()
        .map(Some)
}

/// Returns for how long ended runs are kept.
pub(super) fn retention(
    days: Option<i64>,
    failed_days: Option<i64>,
) -> Result<Option<Retention>, Error> {
    let read = |name: &str, days: Option<i64>| {
        let read = days.map(|days| {
            u32::try_from(days).map_err(|_| {
                let detail = format!("is {days}, expected days from 0");
                Error::invalid_request(format!("/{name}"), detail)
            })
        });
        read.transpose()
    };
    let failed_days = read("retention_failed_days", failed_days)?;
    match (read("retention_days", days)?, failed_days) {
        (Some(days), Some(failed)) => Ok(Some(Retention::days(days).with_failed_days(failed))),
        (Some(days), None) => Ok(Some(Retention::days(days))),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let detail = "needs retention_days, for the runs that did not fail";
            Err(Error::invalid_request("/retention_failed_days", detail))
        }
    }
}

/// Returns how many there may be of something.
pub(super) fn count(name: &str, value: Option<i64>, min: usize) -> Result<Option<usize>, Error> {
    let Some(value) = value else { return Ok(None) };
    let count = usize::try_from(value).ok().filter(|count| *count >= min);
    count.map(Some).ok_or_else(|| {
        let detail = format!("is {value}, expected at least {min}");
        Error::invalid_request(format!("/{name}"), detail)
    })
}

pub(super) fn grace(seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let detail = format!("is {seconds}, expected seconds from 0");
        Error::invalid_request("/grace", detail)
    })
}

/// Returns the secrets. No message shows a value.
pub(super) fn secrets(values: Option<HashMap<String, String>>) -> Result<Secrets, Error> {
    let mut secrets = Secrets::new();
    for (name, value) in values.unwrap_or_default() {
        if !is_secret_name(&name) {
            let detail =
                format!("has the name {name:?}, expected letters, digits and _, at most 64");
            return Err(Error::invalid_request("/secrets", detail));
        }
        secrets = secrets.with(&name, Secret::new(value));
    }
    Ok(secrets)
}

/// Raises what is wrong with an argument.
pub(super) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, Error> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| errors::exception(py, &error))
    }
}
