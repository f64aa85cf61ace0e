//! Where a policy comes from, and what can be wrong with one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error as ThisError;

use super::Policy;
use crate::script::Category;

/// Why there is no policy.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file can't be read.
    #[error("policy {path:?} can't be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It is no TOML or JSON, or has unknown keys or values of wrong types.
    #[error("policy is malformed: {detail}")]
    Malformed {
        /// What and where.
        detail: String,
    },
    /// A rule can't work.
    #[error("policy is wrong: {pointer}: {detail}")]
    Wrong {
        /// A JSON pointer to the rule.
        pointer: String,
        /// What is wrong and what is expected.
        detail: String,
    },
}

/// Where the policy comes from.
#[derive(Debug, Clone)]
pub(crate) enum PolicySource {
    Fixed(Arc<Policy>),
    /// Read again whenever the scripts are.
    File(PathBuf),
}

impl PolicySource {
    /// Returns the policy as it is now.
    pub(crate) fn read(&self) -> Result<Arc<Policy>, PolicyError> {
        match self {
            Self::Fixed(policy) => policy.check().map(|()| Arc::clone(policy)),
            Self::File(path) => Policy::from_file(path).map(Arc::new),
        }
    }
}

impl Policy {
    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// It is malformed or wrong; the error says where.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Self::checked(toml::from_str(text))
    }

    /// Reads a policy from JSON.
    ///
    /// # Errors
    /// It is malformed or wrong; the error says where.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        Self::checked(serde_json::from_str(text))
    }

    /// Reads a policy from a file: JSON if its name ends with `.json`, else TOML.
    ///
    /// # Errors
    /// It can't be read, is malformed or wrong.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            Self::from_json(&text)
        } else {
            Self::from_toml(&text)
        }
    }

    fn checked<E: std::fmt::Display>(read: Result<Self, E>) -> Result<Self, PolicyError> {
        let policy = read.map_err(|error| PolicyError::Malformed {
            detail: error.to_string().trim_end().to_owned(),
        })?;
        policy.check().map(|()| policy)
    }

    /// Checks what types do not say.
    ///
    /// # Errors
    /// The first rule that can't work.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        check_confidence("", self.confidence_min)?;
        for (i, rule) in self.routes.iter().enumerate() {
            let pointer = format!("/routes/{i}");
            check_confidence(&pointer, rule.confidence_min)?;
            let category = Category::new(&rule.category);
            let mut before = self.routes[..i].iter();
            if before.any(|other| Category::new(&other.category) == category) {
                let detail = format!(
                    "category {:?} has a rule already, expected one",
                    rule.category
                );
                return Err(PolicyError::Wrong { pointer, detail });
            }
        }
        for (i, rule) in self.approvals.iter().enumerate() {
            check_confidence(&format!("/approvals/{i}"), rule.confidence_below)?;
        }
        for (i, quota) in self.quotas.iter().enumerate() {
            let pointer = format!("/quotas/{i}");
            let pairs = quota.runs.is_some() == quota.window_seconds.is_some();
            let bounds = [quota.concurrent, quota.runs];
            let positive = bounds.into_iter().flatten().all(|bound| bound > 0);
            let some = bounds.iter().any(Option::is_some);
            if !(pairs && positive && some && quota.window_seconds != Some(0)) {
                let detail = "expected concurrent, or runs with window_seconds, or all three, each at least 1";
                let detail = detail.to_owned();
                return Err(PolicyError::Wrong { pointer, detail });
            }
        }
        Ok(())
    }
}

fn check_confidence(pointer: &str, confidence: Option<f64>) -> Result<(), PolicyError> {
    match confidence {
        Some(confidence) if !(0.0..=1.0).contains(&confidence) => Err(PolicyError::Wrong {
            pointer: pointer.to_owned(),
            detail: format!("confidence is {confidence}, expected 0 to 1"),
        }),
        _ => Ok(()),
    }
}
