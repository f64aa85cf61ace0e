//! The errors of the handle, their kinds, and the codes that every front door shows.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use thiserror::Error as ThisError;

use crate::engine::Stopped;
use crate::execution::ExecutionId;
use crate::executor::ExecutorError;
use crate::policy::PolicyError;
use crate::script::{Diagnostic, RegistryError};
use crate::storage::StorageError;

/// The result of a verb of [`Automation`](crate::Automation).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong with a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: a JSON pointer (RFC 6901) into the document; empty for the document itself.
    pub pointer: String,
    /// What is wrong and what is expected. Never holds a secret's value.
    pub detail: String,
}

impl Problem {
    /// Creates a problem.
    #[must_use]
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.pointer, self.detail)
        }
    }
}

/// That we could not do our part. A script that ran and failed is data, never an error.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is malformed.
    #[error("invalid request: {}", list(problems))]
    InvalidRequest {
        /// What is wrong, at least one.
        problems: Vec<Problem>,
    },
    /// The parameters do not fit the script's schema.
    #[error("invalid parameters for {script}: {}", list(problems))]
    InvalidParameters {
        /// The script's name.
        script: String,
        /// What is wrong, at least one.
        problems: Vec<Problem>,
    },
    /// The classification says that the ticket can't be automated.
    #[error("automation is not possible for ticket {ticket_id}: {detail}")]
    AutomationNotPossible {
        /// The ticket.
        ticket_id: String,
        /// Why.
        detail: String,
    },
    /// No script has this name.
    #[error("script {name:?} not found")]
    ScriptNotFound {
        /// The name that was asked for.
        name: String,
    },
    /// No valid script serves this category.
    #[error("no script for category {category:?}: {detail}")]
    NoScriptForCategory {
        /// The category that was asked for.
        category: String,
        /// Why not.
        detail: String,
    },
    /// No execution has this id.
    #[error("execution {id} not found")]
    ExecutionNotFound {
        /// The id that was asked for.
        id: ExecutionId,
    },
    /// No execution is recorded for this ticket.
    #[error("no automation logs for ticket {ticket_id:?}")]
    TicketNotFound {
        /// The ticket that was asked for.
        ticket_id: String,
    },
    /// The script exists and is not fit to run.
    #[error("script {name:?} is invalid: {}", list(diagnostics))]
    InvalidScript {
        /// The script's name.
        name: String,
        /// What is wrong, with file and line.
        diagnostics: Vec<Diagnostic>,
    },
    /// The present state does not allow this.
    #[error("conflict: {detail}")]
    Conflict {
        /// What collides.
        detail: String,
    },
    /// Every place is taken and the queue is full.
    #[error("overloaded: {running} executions running and {queued} waiting")]
    Overloaded {
        /// Dispatched executions.
        running: usize,
        /// Waiting executions.
        queued: usize,
    },
    /// As many sources are validated as may be at once.
    #[error("overloaded: {running} sources are being validated")]
    ValidationsBusy {
        /// Validations that go on.
        running: usize,
    },
    /// The policy does not let the run start.
    #[error("refused by the policy: {detail}")]
    RefusedByPolicy {
        /// Which rule, and what about it.
        detail: String,
        /// When it may start, for a refusal that passes by itself.
        retry_after: Option<Duration>,
    },
    /// Somebody has stopped the script, its category or everything.
    #[error("{0}")]
    Stopped(Box<Stopped>),
    /// A quota has no share left.
    #[error("quota exceeded: {limit}; the next one frees in {} seconds", retry_after.as_secs_f64().ceil())]
    QuotaExceeded {
        /// Which one, and how many it allows.
        limit: String,
        /// When the next share frees; for runs at once, when it makes sense to look again.
        retry_after: Duration,
    },
    /// A capability that this set-up lacks.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What is lacking.
        what: String,
    },
    /// The handle was shut down.
    #[error("automation is shut down")]
    Closed,
    /// The storage could not do its part.
    #[error(transparent)]
    Storage(StorageError),
    /// The executor could not do its part.
    #[error(transparent)]
    Executor(ExecutorError),
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Closed => Self::Closed,
            other => Self::Storage(other),
        }
    }
}

impl From<ExecutorError> for Error {
    fn from(error: ExecutorError) -> Self {
        match error {
            ExecutorError::Closed => Self::Closed,
            other => Self::Executor(other),
        }
    }
}

impl Error {
    /// Creates an [`Error::InvalidRequest`] with one problem.
    #[must_use]
    pub fn invalid_request(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::InvalidRequest {
            problems: vec![Problem::new(pointer, detail)],
        }
    }

    /// Creates an [`Error::RefusedByPolicy`], which passes when it is `until`.
    pub(crate) fn refused_by_policy(
        detail: String,
        until: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        let rest = until.map(|until| (until - now).to_std().unwrap_or_default());
        Self::RefusedByPolicy {
            detail,
            retry_after: rest,
        }
    }

