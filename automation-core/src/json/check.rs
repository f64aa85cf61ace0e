//! The profile for values that did not come as bytes: from Python, from a caller of the library.

use std::io;

use serde_json::{Map, Number, Value};

use super::error::JsonErrorKind;
use crate::error::Problem;
use crate::limits;

/// Checks a value against the profile that [`read`](super::read) enforces; whatever passes can be written and
/// read back.
///
/// # Errors
/// A [`Problem`] with the JSON pointer of the first breach.
///
/// # Examples
/// ```
/// use automation_core::json;
/// use serde_json::json;
///
/// assert!(json::check(&json!({"users": ["ana"]})).is_ok());
///
/// let problem = json::check(&json!({"users": ["ana", "a\0"]})).unwrap_err();
/// assert_eq!(problem.to_string(), "/users/1: character U+0000");
/// ```
pub fn check(value: &Value) -> Result<(), Problem> {
    Checker::default().value(value, 0).map_err(Breach::report)?;
    check_length(value)
}

/// Checks an object as [`check`] does.
///
/// # Errors
/// A [`Problem`] with the JSON pointer of the first breach.
pub fn check_object(object: &Map<String, Value>) -> Result<(), Problem> {
    let mut checker = Checker { nodes: 1 };
    checker.object(object, 1).map_err(Breach::report)?;
    check_length(object)
}

/// A breach, and the way to it from the inside out.
struct Breach {
    kind: JsonErrorKind,
    path: Vec<String>,
}

impl Breach {
    const fn new(kind: JsonErrorKind) -> Self {
        Self {
            kind,
            path: Vec::new(),
        }
    }

    fn inside(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }

    fn report(self) -> Problem {
        let steps = self.path.iter().rev();
        let pointer: String = steps
            .map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")))
            .collect();
        Problem::new(pointer, self.kind.to_string())
    }
}

#[derive(Default)]
struct Checker {
    nodes: usize,
}

impl Checker {
    /// Checks a value that `depth` containers enclose.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Breach> {
        self.count_node()?;
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) => check_number(number),
            Value::String(text) => check_text(text),
            Value::Array(array) => self.array(array, depth + 1),
            Value::Object(object) => self.object(object, depth + 1),
        }
    }

    fn array(&mut self, array: &[Value], depth: usize) -> Result<(), Breach> {
        check_depth(depth)?;
        for (index, value) in array.iter().enumerate() {
            self.value(value, depth)
                .map_err(|breach| breach.inside(index.to_string()))?;
        }
        Ok(())
    }

    fn object(&mut self, object: &Map<String, Value>, depth: usize) -> Result<(), Breach> {
        check_depth(depth)?;
        for (key, value) in object {
            self.count_node()
                .and_then(|()| check_text(key))
                .and_then(|()| self.value(value, depth))
                .map_err(|breach| breach.inside(key.clone()))?;
        }
        Ok(())
    }

    const fn count_node(&mut self) -> Result<(), Breach> {
        self.nodes += 1;
        if self.nodes > limits::JSON_NODES_MAX {
            return Err(Breach::new(JsonErrorKind::TooManyNodes));
        }
        Ok(())
    }
}

const fn check_depth(depth: usize) -> Result<(), Breach> {
    if depth > limits::JSON_DEPTH_MAX {
        return Err(Breach::new(JsonErrorKind::TooDeep));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Breach> {
    if text.contains('\0') {
        return Err(Breach::new(JsonErrorKind::NulCharacter));
    }
    Ok(())
}

/// A float in a [`Number`] is finite already, unless a feature of `serde_json` that we don't enable is on.
fn check_number(number: &Number) -> Result<(), Breach> {
    let max = limits::JSON_INTEGER_MAX;
    let ok = if number.is_f64() {
        number.as_f64().is_some_and(f64::is_finite)
    } else {
        number.as_i64().is_some_and(|n| (-max..=max).contains(&n))
    };
    if ok {
        Ok(())
    } else {
        Err(Breach::new(JsonErrorKind::IntegerOverflow))
    }
}

fn check_length(value: &impl serde::Serialize) -> Result<(), Problem> {
    let mut room = Room(limits::JSON_BYTES_MAX);
    serde_json::to_writer(&mut room, value)
        .map_err(|_| Breach::new(JsonErrorKind::TooLong).report())
}

/// Counts what is written, and fails when there is too much of it.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
