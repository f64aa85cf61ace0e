//! A small file system of its own, where this process may mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// Mounts one of so many KiB; `None`, and says so, where that is not allowed.
    #[expect(
        clippy::print_stderr,
        reason = "whoever looks wants to know what was not tested"
    )]
    pub(crate) fn mount(kib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(folder.path())
            .output();
        if made.is_ok_and(|made| made.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("not tested: only root may mount a file system");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left; removing the file gives it back.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        for block in [1 << 16, 1 << 12] {
            while std::io::Write::write_all(&mut file, &vec![0; block]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
