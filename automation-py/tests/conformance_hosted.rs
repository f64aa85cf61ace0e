//! The promises that every executor keeps, kept by both of ours where Python is a host's and was there before them.

#![expect(clippy::unwrap_used, reason = "a test's helper fails like a test")]

use std::sync::Arc;

use automation_core::Executor;
use automation_core::executor_conformance;
use automation_py::{ProcessExecutor, PythonExecutor};
use pyo3::Python;

fn executor() -> Arc<dyn Executor> {
    Python::initialize();
    Arc::new(PythonExecutor::builder().build().unwrap())
}

fn isolated() -> Arc<dyn Executor> {
    Python::initialize();
    Arc::new(ProcessExecutor::builder().build().unwrap())
}

executor_conformance!(in_process, executor());
executor_conformance!(process, isolated());

#[tokio::test]
async fn python_is_the_hosts_here() {
    let details = executor().health().await.details;
    assert_eq!(details["hosted"], true, "{details:?}");
}
