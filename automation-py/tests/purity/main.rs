//! Runs in one process, one after another and at the same time, none of which may notice the others; and what is
//! done about those that change the process. A program of its own, since each test must know which runs there are.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]
#![expect(
    clippy::await_holding_lock,
    reason = "it keeps the tests apart, each of which has a thread of its own"
)]

#[path = "../executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the executor")]
mod support;
#[path = "../executor/tested.rs"]
mod tested;

mod changes;
mod pools;
mod views;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use automation_core::executor::{Ending, Outcome, RunEvent};
use automation_py::PythonExecutor;
use parking_lot::{Mutex, MutexGuard};

use self::support::Case;
use self::tested::{Tested, executor};

/// Keeps every other test of this program waiting.
fn undisturbed() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock()
}

fn executor_with(workers: usize) -> PythonExecutor {
    PythonExecutor::builder().workers(workers).build().unwrap()
}

/// A run's outcome, and what it was told.
type Ran = (Outcome, Vec<RunEvent>);

async fn run(executor: &PythonExecutor, source: &str) -> Ran {
    let case = Case::new(source);
    let host = Arc::clone(&case.host);
    let outcome = case.run(executor).await;
    let events = std::mem::take(&mut *host.events.lock());
    (outcome, events)
}

/// Runs what has to complete and to change nothing. Returns its standard output.
async fn stdout(executor: &PythonExecutor, source: &str) -> String {
    let (outcome, events) = run(executor, source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!((outcome.concern, events), (None, vec![]), "{source}");
    outcome.output.stdout.text
}

/// Runs a script; while it waits after `first`, another one; and then what is left of the first, `rest`.
async fn overlapping(first: &str, second: &str, rest: &str) -> [Ran; 2] {
    let executor = executor_with(2);
    let folder = tempfile::tempdir().unwrap();
    let (changed, go_on) = (folder.path().join("changed"), folder.path().join("go_on"));
    let source = format!(
        "import os as _os, time as _time\n{first}\nopen({changed:?}, 'w').close()\n\
         while not _os.path.exists({go_on:?}): _time.sleep(0.001)\n{rest}\n"
    );
    let case = Case::new(&source);
    let host = Arc::clone(&case.host);
    let ended = AtomicBool::new(false);
    let first = async {
        let outcome = case.run(&executor).await;
        ended.store(true, Ordering::Relaxed);
        outcome
    };
    let other = async {
        while !changed.exists() && !ended.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = run(&executor, second).await;
        std::fs::write(&go_on, "").unwrap();
        second
    };
    let (outcome, second) = tokio::join!(first, other);
    let events = std::mem::take(&mut *host.events.lock());
    [(outcome, events), second]
}
