//! What happens when the interpreter does not survive a refusal of memory. A process of its own: it breaks it.

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

use automation_core::Reason;
use automation_core::executor::{CancelToken, Executor, ExecutorError};

use self::support::{Case, failure};
use self::tested::{Tested, executor};

#[tokio::test]
async fn a_broken_interpreter_takes_no_further_run() {
    let executor = executor();
    // Stands for an object that a refusal has left half-made. What is missing is no name of a module or a class, which
    // would be put back.
    let source = "import json\ndel json._default_decoder.scan_once\nbytes(10**10)";
    let mut case = Case::new(source);
    case.invocation.limits.memory_bytes = 32 << 20;
    let outcome = case.run(&executor).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit, "{outcome:?}");
    let health = executor.health().await;
    assert!(!health.available);
    let problem = "the interpreter broke when a run met its memory limit: AttributeError: 'JSONDecoder' \
                   object has no attribute 'scan_once'";
    assert_eq!(health.details["problem"], problem);
    let refused = executor
        .execute(Case::new("print(1)").invocation, CancelToken::new())
        .await;
    let Err(ExecutorError::Unavailable { detail }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(detail, problem);
}
