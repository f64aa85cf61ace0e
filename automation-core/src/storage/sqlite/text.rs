//! How times and ids are written into the database, without allocation.

use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};
use uuid::Uuid;

use crate::execution::{self, ExecutionId};
use crate::storage::held;

/// A text of fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text<const LENGTH: usize>([u8; LENGTH]);

impl<const LENGTH: usize> ToSql for Text<LENGTH> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

impl<const LENGTH: usize> From<Text<LENGTH>> for Value {
    fn from(text: Text<LENGTH>) -> Self {
        Self::Text(text.0.iter().copied().map(char::from).collect())
    }
}

/// Writes a time as `2026-01-01T12:00:00.000000Z`: all of one length, so that they sort as times do.
pub(super) fn time(at: DateTime<Utc>) -> Text<27> {
    let at = held::time(at).naive_utc();
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    write_date(&mut text, at.date());
    digits(&mut text[11..13], at.hour());
    digits(&mut text[14..16], at.minute());
    digits(&mut text[17..19], at.second());
    digits(&mut text[20..26], at.nanosecond() / 1000);
    Text(text)
}

/// Writes a day as `2026-01-01`.
pub(super) fn day(day: NaiveDate) -> Text<10> {
    let mut text = *b"0000-00-00";
    write_date(&mut text, day);
    Text(text)
}

/// Writes an id with hyphens.
pub(super) fn id(id: ExecutionId) -> Text<36> {
    uuid(id.as_uuid())
}

/// Writes a UUID with hyphens.
pub(super) fn uuid(id: &Uuid) -> Text<36> {
    let mut text = [0; 36];
    id.hyphenated().encode_lower(&mut text);
    Text(text)
}

fn write_date(text: &mut [u8], day: NaiveDate) {
    digits(&mut text[0..4], day.year().clamp(0, 9999).unsigned_abs());
    digits(&mut text[5..7], day.month());
    digits(&mut text[8..10], day.day());
}

fn digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A time that comes from the database.
pub(super) struct Time(pub(super) DateTime<Utc>);

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        DateTime::parse_from_rfc3339(value.as_str()?)
            .map(|at| Self(at.to_utc()))
            .map_err(FromSqlError::other)
    }
}

/// An id that comes from the database.
pub(super) struct Id(pub(super) ExecutionId);

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Uuid::try_parse(value.as_str()?)
            .map(|id| Self(ExecutionId::from_uuid(id)))
            .map_err(FromSqlError::other)
    }
}

/// A JSON document that comes from the database.
pub(super) struct Json(pub(super) serde_json::Value);

impl FromSql for Json {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(Self)
            .map_err(FromSqlError::other)
    }
}

/// Writes a JSON document; `to_string` of the value itself takes twice as long.
pub(super) fn json(value: &serde_json::Value) -> String {
    serde_json::to_string(value).expect("a JSON value has only texts as keys")
}

/// Writes what a run was asked with as JSON.
pub(super) fn context(context: &execution::Context) -> String {
    serde_json::to_string(context).expect("a context is JSON values under fixed names")
}

/// What a run was asked with, as it comes from the database.
pub(super) struct Context(pub(super) Arc<execution::Context>);

impl FromSql for Context {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(|context| Self(Arc::new(context)))
            .map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat};
    use proptest::prelude::*;

    use super::{day, time};
    use crate::storage::held;

    proptest! {
        #[test]
        fn times_are_written_as_chrono_writes_them(us in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            let at = DateTime::from_timestamp_micros(us).unwrap();
            let text = time(at);
            let expected = at.to_rfc3339_opts(SecondsFormat::Micros, true);
            prop_assert_eq!(std::str::from_utf8(&text.0).unwrap(), &expected);
            let (text, expected) = (day(at.date_naive()), at.date_naive().to_string());
            prop_assert_eq!(std::str::from_utf8(&text.0).unwrap(), &expected);
        }

        #[test]
        fn texts_sort_as_times_do(a: i64, b: i64) {
            let (a, b) = (DateTime::from_timestamp_nanos(a), DateTime::from_timestamp_nanos(b));
            prop_assert_eq!(time(a).0.cmp(&time(b).0), held::time(a).cmp(&held::time(b)));
        }
    }
}
