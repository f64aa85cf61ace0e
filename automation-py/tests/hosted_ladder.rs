//! Runs are cut short where Python is the host's: its trace function, its signal and its waits stay.

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

use std::time::Duration;

use automation_core::Reason;
use automation_py::PythonExecutor;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::support::{Case, failure};
use self::tested::{Tested, executor};

/// The host uses the first signal that we would take, traces, and waits while runs are cut short.
const BEFORE: &std::ffi::CStr = cr#"
import signal, socket, sys, threading, time
got = []
number = signal.SIGRTMIN + 8
handler = lambda *arguments: got.append(arguments[0])
signal.signal(number, handler)
def tracer(frame, event, argument): return tracer
sys.settrace(tracer)
elapsed, failures = [], []
lock = threading.Lock()
lock.acquire()
def wait():
    try:
        begin = time.monotonic()
        time.sleep(0.3)
        assert not lock.acquire(timeout=0.3)
        socket.setdefaulttimeout(None)
        a, b = socket.socketpair()
        a.settimeout(0.3)
        try: a.recv(1)
        except TimeoutError: pass
        except socket.timeout: pass
        elapsed.append(time.monotonic() - begin)
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=wait) for _ in range(3)]
for thread in threads: thread.start()
"#;

const AFTER: &std::ffi::CStr = cr#"
for thread in threads: thread.join()
assert not failures, failures
assert len(elapsed) == 3 and min(elapsed) >= 0.85, elapsed
assert sys.gettrace() is tracer
assert signal.getsignal(number) is handler
signal.raise_signal(number)
for _ in range(1000): pass
assert got == [number], got
sys.settrace(None)
"#;

#[tokio::test]
async fn the_host_waits_traces_and_handles_signals_as_before() {
    Python::initialize();
    let namespace = Python::attach(|py| {
        let namespace = PyDict::new(py);
        py.run(BEFORE, Some(&namespace), None).unwrap();
        namespace.unbind()
    });
    let executor = PythonExecutor::builder().build().unwrap();
    for source in [
        "import time\ntime.sleep(8)\n",
        "import threading\nthreading.Event().wait()\n",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).recv(1)\n",
        "import subprocess\nsubprocess.run(['sleep', '8'])\n",
        "while True: pass\n",
    ] {
        let case = Case::new(source).within(Duration::from_millis(50));
        let outcome = case.run(&executor).await;
        assert_eq!(failure(&outcome).0, Reason::Timeout, "{source}");
        assert!(!outcome.still_running, "{source}");
    }
    // In a function: from Python 3.12 on the compiler leaves the jump back of a loop with a condition out of the `try`
    // around it, and the interruption strikes there.
    let loops = "import time\nend = time.monotonic() + 1.5\ndef wait():\n    while time.monotonic() < end: pass\n\
        while True:\n    try:\n        wait()\n        break\n    except BaseException: pass\n";
    let case = Case::new(loops).within(Duration::from_millis(50));
    assert!(
        case.run(&executor).await.still_running,
        "a host is not traced unless it is asked for"
    );
    Python::attach(|py| {
        if let Err(error) = py.run(AFTER, Some(namespace.bind(py)), None) {
            error.display(py);
            panic!("the host noticed");
        }
    });
}
