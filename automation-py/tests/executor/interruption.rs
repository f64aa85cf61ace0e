//! Deadlines and cancels.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{Ending, Executor, ExecutorError, Outcome, RunEvent};
use automation_core::{Concern, Reason};
use automation_py::PythonExecutor;
use pyo3::prelude::*;

use crate::support::{Case, STUCK, executor, failure};

const SHORT: Duration = Duration::from_millis(100);

async fn timed_out(executor: &PythonExecutor, source: &str) -> Outcome {
    let outcome = Case::new(source).within(SHORT).run(executor).await;
    assert_eq!(
        failure(&outcome),
        (Reason::Timeout, "timed out after 0.1 s"),
        "{source}"
    );
    assert!(outcome.output.interrupted);
    outcome
}

async fn still_works(executor: &PythonExecutor) {
    let outcome = Case::new("print('works')").run(executor).await;
    assert_eq!(outcome.output.stdout.text, "works\n");
}

#[tokio::test]
async fn python_code_ends_at_its_deadline() {
    let executor = executor();
    for source in [
        "print('before')\nwhile True: pass\n",
        "print('before')\nwhile True:\n    try:\n        while True: x = 1\n    except Exception: pass\n",
        "print('before')\ntry:\n    while True: pass\nfinally:\n    while True: pass\n",
        "import time\nprint('before')\nwhile True: time.sleep(0.01)\n",
        "print('before')\nclass A:\n    def __del__(self):\n        while True: pass\na = A()\n",
        "import atexit\nprint('before')\n@atexit.register\ndef f():\n    while True: pass\n",
        "import sys\nprint('before')\nclass Out:\n    def write(self, t): pass\n    def flush(self):\n        while True: pass\nsys.stderr = Out()\n",
        "import threading\nprint('before')\ndef f():\n    while True: pass\nt = threading.Thread(target=f)\nt.start(); t.join()\n",
        "import sys\nprint('before')\nclass Out:\n    def write(self, t): pass\n    def flush(self): pass\n    def __del__(self):\n        while True: pass\nsys.stderr = Out()\n",
        "import threading\nprint('before')\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\n",
        "import threading, time\nprint('before')\nthreading.Thread(target=time.sleep, args=(1,)).start()\n",
    ] {
        let outcome = timed_out(&executor, source).await;
        assert!(!outcome.still_running, "{source}");
        assert!(
            outcome.duration < SHORT * 4,
            "{:?} {source}",
            outcome.duration
        );
        assert!(
            outcome.output.stdout.text.starts_with("before\n"),
            "{source}"
        );
        still_works(&executor).await;
    }
    assert_eq!(executor.health().await.quarantined_threads, 0);
}

#[tokio::test]
async fn the_traceback_shows_where_it_was() {
    let outcome = timed_out(&executor(), "def spin():\n    while True: pass\nspin()\n").await;
    let stderr = outcome.output.stderr.text;
    assert!(stderr.contains("line 2, in spin\n"), "{stderr}");
    assert!(stderr.ends_with("automation.RunInterrupted\n"), "{stderr}");
}

#[tokio::test]
async fn what_can_not_be_stopped_is_abandoned_and_replaced() {
    let executor = PythonExecutor::builder()
        .workers(1)
        .grace(Duration::from_millis(100))
        .build()
        .unwrap();
    let source = format!("{STUCK}print('before')\nstuck(1)\nprint('after')\n");
    let case = Case::new(&source).within(SHORT);
    let host = Arc::clone(&case.host);
    let outcome = case.run(&executor).await;
    assert!(outcome.still_running);
    assert_eq!(outcome.concern, Some(Concern::Abandoned));
    assert_eq!(*host.events.lock(), [], "it has not ended");
    assert_eq!(outcome.output.stdout.text, "before\n");
    assert!(outcome.duration < Duration::from_millis(600), "{outcome:?}");
    still_works(&executor).await;
    let health = executor.health().await;
    assert_eq!(
        (health.quarantined_threads, health.workers, health.busy),
        (1, 1, 0)
    );
    // It ends at last: the interruption waits for it.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let health = executor.health().await;
    assert_eq!((health.quarantined_threads, health.workers), (0, 1));
    assert_eq!(*host.events.lock(), [RunEvent::LateEnd]);
    still_works(&executor).await;
}

