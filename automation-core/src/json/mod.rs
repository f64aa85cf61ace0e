//! The one strict JSON profile (rule O7) for everything that enters and leaves.
//!
//! Three programs read what passes here: ours, the script's Python, and a database. They disagree about
//! duplicate keys, NaN, large integers, U+0000, lone surrogates and deep nesting, so none of these gets in.
//! Knows nothing of scripts, parameters or output: only of documents.

mod check;
mod error;
mod reader;
pub(crate) mod token;

use serde_json::{Map, Value};

pub use self::check::{check, check_object};
pub use self::error::{JsonError, JsonErrorKind};
use self::reader::Reader;
use crate::error::Problem;

/// Reads a document.
///
/// `1.0` stays a float and counts as an integer where a JSON Schema asks for one; `-0` is `0`. A float is the
/// nearest one to what was written; the order of keys is not kept.
///
/// # Errors
/// [`JsonError`] with the first breach of the profile and where it is.
///
/// # Examples
/// ```
/// use automation_core::json;
///
/// assert_eq!(json::read(b" [1, 2.5, null] ")?, serde_json::json!([1, 2.5, null]));
///
/// let error = json::read(br#"{"a": 1, "a": 2}"#).unwrap_err();
/// assert_eq!(error.to_string(), r#"duplicate key "a" at byte 9"#);
/// # Ok::<(), json::JsonError>(())
/// ```
pub fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    Reader::new(bytes)?.document()
}

/// Reads a document that has to be an object.
///
/// # Errors
/// [`JsonError`] with the first breach of the profile, or [`JsonErrorKind::NotAnObject`].
pub fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match read(bytes)? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError {
            kind: JsonErrorKind::NotAnObject,
            offset: token::skip_blanks(bytes, 0),
        }),
    }
}

/// Reads the body of a request, which is an object.
///
/// # Errors
/// A [`Problem`] of the whole body, fit to be shown to whoever sent it.
///
/// # Examples
/// ```
/// use automation_core::json;
///
/// let problem = json::read_request(br#"{"parameters": {"n": 1e999}}"#).unwrap_err();
/// assert_eq!(problem.to_string(), "number too large at byte 21");
/// ```
pub fn read_request(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    read_object(body).map_err(Problem::from)
}

#[cfg(test)]
pub(crate) mod tests;
