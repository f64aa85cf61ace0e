//! Executions in memory.

/// Keeps everything in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage;
