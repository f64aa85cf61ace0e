//! The promises that every executor keeps, kept by the in-process one.

#![expect(clippy::unwrap_used, reason = "a test's helper fails like a test")]

use std::sync::Arc;

use automation_core::Executor;
use automation_core::executor_conformance;
use automation_py::PythonExecutor;

fn executor() -> Arc<dyn Executor> {
    Arc::new(PythonExecutor::builder().build().unwrap())
}

executor_conformance!(in_process, executor());
