//! Compiled scripts, kept by version. Knows nothing of runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use automation_core::Script;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::run::{Glue, folder, imports_from_folder};

/// Versions that are kept: a registry has hundreds of scripts, and each reload may bring new versions of them.
const VERSIONS_MAX: usize = 4096;

/// A compiled script.
#[derive(Debug)]
pub(super) struct Code {
    path: PathBuf,
    pub(super) file: Py<PyString>,
    pub(super) code: Py<PyAny>,
    /// Whether it may import what is in its folder.
    pub(super) imports_from_folder: bool,
    /// Whether the changes of a run were looked at, where that is done for some only.
    #[cfg(not(Py_3_12))]
    pub(super) was_sampled: Arc<std::sync::atomic::AtomicBool>,
}

/// The compiled scripts of an executor. One version may lie at several paths, which tracebacks show.
#[derive(Debug, Default)]
pub(super) struct CodeCache(Mutex<HashMap<Arc<str>, Vec<Arc<Code>>>>);

impl CodeCache {
    /// Returns a script's code; compiles it when it was never asked for.
    pub(super) fn get(&self, py: Python<'_>, script: &Script) -> PyResult<Arc<Code>> {
        if let Some(code) = self.find(script) {
            return Ok(code);
        }
        let source = PyString::new(py, script.source());
        let code = compile(py, script, source.as_any())?;
        self.keep(py, script, code)
    }

    /// Compiles a script from its syntax tree. The code of one that is a file is kept: it will run.
    pub(super) fn compile(
        &self,
        py: Python<'_>,
        script: &Script,
        tree: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if self.find(script).is_none() {
            let code = compile(py, script, tree)?;
            if folder(script.path()).is_some() {
                self.keep(py, script, code)?;
            }
        }
        Ok(())
    }

    fn keep(&self, py: Python<'_>, script: &Script, code: Code) -> PyResult<Arc<Code>> {
        let remember = Glue::get(py).function(py, "remember_source")?;
        remember.call1((&code.file, &**script.source()))?;
        let code = Arc::new(code);
        let mut versions = self.0.lock();
        let former = if versions.len() < VERSIONS_MAX {
            HashMap::new()
        } else {
            std::mem::take(&mut *versions)
        };
        versions
            .entry(Arc::clone(script.version()))
            .or_default()
            .push(Arc::clone(&code));
        drop(versions);
        drop(former);
        Ok(code)
    }

    fn find(&self, script: &Script) -> Option<Arc<Code>> {
        let versions = self.0.lock();
        let codes = versions.get(&**script.version())?;
        let path = script.path().as_os_str();
        codes
            .iter()
            .find(|code| code.path.as_os_str() == path)
            .map(Arc::clone)
    }
}

/// Compiles a script from its source or its syntax tree.
fn compile(py: Python<'_>, script: &Script, from: &Bound<'_, PyAny>) -> PyResult<Code> {
    let path = script.path();
    let file = PyString::new(py, &path.to_string_lossy());
    let compile = Glue::get(py).compile.bind(py);
    let code = compile.call1((from, &file, "exec", 0, true))?;
    Ok(Code {
        imports_from_folder: imports_from_folder(py, &code, path)?,
        #[cfg(not(Py_3_12))]
        was_sampled: Arc::default(),
        path: path.to_owned(),
        file: file.unbind(),
        code: code.unbind(),
    })
}
