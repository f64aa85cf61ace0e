//! What a script is: a name, a version, metadata and a parameter schema, read as text and never executed.

mod category;
mod metadata;
mod name;
mod parameters;
mod registry;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::category::Category;
pub use self::metadata::{Entry, Isolation, Metadata, Risk};
pub use self::name::ScriptName;
pub use self::parameters::ParameterSchema;
pub use self::registry::{InvalidScript, RegistryError, ScriptIndex, ScriptRegistry};

/// One script, as it was when it was read.
#[derive(Debug, Clone)]
pub struct Script {
    name: ScriptName,
    version: Arc<str>,
    source: Arc<str>,
    path: PathBuf,
    metadata: Metadata,
    parameters: ParameterSchema,
    warnings: Vec<Diagnostic>,
}

impl Script {
    /// Reads a script from the bytes of its file. `path` is what tracebacks and `sys.argv[0]` show; it is not opened.
    ///
    /// # Errors
    /// What is wrong, with file and line, at least one.
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let _ = (path.as_ref(), bytes);
        unimplemented!("filled by the script room's commit")
    }

    /// Returns the name, for instance `disk_cleanup.py`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Returns the SHA-256 of the file's bytes, in lower-case hex, as `sha256sum` prints it.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Returns the source.
    #[must_use]
    pub const fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Returns the file from which the script was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the metadata block says, defaults filled in.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns what the script accepts.
    #[must_use]
    pub const fn parameters(&self) -> &ParameterSchema {
        &self.parameters
    }

    /// Returns what is doubtful about the script without making it invalid.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The script can't run.
    Error,
    /// The script can run.
    Warning,
}

/// Something found in a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<u32>,
    /// The column in characters, from 1, where it is known.
    pub column: Option<u32>,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.message)
    }
}
