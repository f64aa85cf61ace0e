//! What the ladder must not do: leave something behind, take what is not the run's, deny a clean-up its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Executor};
use automation_py::PythonExecutor;
use pyo3::prelude::*;

use crate::ALONE;
use crate::cases::ROWS;
use crate::support::{Case, STUCK, failure};

const TIMEOUT: Duration = Duration::from_millis(50);

fn executor() -> PythonExecutor {
    PythonExecutor::builder().workers(2).build().unwrap()
}

async fn cut(executor: &PythonExecutor, source: &str) -> String {
    let outcome = Case::new(source).within(TIMEOUT).run(executor).await;
    assert_eq!(failure(&outcome).0, Reason::Timeout, "{source}");
    assert!(!outcome.still_running, "{source}");
    outcome.output.stdout.text + &outcome.output.stderr.text
}

#[tokio::test]
async fn what_cleans_up_has_its_time() {
    let _alone = ALONE.lock().await;
    let executor = executor();
    for wait in [
        "time.sleep(8)",
        "pair[0].recv(1)",
        "queue.Queue().get()",
        "threading.Event().wait()",
        "subprocess.run(['sleep', '8'])",
        "select.select([pair[0]], [], [])",
        "sum(map(lambda _: 0, iter(int, 1)))",
    ] {
        let source = format!(
            "import time, socket, queue, threading, subprocess, select, tempfile\npair = socket.socketpair()\n\
             try: {wait}\nfinally:\n    time.sleep(0.02)\n    for i in range(20_000): pass\n\
             \x20   with tempfile.TemporaryFile() as f: f.write(b'x' * 100_000)\n    print('cleaned up')\n"
        );
        let text = cut(&executor, &source).await;
        assert!(text.starts_with("cleaned up\n"), "{wait}: {text}");
        assert!(
            text.ends_with("automation.RunInterrupted\n"),
            "{wait}: {text}"
        );
    }
}

/// The kernel counts the children of a thread that has ended to another one.
#[tokio::test]
async fn a_program_that_an_ended_thread_started_ends_too() {
    let _alone = ALONE.lock().await;
    let source = "import subprocess, threading\nprograms = []\n\
        start = lambda: programs.append(subprocess.Popen(['sleep', '7.531']))\n\
        thread = threading.Thread(target=start)\nthread.start()\nthread.join()\n\
        print(programs[0].pid, flush=True)\nprograms[0].wait()\n";
    let text = cut(&executor(), source).await;
    let process = text.lines().next().unwrap();
    let process = format!("/proc/{process}");
    assert!(!std::path::Path::new(&process).exists(), "{text}");
}

#[tokio::test]
async fn no_handler_takes_the_end_for_a_failure() {
    let _alone = ALONE.lock().await;
    let source = "import socket, queue, time\npair = socket.socketpair()\n\
        for wait in (lambda: time.sleep(8), pair[0].recv, queue.SimpleQueue().get):\n\
        \x20   try: wait(*[1] * (getattr(wait, '__name__', '') == 'recv'))\n\
        \x20   except Exception as error: print('caught', repr(error))\n";
    let text = cut(&executor(), source).await;
    assert!(text.starts_with("Traceback"), "{text}");
}

