//! The in-process executor, embedded: what scripts see, how they end, what they can't do to each other.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

mod support;
mod tested;

mod bombs;
mod children;
mod concurrency;
mod context;
mod descriptors;
mod effects;
mod embedding;
mod endings;
mod environment;
mod folder;
mod guard;
mod inspection;
mod interruption;
mod lints;
mod main_module;
mod place;
mod purity_folder;
mod queue;
mod run_cmd;
mod run_entry;
mod scheduling;
mod shared_interpreter;
mod signature;
mod streams;
mod streams_by_number;
mod threads;
mod waiting;

use self::tested::{Tested, executor};
