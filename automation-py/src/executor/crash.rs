//! The file in which a process that dies in a run leaves that run's id, for its successors to read until one of them
//! has recorded it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use automation_core::ExecutionId;
use uuid::Uuid;

use crate::ffi;

/// Bytes of an id, and of the place it has in the file.
const ID_BYTES: usize = 16;
/// What stands in the place of an id that is forgotten.
const FORGOTTEN: [u8; ID_BYTES] = [0; ID_BYTES];

/// The open file.
#[derive(Debug)]
pub(super) struct CrashFile(File);

impl CrashFile {
    /// Opens the file, which only its owner may read if it is new, and has fatal signals write to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = options().append(true).open(path)?;
        // A descriptor of its own: one that appends can't write anywhere else.
        let opened = Self(options().write(true).open(path)?);
        opened.shorten()?;
        ffi::crash::write_to(file);
        Ok(opened)
    }

    /// Cuts off what names nobody: all of it when every id is forgotten, else a last write that the end of the process
    /// cut short. Nothing else is cut off while fatal signals may write.
    fn shorten(&self) -> io::Result<()> {
        let ids = self.ids()?;
        let is_settled = ids.iter().all(|id| *id == FORGOTTEN);
        let kept = if is_settled { 0 } else { ids.len() * ID_BYTES };
        self.0.set_len(kept as u64)
    }

    fn ids(&self) -> io::Result<Vec<[u8; ID_BYTES]>> {
        let length = usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.as_chunks().0.to_vec())
    }

    /// Returns the runs that earlier processes left.
    pub(super) fn runs(&self) -> io::Result<Vec<ExecutionId>> {
        let ids = self.ids()?.into_iter();
        let ids = ids.filter(|id| *id != FORGOTTEN).map(Uuid::from_bytes);
        Ok(ids.map(ExecutionId::from_uuid).collect())
    }

    /// Forgets these runs, each in its place.
    pub(super) fn forget(&self, runs: &[ExecutionId]) -> io::Result<()> {
        for (place, id) in self.ids()?.iter().enumerate() {
            if runs.iter().any(|run| run.as_uuid().as_bytes() == id) {
                self.0.write_all_at(&FORGOTTEN, (place * ID_BYTES) as u64)?;
            }
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true).truncate(false).mode(0o600);
    options
}
