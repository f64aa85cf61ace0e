//! A back-up: the whole database as one file, written beside writers and readers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::connection;
use super::error::Failure;

/// Writes the database as it is now into a new file, and returns its size in bytes. The file has its name only when it
/// is whole and on the disk.
pub(super) fn write(connection: &Connection, to: &Path) -> Result<u64, Failure> {
    let unusable = |error: io::Error| Failure::Unusable(format!("{}: {error}", to.display()));
    if to.symlink_metadata().is_ok() {
        return Err(unusable(io::ErrorKind::AlreadyExists.into()));
    }
    let part = Part::of(to);
    // Readable by its owner only from the first byte on; what SQLite makes itself is not.
    connection::create(&part.0)?;
    let place = part.0.to_string_lossy();
    connection.execute("VACUUM INTO ?1", [place.as_ref()])?;
    let bytes = part.settle(to).map_err(unusable)?;
    Ok(bytes)
}

/// The file while it is written; gone when dropped.
struct Part(PathBuf);

impl Part {
    fn of(to: &Path) -> Self {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".part-{}", uuid::Uuid::now_v7().simple()));
        Self(name.into())
    }

    /// Brings the file to the disk and gives it its name, unless somebody took that meanwhile.
    fn settle(&self, to: &Path) -> io::Result<u64> {
        let file = OpenOptions::new().write(true).open(&self.0)?;
        file.sync_all()?;
        fs::hard_link(&self.0, to)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = fs::remove_file(&self.0);
    }
}
