//! Runs automation scripts on a CPython that lives in this process.
//!
//! [`PythonExecutor`] is the in-process [`Executor`](automation_core::Executor): a script compiled once runs in
//! microseconds. Concurrent runs share the interpreter and see none of each other's command line, streams,
//! environment and `__main__`. [`ProcessExecutor`] runs each script in a process of its own, which can always be ended.

mod convert;
mod executor;
mod ffi;
mod interpreter;
mod module;
#[cfg(target_os = "linux")]
mod process;
#[cfg(not(target_os = "linux"))]
#[path = "process/elsewhere.rs"]
mod process;
mod run;

pub use executor::{PythonExecutor, PythonExecutorBuilder};
pub use process::{ProcessExecutor, ProcessExecutorBuilder};

/// The README's Rust lines compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
