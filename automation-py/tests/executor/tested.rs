//! What most suites are about: the in-process executor, one that gives up soon.

use std::time::Duration;

pub(crate) use automation_py::PythonExecutor as Tested;

/// Returns an executor that gives up soon.
#[allow(dead_code, reason = "some suites build executors of their own only")]
pub(crate) fn executor() -> Tested {
    Tested::builder()
        .grace(Duration::from_millis(600))
        .build()
        .unwrap()
}
