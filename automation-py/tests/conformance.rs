//! The promises that every executor keeps, kept by both of ours.

#![expect(clippy::unwrap_used, reason = "a test's helper fails like a test")]

use std::sync::Arc;

use automation_core::Executor;
use automation_core::executor_conformance;
use automation_py::{ProcessExecutor, PythonExecutor};

fn executor() -> Arc<dyn Executor> {
    Arc::new(PythonExecutor::builder().build().unwrap())
}

fn isolated() -> Arc<dyn Executor> {
    Arc::new(ProcessExecutor::builder().build().unwrap())
}

executor_conformance!(in_process, executor());
executor_conformance!(process, isolated());
