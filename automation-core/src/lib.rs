//! Runs helpdesk automation scripts safely and durably.
//!
//! A ticket with its classification selects a script; an [`Executor`] runs it; each run is recorded by a
//! [`Storage`] before a byte of it executes and counted when it ends. [`Automation`] is the handle that
//! applications hold.
#![forbid(unsafe_code)]

mod automation;
mod builder;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod engine;
mod error;
mod execution;
pub mod executor;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod parser;
pub mod redact;
mod request;
pub mod script;
pub mod secret;
mod stats;
mod status;
pub mod storage;

pub use automation::{Automation, Health};
pub use builder::AutomationBuilder;
pub use clock::{Clock, ManualClock, SystemClock};
pub use engine::{Consequence, Quarantined, Retention, Update, Watch};
pub use error::{BuildError, Error, ErrorKind, Problem, Result};
pub use execution::{
    Completion, Concern, Context, Effect, Event, EventKind, Execution, ExecutionId, InstanceId,
    Isolation, Reason, ResourceUsage, TenantId, Trigger,
};
pub use executor::{Executor, FnExecutor};
pub use parser::OutputParser;
pub use request::{
    Classification, Cursor, ExecuteRequest, ExecutionsQuery, Listing, LogsQuery, ManualRequest,
    Page, PruneRequest, Route, StatsQuery, TestRequest, Ticket,
};
pub use script::{Script, ScriptRegistry, Validation};
pub use secret::SecretSource;
pub use stats::{Histogram, ScriptStats, Stats};
pub use status::Status;
#[cfg(feature = "postgres")]
pub use storage::PostgresStorage;
#[cfg(feature = "sqlite")]
pub use storage::{Durability, SqliteStorage};
pub use storage::{MemoryStorage, Storage};
