//! The file in which a process that dies in a run leaves that run's id, for its successor to read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use automation_core::ExecutionId;
use uuid::Uuid;

use crate::ffi;

/// The open file.
#[derive(Debug)]
pub(super) struct CrashFile(File);

impl CrashFile {
    /// Opens the file, which only its owner may read if it is new, and has fatal signals write to it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        ffi::crash::write_to(file.try_clone()?);
        Ok(Self(file))
    }

    /// Returns the runs that an earlier process left, and forgets them.
    pub(super) fn take(&self) -> io::Result<Vec<ExecutionId>> {
        let mut bytes = Vec::new();
        (&self.0).rewind()?;
        (&self.0).read_to_end(&mut bytes)?;
        self.0.set_len(0)?;
        // A write that the end of the process cut short names nobody.
        let (ids, _) = bytes.as_chunks::<16>();
        let ids = ids.iter().map(|id| Uuid::from_bytes(*id));
        Ok(ids.map(ExecutionId::from_uuid).collect())
    }
}
