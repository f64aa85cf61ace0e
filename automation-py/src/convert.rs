//! JSON to Python and back: the only place of this crate that converts values.

use automation_core::json::JsonErrorKind;
use automation_core::{Problem, limits};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Returns a JSON value as what `json.loads` would make of it.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Null => Ok(py.None().into_bound(py)),
        Value::Bool(value) => value.into_bound_py_any(py),
        Value::Number(number) => number_to_python(py, number),
        Value::String(text) => text.into_bound_py_any(py),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            Ok(list.into_any())
        }
        Value::Object(object) => Ok(object_to_python(py, object)?.into_any()),
    }
}

/// Returns a JSON object as a dictionary.
pub(crate) fn object_to_python<'py>(
    py: Python<'py>,
    object: &Map<String, Value>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in object {
        dict.set_item(key, to_python(py, value)?)?;
    }
    Ok(dict)
}

fn number_to_python<'py>(py: Python<'py>, number: &Number) -> PyResult<Bound<'py, PyAny>> {
    if let Some(integer) = number.as_i64() {
        integer.into_bound_py_any(py)
    } else if let Some(integer) = number.as_u64() {
        integer.into_bound_py_any(py)
    } else {
        number.as_f64().into_bound_py_any(py)
    }
}

/// Returns a Python value as JSON. Only what means the same in both is taken: `None`, `bool`, `int`, `float`,
/// `str`, `list`, `tuple` and `dict` with keys that are `str`, within the limits of rule O7.
///
/// # Errors
/// Where and why; it holds no value.
pub(crate) fn to_json(value: &Bound<'_, PyAny>) -> Result<Value, Problem> {
    let mut reader = Reader::default();
    let value = reader.value(value).map_err(|detail| {
        let steps = reader.path.iter();
        let pointer: String = steps
            .map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")))
            .collect();
        Problem::new(pointer, detail)
    })?;
    automation_core::json::check(&value)?;
    Ok(value)
}

/// Reads a value. Stops at the limits, since a small object may hold another one many times over.
#[derive(Default)]
struct Reader {
    /// Leads to the problem, once there is one.
    path: Vec<String>,
    /// Values and keys so far.
    nodes: usize,
    /// Least length of what is read so far, written as JSON.
    bytes: usize,
}

impl Reader {
    fn value(&mut self, value: &Bound<'_, PyAny>) -> Result<Value, String> {
        if self.path.len() > limits::JSON_DEPTH_MAX {
            self.path.clear();
            return Err(format!(
                "nested deeper than {} levels",
                limits::JSON_DEPTH_MAX
            ));
        }
        self.count_node()?;
        if value.is_none() {
            return Ok(Value::Null);
        }
        // Before `int`, of which `bool` is a subclass.
        if let Ok(value) = value.cast::<PyBool>() {
            return Ok(Value::Bool(value.is_true()));
        }
        if let Ok(value) = value.cast::<PyString>() {
            return self.text(value).map(Value::String);
        }
        if value.is_instance_of::<PyInt>() {
            return integer(value);
        }
        if let Ok(value) = value.cast::<PyFloat>() {
            let number = Number::from_f64(value.value());
            return number
                .map(Value::Number)
                .ok_or_else(|| "NaN or Infinity (not JSON)".to_owned());
        }
        if let Ok(dict) = value.cast::<PyDict>() {
            return self.object(dict);
        }
        if let Ok(list) = value.cast::<PyList>() {
            return self.array(list.iter());
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            return self.array(tuple.iter());
        }
        Err(format!("type {}, which JSON does not have", kind(value)))
    }

    fn array<'py>(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> Result<Value, String> {
        let mut array = Vec::new();
        for (index, item) in items.enumerate() {
            self.path.push(index.to_string());
            array.push(self.value(&item)?);
            self.path.pop();
        }
        Ok(Value::Array(array))
    }

    fn object(&mut self, dict: &Bound<'_, PyDict>) -> Result<Value, String> {
        let mut object = Map::new();
        for (key, value) in dict.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(format!("a key of type {}, expected str", kind(&key)));
            };
            self.count_node()?;
            let key = self.text(key)?;
            self.path.push(key.clone());
            object.insert(key, self.value(&value)?);
            self.path.pop();
        }
        Ok(Value::Object(object))
    }

    fn text(&mut self, value: &Bound<'_, PyString>) -> Result<String, String> {
        let text = value.to_str().map_err(|_| "lone surrogate".to_owned())?;
        self.count_bytes(text.len())?;
        Ok(text.to_owned())
    }

    /// Counts a value or key, which is a byte at least.
    fn count_node(&mut self) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > limits::JSON_NODES_MAX {
            self.path.clear();
            return Err(JsonErrorKind::TooManyNodes.to_string());
        }
        self.count_bytes(1)
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes;
        if self.bytes > limits::JSON_BYTES_MAX {
            self.path.clear();
            return Err(JsonErrorKind::TooLong.to_string());
        }
        Ok(())
    }
}

fn integer(value: &Bound<'_, PyAny>) -> Result<Value, String> {
    match value.extract::<i64>() {
        Ok(integer) if integer.unsigned_abs() <= limits::JSON_INTEGER_MAX.unsigned_abs() => {
            Ok(integer.into())
        }
        _ => Err(format!(
            "integer beyond ±{} (send it as a string)",
            limits::JSON_INTEGER_MAX
        )),
    }
}

fn kind(value: &Bound<'_, PyAny>) -> String {
    value
        .get_type()
        .fully_qualified_name()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
