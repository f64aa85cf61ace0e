//! The strict reader: bytes to a value. Recursion is bounded by the depth limit.

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::error::{JsonError, JsonErrorKind};
use super::token::{self, Quoted, Scalar};
use crate::limits;

type Result<T> = std::result::Result<T, JsonError>;

/// Reads one document.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    nodes: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > limits::JSON_BYTES_MAX {
            return fail(JsonErrorKind::TooLong, limits::JSON_BYTES_MAX);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
            kind: JsonErrorKind::InvalidUtf8,
            offset: error.valid_up_to(),
        })?;
        Ok(Self {
            text,
            at: 0,
            nodes: 0,
        })
    }

    pub(super) fn document(mut self) -> Result<Value> {
        self.skip_blanks();
        let value = self.value(0)?;
        self.skip_blanks();
        if self.at < self.text.len() {
            return fail(JsonErrorKind::TrailingText, self.at);
        }
        Ok(value)
    }

    /// Reads a value that `depth` containers enclose.
    fn value(&mut self, depth: usize) -> Result<Value> {
        self.count_node()?;
        match self.peek() {
            Some(b'{') => self.object(depth + 1).map(Value::Object),
            Some(b'[') => self.array(depth + 1).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Map<String, Value>> {
        self.enter(depth)?;
        let mut object = Map::new();
        if self.take(b'}') {
            return Ok(object);
        }
        loop {
            let key_at = self.at;
            match object.entry(self.key()?) {
                Entry::Occupied(entry) => {
                    return fail(JsonErrorKind::duplicate(entry.key()), key_at);
                }
                Entry::Vacant(entry) => {
                    entry.insert(self.value(depth)?);
                }
            }
            if !self.another(b'}', "a comma or }")? {
                return Ok(object);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>> {
        self.enter(depth)?;
        let mut array = Vec::new();
        if self.take(b']') {
            return Ok(array);
        }
        loop {
            array.push(self.value(depth)?);
            if !self.another(b']', "a comma or ]")? {
                return Ok(array);
            }
        }
    }

    /// Passes the bracket that opens a container, and what is blank behind it.
    fn enter(&mut self, depth: usize) -> Result<()> {
        if depth > limits::JSON_DEPTH_MAX {
            return fail(JsonErrorKind::TooDeep, self.at);
        }
        self.at += 1;
        self.skip_blanks();
        Ok(())
    }

    /// Passes a comma and returns `true`, or passes `close` and returns `false`.
    fn another(&mut self, close: u8, expected: &'static str) -> Result<bool> {
        self.skip_blanks();
        if self.take(close) {
            return Ok(false);
        }
        if !self.take(b',') {
            return self.unexpected(self.at, expected);
        }
        self.skip_blanks();
        Ok(true)
    }

    /// Reads a key and passes its colon.
    fn key(&mut self) -> Result<String> {
        if self.peek() != Some(b'"') {
            return self.unexpected(self.at, "a key in double quotes");
        }
        self.count_node()?;
        let key = self.string()?;
        self.skip_blanks();
        if !self.take(b':') {
            return self.unexpected(self.at, "a colon");
        }
        self.skip_blanks();
        Ok(key)
    }

    fn string(&mut self) -> Result<String> {
        match token::string(self.text.as_bytes(), self.at) {
            Ok(Quoted { inner, escaped }) => {
                self.at = inner.end + 1;
                let raw = &self.text[inner.clone()];
                if escaped {
                    unescape(raw).map_err(|error| error.within(inner.start))
                } else {
                    Ok(raw.to_owned())
                }
            }
            Err(at) => match self.text.as_bytes().get(at) {
                Some(0) => fail(JsonErrorKind::NulCharacter, at),
                Some(..b' ') => self.unexpected(at, "control characters to be escaped"),
                _ => self.unexpected(at, "a valid escape"),
            },
        }
    }

    fn scalar(&mut self) -> Result<Value> {
        let start = self.at;
        match token::scalar(self.text.as_bytes(), start) {
            Ok((scalar, end)) => {
                self.at = end;
                scalar_value(scalar, &self.text[start..end]).or_else(|kind| fail(kind, start))
            }
            Err(at) => self.unexpected(at, "a value"),
        }
    }

    fn count_node(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > limits::JSON_NODES_MAX {
            return fail(JsonErrorKind::TooManyNodes, self.at);
        }
        Ok(())
    }

    fn unexpected<T>(&self, at: usize, expected: &'static str) -> Result<T> {
        if at >= self.text.len() {
            return fail(JsonErrorKind::Incomplete, self.text.len());
        }
        fail(JsonErrorKind::Syntax { expected }, at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn skip_blanks(&mut self) {
        self.at = token::skip_blanks(self.text.as_bytes(), self.at);
    }
}

fn fail<T>(kind: JsonErrorKind, offset: usize) -> Result<T> {
    Err(JsonError { kind, offset })
}

fn scalar_value(scalar: Scalar, text: &str) -> std::result::Result<Value, JsonErrorKind> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::True => Value::Bool(true),
        Scalar::False => Value::Bool(false),
        Scalar::NotFinite => return Err(JsonErrorKind::NotFinite),
        Scalar::Integer => {
            let max = limits::JSON_INTEGER_MAX;
            let integer = text.parse().ok().filter(|n| (-max..=max).contains(n));
            Value::from(integer.ok_or(JsonErrorKind::IntegerOverflow)?)
        }
        Scalar::Float => {
            let float = text.parse().ok().filter(|n: &f64| n.is_finite());
            Value::from(float.ok_or(JsonErrorKind::NumberOverflow)?)
        }
    })
}

/// Resolves the escapes of a string that the grammar has accepted; offsets count from its start.
fn unescape(raw: &str) -> Result<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(backslash) = rest.find('\\') {
        text.push_str(&rest[..backslash]);
        let offset = raw.len() - rest.len() + backslash;
        let (character, length) = escaped(&rest[backslash..]).or_else(|kind| fail(kind, offset))?;
        text.push(character);
        rest = &rest[backslash + length..];
    }
    text.push_str(rest);
    Ok(text)
}

/// Returns the character of the escape at the start of `text`, and the escape's length.
fn escaped(text: &str) -> std::result::Result<(char, usize), JsonErrorKind> {
    let simple = match text.as_bytes()[1] {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(text),
        other => char::from(other),
    };
    Ok((simple, 2))
}

fn unicode_escape(text: &str) -> std::result::Result<(char, usize), JsonErrorKind> {
    let unit = code_unit(text).ok_or(JsonErrorKind::LoneSurrogate)?;
    let (code, length) = match unit {
        0 => return Err(JsonErrorKind::NulCharacter),
        0xd800..0xdc00 => {
            let low = text.get(6..).and_then(code_unit);
            let low = low.filter(|low| (0xdc00..0xe000).contains(low));
            let low = low.ok_or(JsonErrorKind::LoneSurrogate)?;
            (0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00), 12)
        }
        _ => (unit, 6),
    };
    let character = char::from_u32(code).ok_or(JsonErrorKind::LoneSurrogate)?;
    Ok((character, length))
}

/// Returns the number of the `\uXXXX` at the start of `text`, if one is there.
fn code_unit(text: &str) -> Option<u32> {
    let hex = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(hex, 16).ok()
}