#[tokio::test]
async fn a_lock_that_was_not_got_is_neither_entered_nor_released() {
    let _alone = ALONE.lock().await;
    let executor = executor();
    let locks = c"import threading\nthreading.theirs = (threading.Lock(), threading.RLock())\nfor l in threading.theirs: l.acquire()\n";
    Python::attach(|py| py.run(locks, None, None)).unwrap_or_else(|error| panic!("{error}"));
    for number in 0..2 {
        let source = format!(
            "import threading\nwith threading.theirs[{number}]: print('entered')\nprint('went on')\n"
        );
        for _ in 0..5 {
            let text = cut(&executor, &source).await;
            assert!(
                !text.starts_with("entered") && !text.starts_with("went on"),
                "{text}"
            );
        }
    }
    let still = c"assert threading.theirs[0].locked()\nfor l in threading.theirs: l.release()\n";
    Python::attach(|py| {
        let namespace = pyo3::types::PyDict::new(py);
        namespace.set_item("threading", py.import("threading")?)?;
        py.run(still, Some(&namespace), None)
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn a_trace_function_of_before_is_put_back_and_none_stays() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder().workers(1).build().unwrap();
    let source = "import atexit, sys\ndef mine(*a): return None\nsys.settrace(mine)\n\
        @atexit.register\ndef look(): print(sys.gettrace() is mine)\n\
        while True:\n    try:\n        x = 1\n        while True: x = 2\n    except BaseException: pass\n";
    assert!(cut(&executor, source).await.starts_with("True\n"));
    let next = Case::new("import sys\nprint(sys.gettrace())\n")
        .run(&executor)
        .await;
    assert_eq!(next.output.stdout.text, "None\n");
}

#[tokio::test]
async fn without_tracing_a_loop_that_catches_everything_is_abandoned() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder()
        .trace_loops(false)
        .grace(Duration::from_millis(200))
        .build()
        .unwrap();
    // In a function: from Python 3.12 on the compiler leaves the jump back of a loop with a condition out of the `try`
    // around it, and the interruption strikes there.
    let source = "import time\nend = time.monotonic() + 1\ndef wait():\n    while time.monotonic() < end: pass\n\
        while True:\n    try:\n        wait()\n        break\n    except BaseException: pass\n";
    let outcome = Case::new(source).within(TIMEOUT).run(&executor).await;
    assert!(outcome.still_running);
}

#[tokio::test]
async fn a_cancel_is_the_same_ladder() {
    let _alone = ALONE.lock().await;
    let executor = executor();
    for name in [
        "`time.sleep`",
        "`Queue.get`",
        "`subprocess.run`",
        "`while True: pass`",
    ] {
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        let case = Case::new(row.source);
        let (cancel, host) = (case.cancel.clone(), Arc::clone(&case.host));
        let canceller = tokio::spawn(async move {
            while host.started.lock().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            cancel.cancel();
            Instant::now()
        });
        let outcome = case.run(&executor).await;
        let latency = canceller.await.unwrap().elapsed();
        assert_eq!(
            (outcome.ending, outcome.still_running),
            (Ending::Cancelled, false),
            "{name}"
        );
        assert!(latency < Duration::from_millis(500), "{name}: {latency:?}");
    }
}

/// A child of an earlier run on the same thread is none of the later run's.
#[tokio::test]
async fn only_the_runs_own_children_are_killed() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder().workers(1).build().unwrap();
    let source = "import subprocess, threading\n\
        threading.earlier = subprocess.Popen(['sleep', '3'])\nprint(threading.earlier.pid)\n";
    let first = Case::new(source).run(&executor).await;
    let pid = first.output.stdout.text.trim().to_owned();
    tokio::time::sleep(Duration::from_millis(30)).await;
    cut(
        &executor,
        "import subprocess\nsubprocess.run(['sleep', '8'])\n",
    )
    .await;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!stat.contains(") Z"), "{stat}");
    let source = "import threading\nthreading.earlier.kill()\nprint(threading.earlier.wait())\n";
    assert_eq!(
        Case::new(source).run(&executor).await.output.stdout.text,
        "-9\n"
    );
}

#[tokio::test]
async fn health_says_that_waits_end_and_what_is_abandoned() {
    let _alone = ALONE.lock().await;
    let executor = executor();
    let health = executor.health().await;
    assert_eq!(health.details["waits"], "interruptible");
    assert!(health.details["gil_held"].is_null());
    let outcome = Case::new(&format!("{STUCK}stuck(1.5)\n"))
        .within(TIMEOUT)
        .run(&executor)
        .await;
    assert!(outcome.still_running);
    assert!(outcome.duration < TIMEOUT + Duration::from_secs(1));
    assert_eq!(executor.health().await.quarantined_threads, 1);
}
