//! The storage promises, kept by the memory backend.

use std::sync::Arc;

use async_trait::async_trait;
use automation_core::conformance::storage::Fixture;
use automation_core::storage::StorageCapabilities;
use automation_core::{MemoryStorage, Storage, storage_conformance};

#[derive(Debug)]
struct Memory;

#[async_trait]
impl Fixture for Memory {
    async fn open(&self) -> Arc<dyn Storage> {
        Arc::new(MemoryStorage::new())
    }

    fn expected_capabilities(&self) -> StorageCapabilities {
        StorageCapabilities::default()
    }
}

storage_conformance!(memory, Memory);
