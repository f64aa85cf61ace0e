//! The interpreter in this process, as whoever embeds it sees it.

use automation_core::{Executor, Script};

use crate::support::executor;

#[tokio::test]
async fn another_interpreter_is_refused() {
    let _executor = executor();
    let error = automation_py::PythonExecutor::builder()
        .python("/absent/python")
        .build()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/absent/python can't be executed"),
        "{error}"
    );
}

#[tokio::test]
async fn health_says_what_is_embedded() {
    let health = executor().health().await;
    let version = health.version.unwrap();
    assert!(version.starts_with("Python 3."), "{version}");
    let detail = |key: &str| health.details[key].as_str().unwrap().to_owned();
    assert_eq!(detail("executable"), env!("AUTOMATION_BUILD_PYTHON"));
    assert!(detail("build").starts_with(version.trim_start_matches("Python ")));
    assert!(
        detail("library").contains("libpython"),
        "{}",
        detail("library")
    );
    assert_eq!(health.details["hosted"], false);
    assert!(!health.details.contains_key("warning"));
    assert_eq!((health.workers, health.available), (1, true));
}

#[tokio::test]
async fn a_caller_that_holds_the_gil_may_build_and_inspect() {
    let script = Script::parse("probe.py", b"x = = 1").unwrap();
    let _first = executor();
    let diagnostics = pyo3::Python::attach(|_| executor().inspect(&script).unwrap().diagnostics);
    assert_eq!(diagnostics.len(), 1);
}
