//! Where the database is: whether it is still the file that was opened, and how failures name it.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::error::{BACKEND, Failure, is_broken, may_pass};
use crate::storage::StorageError;

/// The file of an open database.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    identity: Option<Identity>,
}

/// Which file it is, whatever its name.
type Identity = (u64, u64);

impl Place {
    /// Remembers which file has this name now, without opening it.
    pub(super) fn new(path: PathBuf) -> Self {
        let identity = std::fs::metadata(&path).ok().as_ref().and_then(identity);
        Self { path, identity }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a database that nobody would find again: SQLite goes on to write to a file that was removed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let name = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(found) if self.identity.is_none() || identity(&found) == self.identity => Ok(()),
            Ok(_) => Err(Failure::Unusable(format!(
                "{name} was replaced while it was in use: put the former file back, or start again to use this one"
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::Unusable(format!(
                "{name} was removed while it was in use: put it back, or start again to begin a new one"
            ))),
            Err(error) => Err(Failure::Unusable(format!("{name}: {error}"))),
        }
    }

    /// Returns what callers are told of a failure.
    pub(super) fn told(&self, failure: Failure) -> StorageError {
        told(&self.path, failure)
    }
}

/// Returns what callers are told of a failure with this file.
pub(super) fn told(path: &Path, failure: Failure) -> StorageError {
    let backend = BACKEND;
    match (&failure, failure.code()) {
        (Failure::Unusable(sentence), _) => StorageError::Unusable {
            backend,
            detail: sentence.clone(),
        },
        (_, Some(code)) if is_broken(code) => StorageError::Unusable {
            backend,
            detail: sentence(path, code, &failure),
        },
        (_, Some(code)) if may_pass(code) => StorageError::Unavailable {
            backend,
            detail: sentence(path, code, &failure),
        },
        _ => StorageError::Backend {
            backend,
            source: Box::new(failure),
        },
    }
}

/// Names the file, the cause and, where that is not plain, what to do.
fn sentence(path: &Path, code: ErrorCode, failure: &Failure) -> String {
    let name = path.display();
    match code {
        ErrorCode::DiskFull => {
            format!(
                "{name} can't grow: the disk is full, or the file has the size that it may have"
            )
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            format!("{name} is locked by another program")
        }
        ErrorCode::ReadOnly => {
            format!(
                "{name} can't be written to: it, its folder or its disk is read-only ({failure})"
            )
        }
        ErrorCode::CannotOpen => {
            format!(
                "{name} can't be opened: it or its folder is gone, or may not be read ({failure})"
            )
        }
        ErrorCode::DatabaseCorrupt => {
            format!("{name} is damaged ({failure}): stop, and restore a back-up")
        }
        ErrorCode::NotADatabase => {
            format!("{name} is no SQLite database ({failure}); a file of this program is expected")
        }
        _ => format!("{name} can't be read or written ({failure})"),
    }
}

#[cfg(unix)]
fn identity(file: &Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<Identity> {
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::{Error, ffi};

    use super::{Failure, Place, told};
    use crate::storage::StorageError;

    #[test]
    fn codes_become_what_the_caller_can_do_and_name_the_file() {
        let told = |code| {
            let failure = Failure::from(Error::SqliteFailure(ffi::Error::new(code), None));
            told(Path::new("/data/a.db"), failure)
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
            assert!(told.to_string().contains("/data/a.db "), "{told}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            let told = told(code);
            assert!(
                matches!(told, StorageError::Unusable { .. }),
                "{code}: {told:?}"
            );
            assert!(told.to_string().contains("/data/a.db is "), "{told}");
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

    #[test]
    fn a_file_that_went_away_is_told_from_one_that_came_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("a.db"), folder.path().join("b.db"));
        std::fs::write(&path, "").unwrap();
        let place = Place::new(path.clone());
        place.check().unwrap();
        std::fs::rename(&path, &aside).unwrap();
        let gone = place.check().unwrap_err().to_string();
        assert!(gone.contains("a.db was removed"), "{gone}");
        std::fs::write(&path, "").unwrap();
        let other = place.check().unwrap_err().to_string();
        assert!(other.contains("a.db was replaced"), "{other}");
        std::fs::rename(&aside, &path).unwrap();
        place.check().unwrap();
    }
}
