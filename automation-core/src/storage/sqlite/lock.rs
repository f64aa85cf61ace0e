//! The lock that keeps other processes from the database. SQLite's own locks let them take turns; we must be
//! alone, since open rows found at start are taken for orphans.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::error::Failure;

/// A lock on a database; given back when dropped, by the system when the process ends.
#[derive(Debug)]
pub(super) struct ProcessLock {
    _file: File,
    /// The lock's file, where it was not there before.
    created: Option<PathBuf>,
}

impl ProcessLock {
    /// Takes the lock of a database, a file with `.lock` added to its name.
    pub(super) fn take(database: &Path) -> Result<Self, Failure> {
        let path = path_of(database);
        let unusable = |error| Failure::Unusable(format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let (mut file, created) = match options.clone().create_new(true).open(&path) {
            Ok(file) => (file, Some(path.clone())),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (options.open(&path).map_err(unusable)?, None)
            }
            Err(error) => return Err(unusable(error)),
        };
        match file.try_lock() {
            Ok(()) => {
                // Only for a message: a full disk must not keep the database closed.
                let _ = note_process(&file);
                Ok(Self {
                    _file: file,
                    created,
                })
            }
            Err(TryLockError::WouldBlock) => Err(in_use(database, &mut file)),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

impl ProcessLock {
    /// Gives the lock back and leaves no trace of it, where what it guards turned out to be no database of ours.
    pub(super) fn discard(self) {
        if let Some(path) = &self.created {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn path_of(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Leaves our process id in the file, for the message of those who come second.
fn note_process(mut file: &File) -> std::io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

fn in_use(database: &Path, file: &mut File) -> Failure {
    let mut holder = String::new();
    let by = match file.take(20).read_to_string(&mut holder) {
        Ok(1..) if holder.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("process {holder}")
        }
        _ => "another process".to_owned(),
    };
    Failure::Unusable(format!("{} is in use by {by}", database.display()))
}

#[cfg(test)]
mod tests {
    use super::ProcessLock;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let first = ProcessLock::take(&database).unwrap();
        let second = ProcessLock::take(&database).unwrap_err().to_string();
        let holder = format!("is in use by process {}", std::process::id());
        assert!(second.ends_with(&holder), "{second}");
        drop(first);
        ProcessLock::take(&database).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = ProcessLock::take(std::path::Path::new("/nowhere/a.db")).unwrap_err();
        assert!(
            error.to_string().starts_with("/nowhere/a.db.lock: "),
            "{error}"
        );
    }
}