    /// Returns the kind, which decides codes and statuses.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidRequest { .. } => ErrorKind::InvalidRequest,
            Self::InvalidParameters { .. } => ErrorKind::InvalidParameters,
            Self::AutomationNotPossible { .. } => ErrorKind::AutomationNotPossible,
            Self::ScriptNotFound { .. } => ErrorKind::ScriptNotFound,
            Self::NoScriptForCategory { .. } => ErrorKind::NoScriptForCategory,
            Self::ExecutionNotFound { .. } => ErrorKind::ExecutionNotFound,
            Self::TicketNotFound { .. } => ErrorKind::TicketNotFound,
            Self::InvalidScript { .. } => ErrorKind::InvalidScript,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Overloaded { .. } | Self::ValidationsBusy { .. } => ErrorKind::Overloaded,
            Self::RefusedByPolicy { .. } => ErrorKind::RefusedByPolicy,
            Self::Stopped(_) => ErrorKind::Stopped,
            Self::QuotaExceeded { .. } => ErrorKind::QuotaExceeded,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            // What was closed with the handle answers for it: nothing broke.
            Self::Closed
            | Self::Storage(StorageError::Closed)
            | Self::Executor(ExecutorError::Closed) => ErrorKind::Closed,
            Self::Storage(_) => ErrorKind::Storage,
            Self::Executor(_) => ErrorKind::Executor,
        }
    }

    /// Returns what is wrong, place by place, for kinds that know it.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::InvalidRequest { problems } | Self::InvalidParameters { problems, .. } => {
                problems.clone()
            }
            Self::InvalidScript { diagnostics, .. } => diagnostics
                .iter()
                .map(|diagnostic| Problem::new("", diagnostic.to_string()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Returns when the same call may succeed, for errors that pass by themselves.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { .. } | Self::ValidationsBusy { .. } => Some(Duration::from_secs(1)),
            Self::QuotaExceeded { retry_after, .. } => Some(*retry_after),
            Self::RefusedByPolicy { retry_after, .. } => *retry_after,
            Self::Storage(error) if error.is_retryable() => Some(Duration::from_secs(5)),
            Self::Executor(error) if error.is_retryable() => Some(Duration::from_secs(5)),
            Self::Closed => Some(Duration::from_secs(10)),
            _ => None,
        }
    }
}

/// What kind of [`Error`] it is. Each front door maps every kind to its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Malformed body, missing field.
    InvalidRequest,
    /// Schema violation.
    InvalidParameters,
    /// The classification says no.
    AutomationNotPossible,
    /// Unknown script.
    ScriptNotFound,
    /// No script serves the category.
    NoScriptForCategory,
    /// Unknown execution.
    ExecutionNotFound,
    /// Unknown ticket.
    TicketNotFound,
    /// The script does not validate.
    InvalidScript,
    /// Illegal transition.
    Conflict,
    /// Queue full.
    Overloaded,
    /// The policy says no.
    RefusedByPolicy,
    /// Somebody stopped it.
    Stopped,
    /// A quota is used up.
    QuotaExceeded,
    /// Capability missing.
    Unsupported,
    /// After shutdown.
    Closed,
    /// Our storage broke.
    Storage,
    /// Our executor broke.
    Executor,
}

impl ErrorKind {
    /// Every kind, so that each front door can test that it maps all of them.
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::InvalidParameters,
        Self::AutomationNotPossible,
        Self::ScriptNotFound,
        Self::NoScriptForCategory,
        Self::ExecutionNotFound,
        Self::TicketNotFound,
        Self::InvalidScript,
        Self::Conflict,
        Self::Overloaded,
        Self::RefusedByPolicy,
        Self::Stopped,
        Self::QuotaExceeded,
        Self::Unsupported,
        Self::Closed,
        Self::Storage,
        Self::Executor,
    ];

    /// Returns the stable code in HTTP bodies, Python's `.code` and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidParameters => "invalid_parameters",
            Self::AutomationNotPossible => "automation_not_possible",
            Self::ScriptNotFound => "script_not_found",
            Self::NoScriptForCategory => "no_script_for_category",
            Self::ExecutionNotFound => "execution_not_found",
            Self::TicketNotFound => "ticket_not_found",
            Self::InvalidScript => "invalid_script",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::RefusedByPolicy => "refused_by_policy",
            Self::Stopped => "stopped",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::Storage => "storage",
            Self::Executor => "executor",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a handle could not be built. Every configuration error surfaces here.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum BuildError {
    /// A part that has no default was not given.
    #[error("{part} is missing")]
    Missing {
        /// The builder's method that was not called.
        part: &'static str,
    },
    /// A setting has a value that can't work.
    #[error("{setting} is {value}, {expected}")]
    Setting {
        /// The builder's method.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// There is no tokio runtime to live on.
    #[error("no tokio runtime: build inside one, or give its handle with `runtime`")]
    NoRuntime,
    /// The spool could not be opened or made.
    #[error("spool: {detail}")]
    Spool {
        /// The file, and why.
        detail: String,
    },
    /// The scripts could not be inspected.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The policy can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The scripts could not be loaded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Error, ErrorKind, ExecutorError, Problem, StorageError};

    #[test]
    fn every_kind_has_its_own_code() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn what_was_closed_is_not_broken() {
        for error in [
            Error::Closed,
            StorageError::Closed.into(),
            ExecutorError::Closed.into(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
    }

    #[test]
    fn messages_name_the_thing() {
        let error = Error::InvalidParameters {
            script: "disk_cleanup.py".into(),
            problems: vec![Problem::new(
                "/min_free_space_gb",
                "\"5\" is not of type \"number\"",
            )],
        };
        assert_eq!(
            error.to_string(),
            "invalid parameters for disk_cleanup.py: /min_free_space_gb: \"5\" is not of type \"number\""
        );
    }
}
