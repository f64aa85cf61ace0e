//! The host's own streams and hooks, where what is in a module's dictionary dispatches: as the host's threads see
//! and set them.

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::layers::Layers;
use super::objects::{SLOTS, Slot};

static HOST: [Mutex<Layers>; SLOTS] = [const { Mutex::new(Layers::new()) }; SLOTS];

/// Returns the host's value; `None` (Python's) when it has none.
pub(super) fn host_value(py: Python<'_>, slot: Slot) -> Bound<'_, PyAny> {
    let layers = HOST[slot as usize].lock();
    let value = layers.top().map(|value| value.clone_ref(py));
    value.unwrap_or_else(|| py.None()).into_bound(py)
}

/// Sets the host's value.
pub(super) fn set_host_value(slot: Slot, value: Py<PyAny>) {
    let gone = HOST[slot as usize].lock().set(value);
    drop(gone);
}

/// Goes back to the value that the host had before; its first one stays.
pub(super) fn restore_host_value(slot: Slot) {
    let mut layers = HOST[slot as usize].lock();
    let gone = if layers.len() > 1 {
        layers.restore()
    } else {
        None
    };
    drop(layers);
    drop(gone);
}
