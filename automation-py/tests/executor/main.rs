//! The in-process executor, embedded: what scripts see, how they end, what they can't do to each other.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

mod support;

mod concurrency;
mod context;
mod endings;
mod environment;
mod inspection;
mod interruption;
mod main_module;
mod run_entry;
mod scheduling;
mod streams;
mod threads;
