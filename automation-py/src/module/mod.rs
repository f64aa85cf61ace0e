//! The Python module: the verbs of the handle, what they answer and what they raise.
//!
//! Importing it changes nothing; a handle does, when it is made. Knows nothing of how scripts run.

mod arguments;
mod automation;
mod door;
mod errors;
mod execution;
mod fields;
mod fork;
mod interruption;
mod page;
mod quarantine;
mod runtime;
mod script;
mod stats;
mod stopped;
mod url;

use pyo3::prelude::*;

pub(crate) use self::interruption::RunInterrupted;
use crate::run::module_attribute;

/// The native module `automation._automation`. The GIL keeps runs apart, so it must not be given up.
#[pymodule(gil_used = true)]
pub(crate) fn _automation(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RunInterrupted", module.py().get_type::<RunInterrupted>())?;
    module.add_function(wrap_pyfunction!(module_attribute, module)?)?;
    register(module)
}

/// Adds the classes and exceptions of the front door.
fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<automation::Automation>()?;
    module.add_class::<execution::Execution>()?;
    module.add_class::<execution::Failure>()?;
    module.add_class::<page::Page>()?;
    module.add_class::<quarantine::Quarantined>()?;
    module.add_class::<script::Script>()?;
    module.add_class::<script::InvalidScript>()?;
    module.add_class::<script::Route>()?;
    module.add_class::<script::Validation>()?;
    module.add_class::<stats::ScriptStats>()?;
    module.add_class::<stats::Stats>()?;
    module.add_class::<stopped::Stopped>()?;
    errors::register(module)
}
