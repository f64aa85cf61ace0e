//! What can be said of a source that is no script of the registry (yet).

use std::sync::Arc;

use super::{Diagnostic, Inspection, Script, ScriptName};

/// What was found in a source that was looked at and not kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Validation {
    /// The name under which it was looked at.
    pub name: String,
    /// What is wrong or doubtful: errors where there is no script.
    pub diagnostics: Vec<Diagnostic>,
    /// The script that the source is: its metadata, parameters and version. `None` when it can't run.
    pub script: Option<Arc<Script>>,
}

impl Validation {
    /// Returns whether the source could run.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.script.is_some()
    }

    /// Reads a source, and lets `inspect` look at it where it reads well.
    pub(crate) fn of<E>(
        name: &str,
        source: &[u8],
        inspect: impl FnOnce(&Script) -> Result<Inspection, E>,
    ) -> Result<Self, E> {
        let read = match ScriptName::parse(name) {
            // Without a folder: what nobody keeps is nothing's neighbour.
            Ok(_) => Script::parse(name, source),
            Err(error) => Err(vec![Diagnostic::error(name, error.to_string())]),
        };
        let script = match read {
            Ok(script) => {
                let inspection = inspect(&script)?;
                script.admit(inspection)
            }
            Err(diagnostics) => Err(diagnostics),
        };
        let (script, diagnostics) = match script {
            Ok(script) => {
                let warnings = script.warnings().to_vec();
                (Some(Arc::new(script)), warnings)
            }
            Err(diagnostics) => (None, diagnostics),
        };
        Ok(Self {
            name: name.to_owned(),
            diagnostics,
            script,
        })
    }
}