/// Traced code looks for an interruption at every line, and is where one that was only half taken back shows.
const TRACED: &std::ffi::CStr =
    c"import sys\ndef f():\n    return 1\nsys.settrace(lambda *a: None)\nf()\nsys.settrace(None)\nprint('traced')\n";

#[tokio::test]
async fn no_interruption_outlives_its_run() {
    let executor = executor();
    let spinning = [
        "while True: pass\n",
        "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\nf()\n",
        "import time\nwhile True: time.sleep(0.02)\n",
    ];
    for source in ["print('not cut')\n"].iter().chain(&spinning) {
        let _ = Case::new(source).within(SHORT).run(&executor).await;
        let traced = Case::new(TRACED.to_str().unwrap()).within(SHORT * 20);
        let outcome = traced.run(&executor).await;
        assert_eq!(outcome.output.stdout.text, "traced\n", "{source}");
        Python::attach(|py| py.run(TRACED, None, None)).unwrap();
    }
}

/// A script that ends in the very moment in which it is abandoned: its thread takes no other run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_after_an_abandoned_one_keeps_its_deadline() {
    let executor = PythonExecutor::builder()
        .workers(1)
        .grace(Duration::from_millis(30))
        .build()
        .unwrap();
    for turn in 0..60 {
        // A long output takes its time to be decoded.
        let source = format!(
            "import sys, time\nend = time.perf_counter() + {}\nsys.stdout.write('\\u00e9 ' * 400000)\n\
             while True:\n    try:\n        while time.perf_counter() < end: time.sleep(0.0001)\n        break\n\
             \x20   except BaseException: pass\n",
            0.0595 + f64::from(turn % 20) * 0.0003
        );
        let first = Case::new(&source).within(Duration::from_millis(30));
        let next = Case::new("while True: pass\n").within(Duration::from_millis(30));
        let both = async { tokio::join!(first.run(&executor), next.run(&executor)) };
        let (_, next) = tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .expect("the next run has a deadline");
        assert_eq!(failure(&next).0, Reason::Timeout);
    }
}

#[tokio::test]
async fn a_long_grace_ends_too() {
    let executor = PythonExecutor::builder()
        .grace(Duration::from_millis(6500))
        .build()
        .unwrap();
    let outcome = timed_out(&executor, &format!("{STUCK}stuck(8)\n")).await;
    assert!(outcome.still_running);
    assert!(outcome.duration < Duration::from_secs(7), "{outcome:?}");
}

#[tokio::test]
async fn too_many_abandoned_threads_close_the_door_until_one_ends() {
    let executor = PythonExecutor::builder()
        .workers(1)
        .grace(Duration::from_millis(50))
        .abandoned_max(1)
        .build()
        .unwrap();
    let source = format!("{STUCK}stuck(1)\n");
    for _ in 0..2 {
        assert!(timed_out(&executor, &source).await.still_running);
    }
    assert!(!executor.health().await.available);
    let case = Case::new("print()");
    let refused = executor.execute(case.invocation, case.cancel).await;
    assert!(
        matches!(refused, Err(ExecutorError::Unavailable { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(executor.health().await.available);
    still_works(&executor).await;
}

#[tokio::test]
async fn a_cancel_that_can_not_end_it_is_a_failure() {
    let executor = executor();
    let case = Case::new(&format!("{STUCK}stuck(1)\n"));
    let (cancel, host) = (case.cancel.clone(), Arc::clone(&case.host));
    let waiter = tokio::spawn(async move {
        while host.started.lock().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Until it has come to where nothing ends it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let outcome = case.run(&executor).await;
    waiter.await.unwrap();
    assert_eq!(failure(&outcome).0, Reason::CancelledByRequest);
    assert!(outcome.still_running);
}

#[tokio::test]
async fn a_queue_behind_a_slow_script_goes_on_elsewhere() {
    let executor = Arc::new(executor());
    let slow = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move {
            Case::new("import time\ntime.sleep(0.5)\n")
                .run(&executor)
                .await
        }
    });
    let begin = Instant::now();
    for _ in 0..20 {
        still_works(&executor).await;
    }
    assert!(
        begin.elapsed() < Duration::from_millis(400),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(slow.await.unwrap().ending, Ending::Completed);
}
