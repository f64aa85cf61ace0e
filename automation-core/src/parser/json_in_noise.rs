//! The rules by which a run's output becomes a result. Knows nothing of how candidates are found in a text, nor of
//! how documents are read.

use std::ops::Range;

use serde_json::{Map, Value};

use super::documents::{Documents, Trust, documents, is_one_value};
use super::progress::without_control_lines;
use super::{Found, OutputParser, ParsedOutput};
use crate::error::Problem;
use crate::executor::{CapturedText, RawOutput};
use crate::json::{self, JsonError, JsonErrorKind};

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Finds the result in a run's output (rules O3 to O7, O9 to O11).
///
/// In this order: the value that the script's function returned; the whole of standard output, if it is one JSON
/// value; the last JSON object in it that stands on lines of its own. A candidate that breaks the JSON profile is
/// rejected and never replaced by another.
///
/// # Examples
/// ```
/// use automation_core::OutputParser;
/// use automation_core::executor::{CapturedText, RawOutput};
/// use automation_core::parser::{Found, JsonInNoise};
///
/// let mut output = RawOutput::default();
/// output.stdout = CapturedText::new("[INFO] cleaning\n{\"freed_gb\": 2}\nbye {ok}\n");
/// let parsed = JsonInNoise.parse(&output);
/// assert_eq!(parsed.found, Found::Embedded);
/// assert_eq!(parsed.value.unwrap()["freed_gb"], 2);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonInNoise;

impl OutputParser for JsonInNoise {
    fn parse(&self, output: &RawOutput) -> ParsedOutput {
        if let Some(value) = &output.returned {
            return returned(value.clone());
        }
        let stdout = &output.stdout;
        let bytes = without_control_lines(&stdout.text);
        let trust = if output.interrupted || stdout.is_truncated() {
            Trust::Torn
        } else {
            Trust::Whole
        };
        if !stdout.is_truncated() && is_bare_value(&bytes, trust) {
            let value = read(&bytes, 0..bytes.len(), stdout);
            return ParsedOutput::new(value, Found::Exact, 1);
        }
        object(&bytes, stdout, trust)
    }
}

/// O3: what the function returned.
fn returned(value: Value) -> ParsedOutput {
    ParsedOutput::new(wrap(value), Found::Returned, 0)
}

/// O3 for objects, O4, O5: the last object; when it is the only text there is, it is the whole of standard output.
fn object(bytes: &[u8], stdout: &CapturedText, trust: Trust) -> ParsedOutput {
    let from = stdout.gap.as_ref().map_or(0, |gap| gap.end);
    let Documents { last, seen } = documents(bytes, from, trust);
    let Some(range) = last else {
        return ParsedOutput::default();
    };
    let around = [&bytes[..range.start], &bytes[range.end..]];
    let found = if around.iter().all(|text| text.trim_ascii().is_empty()) {
        Found::Exact
    } else {
        Found::Embedded
    };
    ParsedOutput::new(read(bytes, range, stdout), found, seen)
}

impl ParsedOutput {
    fn new(
        value: Result<Map<String, Value>, Problem>,
        found: Found,
        documents_seen: usize,
    ) -> Self {
        let (value, found) = match value {
            Ok(value) => (Some(value), found),
            Err(problem) => (None, Found::Rejected(problem)),
        };
        Self {
            value,
            found,
            documents_seen,
        }
    }
}

/// O3 for values that are no objects: returns whether the whole text is one. In a torn text only what shows its own
/// end can be (O10): `4` may be the beginning of `40`.
fn is_bare_value(bytes: &[u8], trust: Trust) -> bool {
    match bytes.trim_ascii_start().first() {
        None | Some(b'{') => false,
        Some(b'[') => is_one_value(bytes),
        Some(_) => trust == Trust::Whole && is_one_value(bytes),
    }
}

/// Reads the document at `range` as an object; errors count offsets from the text's start.
fn read(
    bytes: &[u8],
    range: Range<usize>,
    stdout: &CapturedText,
) -> Result<Map<String, Value>, Problem> {
    let start = range.start;
    let document = &bytes[range];
    // U+FFFD may stand for bytes that are lost: what was written is not known, so it is not a result.
    if stdout.invalid_utf8
        && let Some(offset) = replacement(document)
    {
        let kind = JsonErrorKind::InvalidUtf8;
        return Err(JsonError { kind, offset }.within(start).into());
    }
    match json::read(document).map_err(|error| error.within(start))? {
        Value::Object(object) => Ok(object),
        other => wrap(other),
    }
}

fn replacement(document: &[u8]) -> Option<usize> {
    document
        .windows(REPLACEMENT.len())
        .position(|window| window == REPLACEMENT)
}

/// Makes an object of any value, `{"value": ...}` of one that is none (O3), and checks it: the wrapping adds a level.
fn wrap(value: Value) -> Result<Map<String, Value>, Problem> {
    let object = match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    json::check_object(&object)?;
    Ok(object)
}
