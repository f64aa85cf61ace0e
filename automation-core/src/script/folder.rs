//! Reads the files of a scripts folder. Knows which files are safe to read, and nothing of what is in them.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Dir, DirEntry, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::{Diagnostic, RegistryError};
use crate::limits::SCRIPT_BYTES_MAX;

/// A file that may be a script.
#[derive(Debug)]
pub(super) struct ScriptFile {
    /// Its name, with U+FFFD where it is not UTF-8.
    pub(super) name: String,
    /// Its bytes, at most one more than a script may have; or why it must not be read.
    pub(super) bytes: Result<Vec<u8>, Diagnostic>,
    /// What is doubtful about it.
    pub(super) warning: Option<Diagnostic>,
}

/// Reads every file of the folder that ends in `.py`, sorted by name; folders, and names that start with `_`
/// or `.` (helper modules, tests), are left out. The folder is opened once and each file within it, so that no
/// name is resolved twice and no link is followed.
///
/// # Errors
/// [`RegistryError`] when the folder can't be read, or when everyone can put a script into it.
pub(super) fn read(path: &Path) -> Result<Vec<ScriptFile>, RegistryError> {
    let fault = |source: Errno| RegistryError::Folder {
        folder: path.to_owned(),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(fault)?;
    let mode = Mode::from_raw_mode(fstat(&folder).map_err(fault)?.st_mode);
    if mode.contains(Mode::WOTH) {
        return Err(RegistryError::Writable {
            folder: path.to_owned(),
            mode: octal(mode),
        });
    }
    if mode.contains(Mode::WGRP) {
        let mode = octal(mode);
        tracing::warn!(folder = %path.display(), mode, "the scripts folder can be changed by its group");
    }
    let mut files = Vec::new();
    for entry in Dir::read_from(&folder).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        if is_candidate(entry.file_name()) {
            files.extend(read_entry(&folder, &entry));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn is_candidate(name: &CStr) -> bool {
    let name = name.to_bytes();
    !name.starts_with(b".")
        && !name.starts_with(b"_")
        && name
            .last_chunk()
            .is_some_and(|end: &[u8; 3]| end.eq_ignore_ascii_case(b".py"))
}

/// Reads one file; `None` when it is a folder, or gone.
fn read_entry(folder: &OwnedFd, entry: &DirEntry) -> Option<ScriptFile> {
    let name = entry.file_name().to_string_lossy().into_owned();
    let kind = entry.file_type();
    if kind == FileType::Directory {
        return None;
    }
    let opened = match kind_fault(kind) {
        Some(fault) => Err(fault.to_owned()),
        None => open(folder, entry.file_name())?,
    };
    let read = opened.and_then(|(file, mode)| {
        let bytes = read_bytes(file).map_err(|error| format!("can't be read: {error}"))?;
        Ok((bytes, mode))
    });
    let warning = match &read {
        Ok((_, mode)) if mode.contains(Mode::WGRP) => {
            let message = format!(
                "its group can change it (mode {}), expected `chmod g-w`",
                octal(*mode)
            );
            Some(Diagnostic::warning(&name, message))
        }
        _ => None,
    };
    Some(ScriptFile {
        bytes: read
            .map(|(bytes, _)| bytes)
            .map_err(|fault| Diagnostic::error(&name, fault)),
        name,
        warning,
    })
}

/// Opens a file that is safe to read, or says why it is not; `None` when it is a folder, or gone.
fn open(folder: &OwnedFd, name: &CStr) -> Option<Result<(File, Mode), String>> {
    // Without O_NONBLOCK the open of a pipe that took the file's place waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened =
        openat(folder, name, flags, Mode::empty()).and_then(|file| Ok((fstat(&file)?, file)));
    let (stat, file) = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return None,
        Err(Errno::LOOP) => return Some(Err(kind_fault(FileType::Symlink)?.to_owned())),
        Err(error) => return Some(Err(format!("can't be read: {}", io::Error::from(error)))),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        return None;
    }
    if let Some(fault) = kind_fault(kind) {
        return Some(Err(fault.to_owned()));
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.contains(Mode::WOTH) {
        let fault = format!(
            "everyone can change it (mode {}), expected `chmod o-w`",
            octal(mode)
        );
        return Some(Err(fault));
    }
    Some(Ok((File::from(file), mode)))
}

fn kind_fault(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Unknown => None,
        FileType::Symlink => Some("a symbolic link, expected the file itself"),
        _ => Some("not a regular file"),
    }
}

fn read_bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SCRIPT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn octal(mode: Mode) -> String {
    format!("{:03o}", mode.bits())
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, OFlags, mkfifoat, openat};

    use super::{kind_fault, open};

    /// What a listing said may be outdated when the file is opened: `open` looks for itself.
    #[test]
    fn a_file_that_was_replaced_after_the_listing_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let fd = openat(CWD, folder.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let opened = |name: &str| open(&fd, &CString::new(name).unwrap());
        fs::write(folder.path().join("file"), "x").unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        mkfifoat(&fd, "pipe", Mode::RUSR).unwrap();

        assert!(opened("file").unwrap().is_ok());
        assert!(opened("folder").is_none() && opened("gone").is_none());
        let fault = |name| opened(name).unwrap().unwrap_err();
        assert_eq!(fault("link"), kind_fault(FileType::Symlink).unwrap());
        assert_eq!(fault("pipe"), kind_fault(FileType::Fifo).unwrap());
    }
}
