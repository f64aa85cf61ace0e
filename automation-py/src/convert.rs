//! JSON to Python and back: the only place of this crate that converts values.

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
    let mut path = Vec::new();
    let value = read(value, &mut path).map_err(|detail| {
        let pointer: String = path
            .iter()
            .map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")))
            .collect();
        Problem::new(pointer, detail)
    })?;
    automation_core::json::check(&value)?;
    Ok(value)
}

/// Reads a value; on a problem `path` leads to it.
fn read(value: &Bound<'_, PyAny>, path: &mut Vec<String>) -> Result<Value, String> {
    if path.len() > limits::JSON_DEPTH_MAX {
        path.clear();
        return Err(format!(
            "nested deeper than {} levels",
            limits::JSON_DEPTH_MAX
        ));
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    // Before `int`, of which `bool` is a subclass.
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(Value::Bool(value.is_true()));
    }
    if let Ok(value) = value.cast::<PyString>() {
        return text(value).map(Value::String);
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
        return object(dict, path);
    }
    if let Ok(list) = value.cast::<PyList>() {
        return array(list.iter(), path);
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return array(tuple.iter(), path);
    }
    Err(format!("type {}, which JSON does not have", kind(value)))
}

fn array<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    path: &mut Vec<String>,
) -> Result<Value, String> {
    let mut array = Vec::new();
    for (index, item) in items.enumerate() {
        if index >= limits::JSON_NODES_MAX {
            return Err(format!("more than {} items", limits::JSON_NODES_MAX));
        }
        path.push(index.to_string());
        array.push(read(&item, path)?);
        path.pop();
    }
    Ok(Value::Array(array))
}

fn object(dict: &Bound<'_, PyDict>, path: &mut Vec<String>) -> Result<Value, String> {
    let mut object = Map::new();
    for (key, value) in dict.iter() {
        let Ok(key) = key.cast::<PyString>() else {
            return Err(format!("a key of type {}, expected str", kind(&key)));
        };
        let key = text(key)?;
        path.push(key.clone());
        object.insert(key, read(&value, path)?);
        path.pop();
    }
    Ok(Value::Object(object))
}

fn text(text: &Bound<'_, PyString>) -> Result<String, String> {
    match text.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err("lone surrogate".to_owned()),
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
