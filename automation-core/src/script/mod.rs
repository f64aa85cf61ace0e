//! What a script is: a name, a version, metadata and a parameter schema, read as text and never executed.

mod block;
mod category;
mod declaration;
mod encoding;
mod fields;
mod folder;
mod index;
mod message;
mod metadata;
mod name;
mod output;
mod parameters;
mod problems;
mod registry;
mod retry;
mod signature;
mod validation;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::de::DeTable;

use self::block::Block;
use self::fields::Findings;
use crate::limits::SCRIPT_BYTES_MAX;

pub use self::category::Category;
pub use self::index::{InvalidScript, ScriptIndex};
pub use self::metadata::{Entry, Metadata, Risk};
pub use self::name::{InvalidName, ScriptName};
pub use self::output::{Misfit, OutputSchema};
pub use self::parameters::ParameterSchema;
pub use self::registry::{RegistryError, ScriptRegistry};
pub use self::retry::RetryPolicy;
pub use self::signature::{Argument, Inspection, Signature};
pub use self::validation::Validation;
pub use crate::execution::Isolation;

/// One script, as it was when it was read.
#[derive(Debug, Clone)]
pub struct Script {
    name: ScriptName,
    version: Arc<str>,
    source: Arc<str>,
    path: PathBuf,
    metadata: Metadata,
    parameters: ParameterSchema,
    /// Whether the block has a table of parameters, be it empty.
    declares_parameters: bool,
    output: Option<OutputSchema>,
    warnings: Vec<Diagnostic>,
}

/// What the block of a script says, and what is doubtful about it.
#[derive(Default)]
struct Said {
    metadata: Metadata,
    /// `None` without a table of parameters.
    parameters: Option<ParameterSchema>,
    output: Option<OutputSchema>,
    warnings: Vec<Diagnostic>,
}

impl Script {
    /// Reads a script from the bytes of its file. `path` is what tracebacks and `sys.argv[0]` show; it is not
    /// opened, and its last part is the script's name. Nothing of the script is executed.
    ///
    /// # Errors
    /// What is wrong, with file and line where a line is to blame, at least one; warnings among them.
    ///
    /// # Examples
    /// ```
    /// use automation_core::Script;
    ///
    /// let source = b"# /// script\n# [tool.automation]\n# category = \"VPN Issue\"\n# ///\nprint('{}')\n";
    /// let script = Script::parse("scripts/vpn_restart.py", source).unwrap();
    /// assert_eq!(script.name(), "vpn_restart.py");
    /// assert_eq!(script.metadata().category.as_deref(), Some("VPN Issue"));
    /// ```
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let path = path.as_ref();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = ScriptName::parse(&file)
            .map_err(|error| vec![Diagnostic::error(&*file, error.to_string())])?;
        let source = text(&file, bytes).map_err(|diagnostic| vec![diagnostic])?;
        let said = read(&file, source)?;
        Ok(Self {
            name,
            version: version(bytes),
            source: source.into(),
            path: path.to_owned(),
            metadata: said.metadata,
            declares_parameters: said.parameters.is_some(),
            parameters: said.parameters.unwrap_or_default(),
            output: said.output,
            warnings: said.warnings,
        })
    }

    /// Reads a script from the source that was kept of one of its versions, and lets `inspect` look at it.
    pub(crate) fn kept<E>(
        path: impl AsRef<Path>,
        source: &str,
        version: &str,
        inspect: impl FnOnce(&Self) -> Result<Inspection, E>,
    ) -> Result<Result<Self, Vec<Diagnostic>>, E> {
        let mut script = match Self::parse(path, source.as_bytes()) {
            Ok(script) => script,
            Err(diagnostics) => return Ok(Err(diagnostics)),
        };
        // The file may have had a byte order mark, which the source has not.
        script.version = version.into();
        let inspection = inspect(&script)?;
        Ok(script.admit(inspection))
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

    /// Returns the source, without a byte order mark.
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

    /// Returns what the script promises of its result, if it promises anything.
    #[must_use]
    pub const fn output_schema(&self) -> Option<&OutputSchema> {
        self.output.as_ref()
    }

    /// Returns what is doubtful about the script without making it invalid.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }
}

/// Returns the SHA-256 of a file's bytes in lower-case hex.
fn version(bytes: &[u8]) -> Arc<str> {
    use fmt::Write as _;

    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}

/// Returns the bytes of a file as a source.
fn text<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Diagnostic> {
    let at = |offset: usize, message: &str| {
        let line = bytes[..offset]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Diagnostic {
            line: u32::try_from(line).ok(),
            ..Diagnostic::error(file, message)
        }
    };
    if bytes.len() > SCRIPT_BYTES_MAX {
        return Err(too_large(file));
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(at(offset, "a NUL byte, expected text"));
    }
    match str::from_utf8(bytes) {
        Ok(source) => match encoding::fault(source) {
            Some((line, column, message)) => Err(Diagnostic::error(file, message).at(line, column)),
            None => Ok(source.strip_prefix('\u{feff}').unwrap_or(source)),
        },
        Err(error) => {
            let offset = error.valid_up_to();
            let message = format!(
                "byte 0x{:02x} is not UTF-8, expected a file saved as UTF-8",
                bytes[offset]
            );
            Err(at(offset, &message))
        }
    }
}

fn too_large(file: &str) -> Diagnostic {
    let message = format!(
        "larger than {} KiB, expected a smaller file",
        SCRIPT_BYTES_MAX / 1024
    );
    Diagnostic::error(file, message)
}

/// Reads the metadata block: what it says, and what is doubtful about it.
fn read(file: &str, source: &str) -> Result<Said, Vec<Diagnostic>> {
    let Some(block) = block::find(file, source).map_err(|diagnostic| vec![diagnostic])? else {
        let warnings = block::near_miss(source).map(|line| {
            let message = "not the start of a metadata block, which is exactly `# /// script`";
            Diagnostic::warning(file, message).at(line, 1)
        });
        return Ok(Said {
            warnings: warnings.into_iter().collect(),
            ..Said::default()
        });
    };
    let document =
        DeTable::parse(block.toml()).map_err(|error| vec![not_toml(file, &block, &error)])?;
    let mut findings = Findings::new(file, &block);
    let (mut metadata, schemas) = metadata::read(document.get_ref(), &mut findings);
    metadata.retry = schemas
        .retry
        .map(|table| retry::read(table, &metadata, &mut findings));
    let parameters = schemas
        .parameters
        .map(|table| declaration::read(table, &metadata, &mut findings));
    let output = schemas
        .output
        .and_then(|table| output::read(table, &mut findings));
    if findings.has_errors() {
        return Err(findings.into_sorted());
    }
    Ok(Said {
        metadata,
        parameters,
        output,
        warnings: findings.into_sorted(),
    })
}

fn not_toml(file: &str, block: &Block, error: &toml::de::Error) -> Diagnostic {
    let (line, column) = block.position(&error.span().unwrap_or_default());
    let message = format!("the metadata block is not TOML: {}", error.message());
    Diagnostic::error(file, message).at(line, column)
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

impl Diagnostic {
    /// Creates an error without a place.
    #[must_use]
    pub fn error(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: None,
            column: None,
            message: message.into(),
        }
    }

    /// Creates a warning without a place.
    #[must_use]
    pub fn warning(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, message)
        }
    }

    /// Says where: line and column in characters, both from 1.
    #[must_use]
    pub fn at(mut self, line: u32, column: u32) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }
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

#[cfg(test)]
mod tests;
