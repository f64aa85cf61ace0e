//! Secrets by name: where a script's credentials come from.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error as ThisError;

/// A secret's value. Its `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the value in the clear.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Gives secrets by name.
pub trait SecretSource: fmt::Debug + Send + Sync + 'static {
    /// Returns the secret with this name. May block.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when there is none, [`SecretError::Unreadable`] when it can't be read.
    fn secret(&self, name: &str) -> Result<Secret, SecretError>;
}

/// Why a secret was not given. Never holds a value.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum SecretError {
    /// No source has it.
    #[error("secret {name:?} is not configured")]
    Missing {
        /// The name.
        name: String,
    },
    /// A source has it and can't read it.
    #[error("secret {name:?} can't be read: {detail}")]
    Unreadable {
        /// The name.
        name: String,
        /// Why.
        detail: String,
    },
    /// The name is not one: letters, digits and `_`, at most 64.
    #[error("{name:?} is not a secret's name: letters, digits and _ are, at most 64")]
    InvalidName {
        /// What was given.
        name: String,
    },
}

/// Returns whether `name` can be a secret's name, so that it can become a file's name.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Secrets held in memory, and files of a folder behind them: one file a secret, named as the secret in
/// lower case, without its last line break.
#[derive(Default)]
pub struct Secrets {
    values: HashMap<String, Secret>,
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Creates a source that has none.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret. Names are compared in lower case.
    #[must_use]
    pub fn with(mut self, name: &str, value: Secret) -> Self {
        self.values.insert(name.to_ascii_lowercase(), value);
        self
    }

    /// Adds a folder that is looked into when a secret is asked for.
    #[must_use]
    pub fn with_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("values", &self.values.len())
            .field("folder", &self.folder)
            .finish()
    }
}

impl SecretSource for Secrets {
    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        if !is_secret_name(name) {
            return Err(SecretError::InvalidName {
                name: name.to_owned(),
            });
        }
        let key = name.to_ascii_lowercase();
        if let Some(secret) = self.values.get(&key) {
            return Ok(secret.clone());
        }
        let missing = || SecretError::Missing {
            name: name.to_owned(),
        };
        let folder = self.folder.as_ref().ok_or_else(missing)?;
        match std::fs::read_to_string(folder.join(&key)) {
            Ok(text) => Ok(Secret::new(text.strip_suffix('\n').unwrap_or(&text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(SecretError::Unreadable {
                name: name.to_owned(),
                detail: error.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Secret, SecretError, SecretSource, Secrets};

    #[test]
    fn memory_first_then_files_and_never_a_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("smtp_password"), "from-file\n").unwrap();
        let secrets = Secrets::new()
            .with("Token", Secret::new("abc"))
            .with_folder(folder.path());
        assert_eq!(secrets.secret("TOKEN").unwrap().expose(), "abc");
        assert_eq!(
            secrets.secret("SMTP_PASSWORD").unwrap().expose(),
            "from-file"
        );
        assert!(matches!(
            secrets.secret("absent"),
            Err(SecretError::Missing { .. })
        ));
        for name in ["../x", "", "a/b", "a.b"] {
            assert!(
                matches!(secrets.secret(name), Err(SecretError::InvalidName { .. })),
                "{name}"
            );
        }
        assert!(!format!("{secrets:?} {:?}", Secret::new("abc")).contains("abc"));
    }
}
