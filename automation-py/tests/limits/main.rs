//! What runs use is counted, and what they may use is limited: memory, processor time, output. A process of its
//! own, since it looks at the memory of the whole process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "../executor/support.rs"]
#[expect(dead_code, reason = "shared with the other suites")]
mod support;
#[path = "../executor/tested.rs"]
mod tested;

mod imports;
mod memory;
mod processor;
mod torture;
mod usage;

use automation_core::executor::{Executor, Outcome};
use automation_py::PythonExecutor;
use tokio::sync::RwLock;

use self::support::Case;
use self::tested::{Tested, executor};

const MIB: u64 = 1 << 20;

/// Held by who looks at the memory of the whole process, while nobody else allocates much.
static ALONE: RwLock<()> = RwLock::const_new(());

/// Runs a source with a limit of memory.
async fn limited(executor: &PythonExecutor, memory_mib: u64, source: &str) -> Outcome {
    let _others = ALONE.read().await;
    run_limited(executor, memory_mib, source).await
}

async fn run_limited(executor: &PythonExecutor, memory_mib: u64, source: &str) -> Outcome {
    let mut case = Case::new(source);
    case.invocation.limits.memory_bytes = memory_mib * MIB;
    case.run(executor).await
}

/// Asserts that the next run finds everything as it should be.
async fn assert_next_run_works(executor: &PythonExecutor) {
    let source = "import json, re\nprint(json.dumps({'a': re.sub('x', 'y', 'xx')}))\n";
    let outcome = Case::new(source).run(executor).await;
    assert_eq!(
        outcome.output.stdout.text, "{\"a\": \"yy\"}\n",
        "{outcome:?}"
    );
    assert!(executor.health().await.available);
}

/// Returns the memory of this process that is in use, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}
