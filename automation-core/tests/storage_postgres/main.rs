//! The PostgreSQL backend: it keeps the storage promises, and what it adds to them.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are not recognised as tests"
)]

mod cluster;
#[path = "../support/engines.rs"]
mod engines;
mod faults;
mod keys;
mod outage;
mod proxy;
mod resolutions;
mod rows;
mod schema;
mod security;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use automation_core::conformance::storage::Fixture;
use automation_core::storage::StorageCapabilities;
use automation_core::{PostgresStorage, Storage, storage_conformance};

use crate::cluster::shared;

#[derive(Debug)]
struct Database(String);

impl Database {
    fn new() -> Self {
        Self(shared().database())
    }
}

#[async_trait]
impl Fixture for Database {
    async fn open(&self) -> Arc<dyn Storage> {
        let storage = PostgresStorage::connect(shared().url(&self.0)).await;
        Arc::new(storage.unwrap())
    }

    fn expected_capabilities(&self) -> StorageCapabilities {
        let mut capabilities = StorageCapabilities::default();
        capabilities.durable = true;
        capabilities
    }
}

storage_conformance!(postgres, Database::new());
