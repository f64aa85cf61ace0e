//! How texts, JSON and numbers are written into the database and read from it.

use std::borrow::Cow;
use std::error::Error;

use bytes::{BufMut, BytesMut};
use serde_json::{Number, Value};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::execution::Context;
use crate::limits::JSON_INTEGER_MAX;
use crate::storage::held;

/// Returns a text as the database can hold it: it has no character U+0000, in whose place U+FFFD is kept.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Returns a number as the database has them; numbers are held below 2^53.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(held::number(n)).unwrap_or(i64::MAX)
}

/// Returns a number for an INTEGER column, the largest one where it is larger.
pub(super) fn small(n: u64) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A JSON document of a JSONB column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Json(pub(super) Value);

impl Json {
    /// Takes what a run was asked with as the database can hold it.
    pub(super) fn of(context: &Context) -> Self {
        let context = serde_json::to_value(context);
        Self::new(&context.expect("a context is JSON values under fixed names"))
    }

    /// Takes a document as the database can hold it.
    pub(super) fn new(value: &Value) -> Self {
        let mut value = value.clone();
        without_nul(&mut value);
        Self(value)
    }
}

fn without_nul(value: &mut Value) {
    match value {
        Value::String(string) => {
            if let Cow::Owned(clean) = text(string) {
                *string = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(fields) => {
            if fields.keys().any(|key| key.contains('\0')) {
                let old = std::mem::take(fields);
                fields.extend(
                    old.into_iter()
                        .map(|(key, value)| (text(&key).into_owned(), value)),
                );
            }
            fields.values_mut().for_each(without_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The database writes out every digit of a number. No integer of ours has so many, so it was a fraction.
fn with_fractions(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let is_large = number
                .as_i64()
                .map_or(number.is_u64(), |n| n.unsigned_abs() > MAX);
            if is_large && let Some(fraction) = number.as_f64().and_then(Number::from_f64) {
                *number = fraction;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(with_fractions),
        Value::Object(fields) => fields.values_mut().for_each(with_fractions),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

const MAX: u64 = JSON_INTEGER_MAX.unsigned_abs();

/// The version of the binary form of JSONB, its first byte.
const JSONB_VERSION: u8 = 1;

impl ToSql for Json {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u8(JSONB_VERSION);
        serde_json::to_writer(out.writer(), &self.0)?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let (version, text) = raw.split_first().ok_or("a JSONB value has no bytes")?;
        if *version != JSONB_VERSION {
            return Err(format!("unknown JSONB version {version}").into());
        }
        let mut value = serde_json::from_slice(text)?;
        with_fractions(&mut value);
        Ok(Self(value))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokio_postgres::types::{FromSql, ToSql, Type};

    use super::{Json, text};

    fn round_trip(value: &Value) -> Value {
        let mut out = BytesMut::new();
        Json::new(value).to_sql(&Type::JSONB, &mut out).unwrap();
        Json::from_sql(&Type::JSONB, &out).unwrap().0
    }

    #[test]
    fn a_nul_becomes_the_replacement_character_everywhere() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        let given = json!({"k\0": ["\0", {"x": "\\u0000"}], "n": null});
        let kept = json!({"k\u{fffd}": ["\u{fffd}", {"x": "\\u0000"}], "n": null});
        assert_eq!(round_trip(&given), kept);
    }

    #[test]
    fn an_integer_that_none_of_ours_is_was_a_fraction() {
        let raw = b"\x01[10000000000000000, 9007199254740991, -9007199254740992, 1.0]";
        let read = Json::from_sql(&Type::JSONB, raw).unwrap().0;
        let expected = json!([
            1e16,
            9_007_199_254_740_991_i64,
            -9_007_199_254_740_992.0,
            1.0
        ]);
        assert_eq!(read, expected);
    }

    proptest! {
        #[test]
        fn strings_and_integers_come_back(string in "[^\0]*", n in -(1_i64 << 53) + 1..1 << 53) {
            let given = json!({"text": string, "n": n});
            prop_assert_eq!(round_trip(&given), given);
        }
    }
}
