//! The file: made once with all its bytes on the disk, locked, and written place by place. A write counts when it is
//! on the disk. Knows nothing of what the records say.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use super::format::{
    self, FileId, HEADER_BYTES, LENGTH_BYTES, PLACE_BYTES, place_at, places_in, read_header,
};

/// Readable and writable by the owner only: output of scripts is in it.
const MODE: u32 = 0o600;

/// An open file, locked until it is dropped.
#[derive(Debug)]
pub(super) struct PlaceFile {
    file: File,
    id: FileId,
    places: u32,
    /// Writes that were handed to the system.
    written: AtomicU64,
    disk: Mutex<Disk>,
}

/// What is known of the disk.
#[derive(Debug, Default)]
struct Disk {
    /// Writes that are on it.
    reached: u64,
    /// Why it is not to be relied upon any more: after a failed sync the system may have dropped what was written, and
    /// say of the next one that it worked.
    broken: Option<String>,
}

impl PlaceFile {
    /// Opens a file, or makes one. An existing one keeps its records, and grows if it has fewer places.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn open(path: &Path, places: u32) -> Result<Self, String> {
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(MODE);
        match options.open(path) {
            Ok(file) => Self::existing(file, path, places),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(path, places),
            Err(error) => Err(named(error)),
        }
    }

    /// Makes the file under another name first, so that one with this name is always whole.
    fn make(path: &Path, places: u32) -> Result<Self, String> {
        let new = path.with_added_extension("new");
        let named = |error: io::Error| format!("{}: {error}", new.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(MODE);
        let file = options.open(&new).map_err(named)?;
        lock(&file, path)?;
        let id = Uuid::now_v7().into_bytes();
        let made = fill(&file, &format::header(id), places)
            .and_then(|()| std::fs::rename(&new, path))
            .and_then(|()| sync_folder(path));
        if let Err(error) = made {
            let _ = std::fs::remove_file(&new);
            return Err(named(error));
        }
        Ok(Self::new(file, id, places))
    }

    fn existing(file: File, path: &Path, places: u32) -> Result<Self, String> {
        let named = |error: io::Error| format!("{}: {error}", path.display());
        lock(&file, path)?;
        let mut header = vec![0; HEADER_BYTES];
        let id = match file.read_exact_at(&mut header, 0) {
            Ok(()) => read_header(&header),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(named(error)),
        };
        let Some(id) = id else {
            return Err(format!(
                "{} is damaged or no spool of this program: ends of runs may be in it, move it away to begin a new one",
                path.display()
            ));
        };
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(named)?;
        let found = places_in(file.metadata().map_err(named)?.len());
        let places = grow(&file, found, places).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), places = found, %error, "the spool can't be made larger");
            found
        });
        Ok(Self::new(file, id, places))
    }

    fn new(file: File, id: FileId, places: u32) -> Self {
        Self {
            file,
            id,
            places,
            written: AtomicU64::new(0),
            disk: Mutex::default(),
        }
    }

    /// Returns how many places there are.
    pub(super) const fn places(&self) -> u32 {
        self.places
    }

    /// Returns the record at a place, if there is a whole one.
    pub(super) fn read(&self, place: u32) -> io::Result<Option<Vec<u8>>> {
        let at = place_at(place);
        let mut length = [0; LENGTH_BYTES];
        self.file.read_exact_at(&mut length, at)?;
        if length == [0; LENGTH_BYTES] {
            return Ok(None);
        }
        let mut bytes = vec![0; PLACE_BYTES];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(format::unseal(self.id, place, &bytes).map(<[u8]>::to_vec))
    }

    /// Writes a record to a place, and returns when it is on the disk. Those that write at the same time share the sync.
    pub(super) fn write(&self, place: u32, record: &[u8]) -> io::Result<()> {
        let bytes = format::seal(self.id, place, record)
            .ok_or_else(|| io::Error::new(ErrorKind::FileTooLarge, "the record is too long"))?;
        self.file.write_all_at(&bytes, place_at(place))?;
        let number = self.written.fetch_add(1, Ordering::AcqRel) + 1;
        let mut disk = self.disk.lock();
        if let Some(broken) = &disk.broken {
            return Err(io::Error::other(broken.clone()));
        }
        if disk.reached >= number {
            return Ok(());
        }
        let reached = self.written.load(Ordering::Acquire);
        match self.file.sync_data() {
            Ok(()) => {
                disk.reached = reached;
                Ok(())
            }
            Err(error) => {
                disk.broken = Some(format!("an earlier sync failed: {error}"));
                Err(error)
            }
        }
    }

    /// Empties a place. Not synced: a record that comes back after a crash is found to be recorded already.
    pub(super) fn clear(&self, place: u32) -> io::Result<()> {
        self.file.write_all_at(&[0; LENGTH_BYTES], place_at(place))
    }
}

fn lock(file: &File, path: &Path) -> Result<(), String> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{} is in use by another process or handle",
            path.display()
        )),
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes every byte: what is only reserved may still be refused when it is needed.
fn fill(mut file: &File, header: &[u8], places: u32) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(header)?;
    grow(file, 0, places)?;
    file.sync_all()
}

/// Adds places, all or none; returns how many there are.
fn grow(file: &File, found: u32, wanted: u32) -> io::Result<u32> {
    if wanted <= found {
        return Ok(found);
    }
    let empty = vec![0; PLACE_BYTES];
    let written = (found..wanted)
        .try_for_each(|place| file.write_all_at(&empty, place_at(place)))
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = file.set_len(place_at(found));
        return Err(error);
    }
    Ok(wanted)
}

/// Brings the file's name to the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
