//! What can go wrong with the database, and what the caller is told of it.

use std::sync::Arc;

use rusqlite::ErrorCode;
use thiserror::Error as ThisError;

use crate::storage::StorageError;

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

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        let backend = BACKEND;
        let detail = failure.to_string();
        match (&failure, failure.code()) {
            (Failure::Unusable(_), _) => Self::Unusable { backend, detail },
            (_, Some(code)) if is_broken(code) => Self::Unusable {
                backend,
                detail: format!("{detail}; a file of this program is expected"),
            },
            (_, Some(code)) if may_pass(code) => Self::Unavailable { backend, detail },
            _ => Self::Backend {
                backend,
                source: Box::new(failure),
            },
        }
    }
}

const fn is_broken(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
}

/// Returns whether the same call may succeed later, when there is space or the file is free again.
const fn may_pass(code: ErrorCode) -> bool {
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

#[cfg(test)]
mod tests {
    use rusqlite::{Error, ffi};

    use super::Failure;
    use crate::storage::StorageError;

    #[test]
    fn codes_become_what_the_caller_can_do() {
        let told = |code| {
            let failure = Failure::from(Error::SqliteFailure(ffi::Error::new(code), None));
            StorageError::from(failure)
        };
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_READONLY,
        ] {
            let told = told(code);
            assert!(told.is_retryable(), "{code}: {told:?}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            let told = told(code);
            assert!(
                matches!(told, StorageError::Unusable { .. }),
                "{code}: {told:?}"
            );
        }
        for code in [
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_ERROR,
            ffi::SQLITE_TOOBIG,
        ] {
            let told = told(code);
            assert!(
                matches!(told, StorageError::Backend { .. }),
                "{code}: {told:?}"
            );
        }
    }
}
