//! Objects as dictionaries that `json.dumps` takes: one rule for every class of the module.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

/// Returns an object's attributes `names` as a dictionary: times as ISO 8601 texts, objects of ours as
/// dictionaries, tuples as lists.
pub(super) fn to_dict<'py>(
    object: &Bound<'py, PyAny>,
    names: &[&str],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(object.py());
    for name in names {
        dict.set_item(name, plain(object.getattr(*name)?)?)?;
    }
    Ok(dict)
}

fn plain(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = value.py();
    if value.is_none() {
        return Ok(value);
    }
    if let Ok(items) = value.cast::<PyTuple>() {
        let items: Vec<_> = items.iter().map(plain).collect::<PyResult<_>>()?;
        return Ok(PyList::new(py, items)?.into_any());
    }
    if let Ok(items) = value.cast::<PyDict>() {
        let dict = PyDict::new(py);
        for (key, item) in items {
            dict.set_item(key, plain(item)?)?;
        }
        return Ok(dict.into_any());
    }
    for method in [intern!(py, "to_dict"), intern!(py, "isoformat")] {
        if value.hasattr(method)? {
            return value.call_method0(method);
        }
    }
    Ok(value)
}

/// Returns an object's attributes `names` as Python code would create it.
pub(super) fn repr(object: &Bound<'_, PyAny>, names: &[&str]) -> PyResult<String> {
    let shown = |name: &&str| Ok(format!("{name}={}", object.getattr(*name)?.repr()?));
    let fields: Vec<_> = names.iter().map(shown).collect::<PyResult<_>>()?;
    Ok(format!(
        "{}({})",
        object.get_type().name()?,
        fields.join(", ")
    ))
}

/// Returns microseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^52 microseconds are 142 years"
)]
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}
