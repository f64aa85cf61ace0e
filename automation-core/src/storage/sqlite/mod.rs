//! Executions in SQLite.

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is on the disk.
    #[default]
    Full,
    /// When it is with the operating system: a power cut may lose the latest commits.
    Normal,
}

/// Keeps everything in one SQLite file.
#[derive(Debug)]
pub struct SqliteStorage;
