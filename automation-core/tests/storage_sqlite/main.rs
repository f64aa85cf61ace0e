//! The SQLite backend: it keeps the storage promises, and what it adds to them.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod backup;
mod disk;
mod faults;
mod opening;
mod resolutions;
mod rows;
mod tables;
#[path = "../support/tmpfs.rs"]
mod tmpfs;

use std::sync::Arc;

use async_trait::async_trait;
use automation_core::conformance::storage::Fixture;
use automation_core::storage::StorageCapabilities;
use automation_core::{Durability, SqliteStorage, Storage, storage_conformance};
use tempfile::TempDir;

#[derive(Debug)]
struct File {
    folder: TempDir,
    durability: Durability,
}

impl File {
    fn new(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, durability }
    }
}

#[async_trait]
impl Fixture for File {
    async fn open(&self) -> Arc<dyn Storage> {
        let storage = SqliteStorage::builder(self.folder.path().join("automation.db"))
            .durability(self.durability)
            .open()
            .await;
        Arc::new(storage.unwrap())
    }

    fn expected_capabilities(&self) -> StorageCapabilities {
        let mut capabilities = StorageCapabilities::default();
        capabilities.durable = true;
        capabilities
    }
}

storage_conformance!(normal, File::new(Durability::Normal));
storage_conformance!(full, File::new(Durability::Full));
