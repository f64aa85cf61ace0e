//! What can go wrong with the database, and whether it may pass.

use std::sync::Arc;

use rusqlite::ErrorCode;
use thiserror::Error as ThisError;

/// The backend's name in errors and health.
pub(super) const BACKEND: &str = "sqlite";

/// Why the database could not do its part. Can be copied, since one failure may answer many calls.
#[derive(Debug, Clone, ThisError)]
pub(super) enum Failure {
    /// SQLite says no.
    #[error(transparent)]
    Sqlite(Arc<rusqlite::Error>),
    /// The file can't be used as it is.
    #[error("{0}")]
    Unusable(String),
}

impl Failure {
    /// Returns whether the file or the system is the cause, rather than what was asked of it.
    pub(super) fn is_of_the_file(&self) -> bool {
        self.code()
            .is_some_and(|code| may_pass(code) || is_broken(code))
    }

    /// Returns SQLite's code, if it is SQLite that says no.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Unusable(_) => None,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// Returns whether the file is not what it should be.
pub(super) const fn is_broken(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
}

/// Returns whether the same call may succeed later, when there is space or the file is free again.
pub(super) const fn may_pass(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
    )
}
