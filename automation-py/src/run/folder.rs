//! The folder of a run's script, and the modules that scripts import from there: the interpreter has one list of
//! modules for all folders and versions, so what another folder or version left has to be forgotten.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::{Glue, Run};

/// The folder of the run that started last.
static LAST: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Returns the folder of a script that is a file; one that is only in memory has none.
pub(crate) fn folder(script: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(script.parent()?).ok()?;
    (!script.parent()?.as_os_str().is_empty() && folder.is_dir()).then_some(folder)
}

/// Notes that a script's folder has a version that was not seen before: its modules may be new as well.
pub(crate) fn folder_changed(py: Python<'_>, script: &Path) -> PyResult<()> {
    call(py, "folder_changed", script)
}

impl Run {
    /// Forgets modules of other folders where the last run had another one. Runs of several folders at once can
    /// still meet each other's.
    pub(super) fn enter_folder(&self, py: Python<'_>) -> PyResult<()> {
        let script = self.invocation.script.path();
        let parent = script.parent();
        let mut last = LAST.lock();
        if last.as_deref() == parent {
            return Ok(());
        }
        *last = parent.map(Path::to_owned);
        drop(last);
        call(py, "folder_entered", script)
    }
}

fn call(py: Python<'_>, function: &str, script: &Path) -> PyResult<()> {
    if let Some(folder) = folder(script) {
        let function = Glue::get(py).function(py, function)?;
        function.call1((folder.to_string_lossy(),))?;
    }
    Ok(())
}
