//! The engine's promises, with functions as scripts and executions in memory or in SQLite.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

mod attempts;
mod disk;
mod effects;
#[path = "../support/engines.rs"]
mod engines;
mod faults;
mod output_schema;
mod patience;
mod pruning;
mod quarantine;
mod recovery;
mod runs;
mod secrets;
mod spool;
mod stopping;
mod support;
#[path = "../support/tmpfs.rs"]
mod tmpfs;
mod validating;
mod waiting;
mod watching;
