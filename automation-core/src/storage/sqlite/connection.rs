//! How connections to the file are opened.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::Failure;
use super::{Durability, schema};

/// How long an operation waits for a lock that a person's tool holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of the write-ahead log at which a commit copies them into the database: 16 MiB. A low bound copies
/// the same pages again and again.
const CHECKPOINT_PAGES: u32 = 4096;

/// Returns the path without links and dots, so that one file has one name. Opens nothing: closing any descriptor
/// of a database drops the locks that SQLite holds on it for the whole process (POSIX `fcntl`).
pub(super) fn place(path: &Path) -> Result<PathBuf, Failure> {
    let unusable = |error| Failure::Unusable(format!("{}: {error}", path.display()));
    match path.canonicalize() {
        Ok(place) if place.is_dir() => {
            Err(Failure::Unusable(format!("{} is a folder", path.display())))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder
                .unwrap_or(Path::new("."))
                .canonicalize()
                .map_err(unusable)?;
            let name = path.file_name().ok_or_else(|| unusable(error))?;
            Ok(folder.join(name))
        }
        other => other.map_err(unusable),
    }
}

/// Makes an empty file that only its owner may read, when there is none.
pub(super) fn create(path: &Path) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Failure::Unusable(format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Ends the leases of open executions: the process that held them is gone, since this one has the file.
pub(super) fn end_leases(connection: &Connection) -> Result<(), Failure> {
    connection.execute(
        "UPDATE automation_logs INDEXED BY automation_logs_open SET lease_until = '1970-01-01T00:00:00.000000Z' \
         WHERE status IN ('starting', 'running') AND lease_until IS NOT NULL",
        [],
    )?;
    Ok(())
}

/// Opens the connection that writes, and brings the tables up to date.
pub(super) fn open_writer(
    path: &Path,
    durability: Durability,
    file_bytes_max: Option<u64>,
) -> Result<Connection, Failure> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::Unusable(format!(
            "{} is on a file system without shared memory, which a write-ahead log needs",
            path.display()
        )));
    }
    connection.pragma_update(None, "synchronous", durability.pragma())?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    schema::migrate(&mut connection)?;
    if let Some(bytes) = file_bytes_max {
        let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = u32::try_from(bytes / u64::from(page))
            .unwrap_or(u32::MAX)
            .max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(connection)
}

/// Opens a connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Failure> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Neither creates a file nor takes the path for a URI.
fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}
