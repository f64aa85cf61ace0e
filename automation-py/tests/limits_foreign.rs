//! Where the host has hooked the interpreter's allocators before us.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the embedded case")]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use automation_core::executor::{Ending, Executor};
use pyo3::prelude::*;

use self::support::Case;
use self::tested::{Tested, executor};

#[tokio::test]
async fn another_allocator_stays_and_health_says_that_memory_is_not_counted() {
    Python::initialize();
    Python::attach(|py| py.run(c"import tracemalloc; tracemalloc.start()", None, None)).unwrap();
    let executor = executor();
    assert_eq!(
        executor.health().await.details["memory"],
        "off: another allocator is in place (python -X dev, tracemalloc, a profiler)"
    );
    let source =
        "import tracemalloc\nx = bytes(10**6)\nprint(tracemalloc.get_traced_memory()[0] > 10**6)";
    let mut case = Case::new(source);
    case.invocation.limits.memory_bytes = 1000;
    let outcome = case.run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.stdout.text, "True\n");
    assert_eq!(outcome.usage.memory_peak_bytes, None);
    assert!(outcome.usage.cpu_us.is_some());
}
