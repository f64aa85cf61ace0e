//! What can go wrong with the server, and what the caller is told of it.

use std::error::Error as _;
use std::sync::Arc;

use deadpool_postgres::{HookError, PoolError};
use thiserror::Error as ThisError;
use tokio_postgres::error::SqlState;

use crate::storage::StorageError;

/// The backend's name in errors and health.
pub(super) const BACKEND: &str = "postgres";

/// Why the server could not do its part. Can be copied, since one failure may answer many calls.
#[derive(Debug, Clone, ThisError)]
pub(super) enum Failure {
    /// The server, or the connection to it, says no.
    #[error("{}", told(.0))]
    Postgres(Arc<tokio_postgres::Error>),
    /// It can't be reached now.
    #[error("{0}")]
    Away(String),
    /// It can't be used as it is.
    #[error("{0}")]
    Unusable(String),
    /// The storage was closed.
    #[error("closed")]
    Closed,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The connection is of no use any more; whether the last commit was applied is unknown.
    Lost,
    /// The same may succeed at once: another server's transaction was in the way.
    Collision,
    /// The same may succeed later.
    MayPass,
    /// Somebody has to do something about the server.
    Unusable,
    /// What was asked of the server is the cause.
    Asked,
}

impl Failure {
    /// Returns whether the connection is of no use any more.
    pub(super) fn is_lost(&self) -> bool {
        self.kind() == Kind::Lost
    }

    /// Returns whether another transaction was in the way.
    pub(super) fn is_collision(&self) -> bool {
        self.kind() == Kind::Collision
    }

    /// Returns whether what was asked is the cause, rather than the server or the connection.
    pub(super) fn is_of_what_was_asked(&self) -> bool {
        self.kind() == Kind::Asked
    }

    /// Returns whether a lock or a statement took too long.
    pub(super) fn is_timeout(&self) -> bool {
        let timeouts = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED];
        self.code().is_some_and(|code| timeouts.contains(code))
    }

    /// Returns whether this user may not do it.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            _ => None,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Postgres(error) => match error.code() {
                Some(code) => kind_of(code),
                // Without a code it is not the server that speaks: the connection broke, or never came about.
                None => Kind::Lost,
            },
            Self::Away(_) => Kind::Lost,
            Self::Unusable(_) | Self::Closed => Kind::Unusable,
        }
    }
}

fn kind_of(code: &SqlState) -> Kind {
    let read_only = SqlState::READ_ONLY_SQL_TRANSACTION;
    match code.code() {
        "40001" | "40P01" | "23505" => Kind::Collision,
        // The server ends or begins, or turned into a standby, where another one is the primary now.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Kind::Lost,
        code if code == read_only.code() => Kind::Lost,
        "57014" | "55P03" | "58030" => Kind::MayPass,
        code => match &code[..2] {
            "08" => Kind::Lost,
            "53" => Kind::MayPass,
            "28" | "3D" | "XX" | "F0" => Kind::Unusable,
            _ if code == "42501" || code == "42P01" || code == "42703" => Kind::Unusable,
            _ => Kind::Asked,
        },
    }
}

/// Says what went wrong, without details that may hold values of rows.
fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => match db.hint() {
            Some(hint) => format!("{} ({}): {hint}", db.message(), db.code().code()),
            None => format!("{} ({})", db.message(), db.code().code()),
        },
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                error.into()
            }
            PoolError::PostCreateHook(HookError::Message(sentence)) => {
                Self::Unusable(sentence.into_owned())
            }
            PoolError::Timeout(_) => Self::Away("no connection came about in time".to_owned()),
            PoolError::Closed => Self::Closed,
            PoolError::NoRuntimeSpecified => {
                Self::Unusable("it was opened outside of a tokio runtime".to_owned())
            }
        }
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        let backend = BACKEND;
        let detail = failure.to_string();
        match (&failure, failure.kind()) {
            (Failure::Closed, _) => Self::Closed,
            (_, Kind::Unusable) => Self::Unusable { backend, detail },
            (_, Kind::Lost | Kind::Collision | Kind::MayPass) => {
                Self::Unavailable { backend, detail }
            }
            (_, Kind::Asked) => Self::Backend {
                backend,
                source: Box::new(failure),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::error::SqlState;

    use super::{Failure, Kind, kind_of};
    use crate::storage::StorageError;

    #[test]
    fn codes_become_what_can_be_done() {
        let cases = [
            ("57P01", Kind::Lost),
            ("57P03", Kind::Lost),
            ("08006", Kind::Lost),
            ("25006", Kind::Lost),
            ("40P01", Kind::Collision),
            ("23505", Kind::Collision),
            ("53100", Kind::MayPass),
            ("53300", Kind::MayPass),
            ("57014", Kind::MayPass),
            ("28P01", Kind::Unusable),
            ("3D000", Kind::Unusable),
            ("42P01", Kind::Unusable),
            ("XX001", Kind::Unusable),
            ("22021", Kind::Asked),
            ("23514", Kind::Asked),
            ("P0001", Kind::Asked),
        ];
        for (code, kind) in cases {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }

    #[test]
    fn a_server_that_is_away_may_come_back() {
        let told = StorageError::from(Failure::Away("no".to_owned()));
        assert!(told.is_retryable(), "{told:?}");
        let told = StorageError::from(Failure::Unusable("no".to_owned()));
        assert!(matches!(told, StorageError::Unusable { .. }), "{told:?}");
    }
}
