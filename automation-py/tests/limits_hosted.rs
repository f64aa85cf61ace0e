//! Where Python is the host's: its allocators are hooked while it runs, and its own memory is nobody's.

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
use automation_core::executor::{Ending, Executor};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::support::{Case, failure};
use self::tested::{Tested, executor};

const BEFORE: &std::ffi::CStr = cr"
import threading
blocks = [bytes(n * 100) for n in range(500)]
texts = ['text %d' % n * 100 for n in range(500)]
stop = threading.Event()
def churn():
    while not stop.is_set():
        kept = [bytearray(n * 50) for n in range(100)]
thread = threading.Thread(target=churn)
thread.start()
";

const AFTER: &std::ffi::CStr = cr"
import colorsys, tracemalloc
big = bytes(100 * 2**20)
big = bytearray(1000)
for n in range(1000): big += bytes(1000)
del blocks[::2], texts[1::2]
assert eval('1 + 1') == 2
tracemalloc.start()
traced = [bytes(10_000) for n in range(100)]
assert tracemalloc.get_traced_memory()[0] > 900_000
tracemalloc.stop()
del traced, blocks, texts
stop.set()
thread.join()
";

#[tokio::test]
async fn a_hosts_memory_is_its_own() {
    Python::initialize();
    let namespace = Python::attach(|py| {
        let namespace = PyDict::new(py);
        py.run(BEFORE, Some(&namespace), None).unwrap();
        namespace.unbind()
    });
    let executor = executor();
    assert_eq!(executor.health().await.details["memory"], "limited");
    let limited = |source: &str| {
        let mut case = Case::new(source);
        case.invocation.limits.memory_bytes = 32 << 20;
        case.run(&executor)
    };
    let outcome = limited(
        "import copyreg\ncopyreg.dispatch_table['kept'] = [bytes(10_000) for n in range(100)]",
    )
    .await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let outcome = limited("x = []\nwhile True: x.append(bytes(100_000))").await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
    // Frees what a run has made, among the rest.
    Python::attach(|py| {
        let namespace = namespace.bind(py);
        py.run(AFTER, Some(namespace), None).unwrap();
        py.run(
            c"import copyreg; del copyreg.dispatch_table['kept']",
            Some(namespace),
            None,
        )
        .unwrap();
    });
    let outcome = limited("print(len(bytes(31 * 2**20)))").await;
    assert_eq!(outcome.output.stdout.text, "32505856\n", "{outcome:?}");
}
