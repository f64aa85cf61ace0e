//! What needs the process to itself: scripts that keep the GIL, and what an idle executor does.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod support;

use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Executor};
use automation_py::PythonExecutor as Tested;

use self::support::{Case, failure};

fn executor() -> Tested {
    let builder = Tested::builder();
    builder
        .grace(std::time::Duration::from_millis(300))
        .build()
        .unwrap()
}

/// Returns how often the threads with this name gave the processor up by themselves.
fn sleeps(name: &str) -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        if field("Name:").unwrap().trim() == name {
            let count = field("voluntary_ctxt_switches:").unwrap().trim();
            sum += count.parse::<u64>().unwrap();
        }
    }
    sum
}

#[tokio::test]
async fn a_script_that_keeps_the_gil_delays_other_scripts_and_nothing_else() {
    let executor = executor();
    // One call of C code that never looks up: some seconds.
    let case = Case::new("sum(range(400_000_000))\n").within(Duration::from_millis(100));
    let id = case.invocation.execution_id;
    let begin = Instant::now();
    let outcome = case.run(&executor).await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(failure(&outcome).0, Reason::Timeout);
    assert!(outcome.still_running);
    let mut answers = Vec::new();
    for _ in 0..300 {
        let begin = Instant::now();
        let health = executor.health().await;
        answers.push(begin.elapsed());
        assert_eq!(health.quarantined_threads, 1);
    }
    answers.sort();
    assert!(answers[296] < Duration::from_millis(50), "{answers:?}");
    let held = &executor.health().await.details["gil_held"];
    assert!(held["ms"].as_u64().is_some_and(|ms| ms > 300), "{held}");
    assert_eq!(held["execution"], id.to_string());
    let later = Case::new("print('later')").run(&executor).await;
    assert_eq!(later.output.stdout.text, "later\n");

    // The pool is whole again when the call is over, and then nothing ticks.
    while executor.health().await.quarantined_threads > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = sleeps("python-watch") + sleeps("python-inject") + sleeps("python-pulse");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = sleeps("python-watch") + sleeps("python-inject") + sleeps("python-pulse");
    assert!(
        after - before <= 1,
        "an idle watchdog woke {} times",
        after - before
    );
    let outcome = Case::new("while True: pass").within(Duration::from_millis(50));
    let outcome = outcome.run(&executor).await;
    assert_ne!(
        outcome.ending,
        Ending::Completed,
        "it woke when it was needed"
    );
}
