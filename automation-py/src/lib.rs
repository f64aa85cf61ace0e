//! Runs automation scripts on a CPython that lives in this process.
//!
//! [`PythonExecutor`] is the in-process [`Executor`](automation_core::Executor): a script compiled once runs in
//! microseconds. Concurrent runs share the interpreter and see none of each other's command line, streams,
//! environment and `__main__`.

mod convert;
mod executor;
mod ffi;
mod interpreter;
mod module;
mod process;
mod run;

pub use executor::{PythonExecutor, PythonExecutorBuilder};
pub use process::{ProcessExecutor, ProcessExecutorBuilder};

/// The README's Rust lines compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
