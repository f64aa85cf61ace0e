//! A process that a script ends by a fatal signal leaves the run's id to the next process.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's tests")]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use automation_core::Executor;
use automation_core::executor::Ending;
use automation_py::PythonExecutor;

use self::tested::{Tested, executor};
use crate::support::Case;

const FILE: &str = "AUTOMATION_TEST_CRASH_FILE";
const SCRIPT: &str = "AUTOMATION_TEST_CRASH_SCRIPT";

fn build(file: &Path) -> PythonExecutor {
    PythonExecutor::builder().crash_file(file).build().unwrap()
}

/// The process that dies: a test that does nothing unless it is started by another.
#[tokio::test]
async fn the_one_that_dies() {
    let (Some(file), Some(script)) = (std::env::var_os(FILE), std::env::var_os(SCRIPT)) else {
        return;
    };
    let executor = build(file.as_ref());
    let other = Case::new("import time\ntime.sleep(0.5)").run(&executor);
    let case = Case::new(script.to_str().unwrap());
    std::fs::write(
        format!("{}.id", file.display()),
        case.invocation.execution_id.to_string(),
    )
    .unwrap();
    let (_, outcome) = tokio::join!(other, case.run(&executor));
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
}

fn die(file: &Path, script: &str) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_one_that_dies", "--nocapture"])
        .env(FILE, file)
        .env(SCRIPT, script)
        .output()
        .unwrap();
    output.status
}

#[tokio::test]
async fn the_next_process_learns_which_run_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("automation.crash");
    for (script, signal) in [
        ("import ctypes\nctypes.string_at(0)", libc::SIGSEGV),
        (
            "import ctypes, threading\nt = threading.Thread(target=ctypes.string_at, args=(0,))\nt.start()\nt.join()",
            libc::SIGSEGV,
        ),
        ("import ctypes\nctypes.CDLL(None).abort()", libc::SIGABRT),
        ("import ctypes\nctypes.CDLL(None)['raise'](8)", libc::SIGFPE),
        (
            "import mmap, tempfile\nfile = tempfile.TemporaryFile()\nfile.truncate(4096)\n\
             memory = mmap.mmap(file.fileno(), 4096)\nfile.truncate(0)\nmemory[0]",
            libc::SIGBUS,
        ),
    ] {
        let status = die(&file, script);
        assert_eq!(status.signal(), Some(signal), "{script}: {status:?}");
        let id = std::fs::read_to_string(format!("{}.id", file.display())).unwrap();
        let executor = build(&file);
        let crashed: Vec<String> = executor
            .crashed_runs()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(crashed, [id], "{script}");
        let again = build(&file);
        assert_eq!(
            again.crashed_runs(),
            executor.crashed_runs(),
            "until it is forgotten"
        );
        again.forget_crashes(&again.crashed_runs());
        assert_eq!(build(&file).crashed_runs(), [], "{script}");
        assert_eq!(
            std::fs::metadata(&file).unwrap().len(),
            0,
            "it does not grow"
        );
    }
}

#[tokio::test]
async fn one_of_several_crashes_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("automation.crash");
    for _ in 0..3 {
        die(&file, "import ctypes\nctypes.string_at(0)");
    }
    // The last write is cut short, as by a process that is killed in it.
    let all = build(&file).crashed_runs();
    let opened = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    opened.set_len(3 * 16 - 1).unwrap();
    let executor = build(&file);
    assert_eq!(executor.crashed_runs(), all[..2]);
    executor.forget_crashes(&all[..1]);
    assert_eq!(executor.crashed_runs(), all[1..2]);
    die(&file, "import ctypes\nctypes.string_at(0)");
    let later = build(&file).crashed_runs();
    assert_eq!((later.len(), later[0]), (2, all[1]));
}

#[tokio::test]
async fn a_process_that_lives_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("automation.crash");
    let forked = "import ctypes, os\nif not os.fork():\n    ctypes.string_at(0)\nassert os.wait()[1] & 0x7f == 11";
    for script in ["print('x')", "import os\nos._exit(0)", forked] {
        let status = die(&file, script);
        assert!(status.success(), "{script}: {status:?}");
        assert!(build(&file).crashed_runs().is_empty(), "{script}");
    }
}

#[tokio::test]
async fn a_file_that_can_not_be_opened_is_named() {
    let error = PythonExecutor::builder()
        .crash_file("/absent/automation.crash")
        .build()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the crash file /absent/automation.crash: No such file"),
        "{text}"
    );
}
