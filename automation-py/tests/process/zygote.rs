//! The zygote: what it leaves behind (nothing), and what happens when it or its host is gone.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{Ending, Executor};
use automation_core::{Reason, Script};

use crate::support::{Case, executor, failure};
use crate::{Tested, children, processes};

/// Returns the zygote, which is the parent of what runs.
async fn zygote(executor: &Tested) -> u32 {
    let outcome = Case::new("import os\nprint(os.getppid())")
        .run(executor)
        .await;
    outcome.output.stdout.text.trim().parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn runs_leave_nothing(runs: usize) {
    let executor = Arc::new(executor());
    let zygote = zygote(&executor).await;
    settled(|| children(zygote).len() == 1).await;
    let fds = || (descriptors(), crate::descriptors_of(zygote));
    let before = fds();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let executor = Arc::clone(&executor);
            tokio::spawn(async move {
                for turn in 0..runs / 8 {
                    let (source, timeout) = match (turn + caller) % 25 {
                        0 => ("while True: pass\n", 30),
                        1 => ("import os\nos._exit(3)\n", 9000),
                        2 => ("import os\nos.abort()\n", 9000),
                        3 => (
                            "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n",
                            9000,
                        ),
                        4 => ("import subprocess\nsubprocess.run(['sleep', '62.1'])\n", 30),
                        5 => ("from automation import ctx\nctx.secret('token')\n", 9000),
                        _ => ("print('x')\n", 9000),
                    };
                    let case = Case::new(source).within(Duration::from_millis(timeout));
                    let outcome = case.run(&executor).await;
                    assert!(!outcome.still_running);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // One child is kept ahead of the next run.
    settled(|| children(zygote).len() == 1 && fds() == before).await;
    let left = children(zygote);
    assert!(left.len() <= 1, "children are left: {left:?}");
    assert_eq!(fds(), before, "descriptors of the host, and of the zygote");
    let is_zombie = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    };
    assert!(!left.iter().any(is_zombie), "a zombie is left");
    assert_eq!(executor.health().await.details["restarts"], 0);
}

async fn settled(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() && begin.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Not a test by itself: the next one starts it where no other test opens descriptors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test"]
async fn hundreds_of_runs() {
    runs_leave_nothing(304).await;
}

#[test]
fn runs_leave_no_zombie_and_no_descriptor() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "zygote::hundreds_of_runs"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}

/// Takes minutes: `make torture-isolation`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn ten_thousand_runs_leave_no_zombie_and_no_descriptor() {
    runs_leave_nothing(10_000).await;
}

#[tokio::test]
async fn a_zygote_that_is_killed_is_replaced() {
    let executor = executor();
    let first = zygote(&executor).await;
    let source = format!(
        "import os, signal, subprocess, time\nprint('before')\n\
         subprocess.Popen(['sleep', '64.1'])\n\
         subprocess.Popen(['sleep', '64.2'], start_new_session=True)\ntime.sleep(0.3)\n\
         subprocess.Popen(['sh', '-c', 'sleep 64.3; true'])\ntime.sleep(0.02)\n\
         os.kill({first}, signal.SIGKILL)\ntime.sleep(30)\n"
    );
    let outcome = Case::new(&source).run(&executor).await;
    let message = "the process that isolates scripts ended, and the script with it";
    assert_eq!(failure(&outcome), (Reason::ExecutorError, message));
    assert_eq!(outcome.output.stdout.text, "before\n");
    assert!(outcome.duration < Duration::from_secs(5));
    let programs = ["64.1", "64.2", "64.3"].map(|time| processes(&["sleep", time]));
    gone(&programs.concat()).await;
    assert_ne!(zygote(&executor).await, first);
    assert_eq!(executor.health().await.details["restarts"], 1);
}

#[tokio::test]
async fn a_zygote_that_keeps_dying_is_given_up_for_a_while() {
    let executor = executor();
    let source = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(30)\n";
    // A run may still be given to one that is dying.
    let mut runs = 0;
    let error = loop {
        let case = Case::new(source);
        match executor.execute(case.invocation, case.cancel).await {
            Ok(outcome) => assert_eq!(failure(&outcome).0, Reason::ExecutorError),
            Err(error) => break error,
        }
        runs += 1;
        assert!(runs < 30, "it is started for ever");
    };
    assert!(runs >= 10, "{runs}");
    let expected = "no worker is available: the zygote ended 10 times within a minute";
    assert_eq!(error.to_string(), expected);
    assert!(!executor.health().await.available);
}

#[tokio::test]
async fn dropping_the_executor_ends_its_zygote() {
    let executor = executor();
    let zygote = zygote(&executor).await;
    drop(executor);
    gone(&[zygote]).await;
}

async fn gone(pids: &[u32]) {
    let begin = Instant::now();
    let lives = |pid: &&u32| {
        std::path::Path::new(&format!("/proc/{pid}/exe"))
            .canonicalize()
            .is_ok()
    };
    while pids.iter().any(|pid| lives(&pid)) {
        assert!(begin.elapsed() < Duration::from_secs(1), "{pids:?} live on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Not a test: the host that the next test kills.
#[tokio::test]
#[ignore = "a part of another test"]
async fn host_to_be_killed() {
    let source = "import subprocess\nsubprocess.run(['sleep', '63.7'])\n";
    Case::new(source).run(&executor()).await;
}

#[tokio::test]
async fn a_host_that_is_killed_leaves_nothing() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "zygote::host_to_be_killed"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let program = loop {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "nothing was started"
        );
        if let [program] = processes(&["sleep", "63.7"])[..] {
            break program;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let child = crate::parent(program);
    let zygote = crate::parent(child);
    host.kill().unwrap();
    host.wait().unwrap();
    gone(&[zygote, child, program]).await;
}

/// Not a test: what the next test starts where few descriptors are allowed.
#[tokio::test]
#[ignore = "a part of another test"]
async fn a_run_with_few_descriptors() {
    let outcome = Case::new("print('works')").run(&executor()).await;
    assert_eq!(outcome.output.stdout.text, "works\n", "{outcome:?}");
}

#[tokio::test]
async fn a_low_limit_of_descriptors_is_enough() {
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 300; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "zygote::a_run_with_few_descriptors"])
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Returns an interpreter that is started as the leader of a session.
fn leading_python(folder: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let python = std::env::var_os("AUTOMATION_TEST_PYTHON");
    let python = python.unwrap_or_else(|| env!("AUTOMATION_BUILD_PYTHON").into());
    let python = python.to_str().unwrap();
    let path = folder.join("python");
    std::fs::write(&path, format!("#!/bin/sh\nexec setsid {python} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_zygote_may_lead_a_session_already() {
    let folder = tempfile::tempdir().unwrap();
    let python = leading_python(folder.path());
    let executor = Tested::builder().python(python).build().unwrap();
    let outcome = Case::new("print('works')").run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "works\n");
}

#[tokio::test]
async fn ending_what_is_gone_is_no_error() {
    // Signals that a child may refuse, since it executes a program of another user, fail the same way.
    let source = "import sys\nsys.modules['automation._zygote'].end(1 << 22)\n";
    assert_eq!(
        Case::new(source).run(&executor()).await.ending,
        Ending::Completed
    );
}

#[tokio::test]
async fn an_interpreter_that_is_none_is_named() {
    for (python, expected) in [
        ("/absent/python", "/absent/python can't be executed"),
        (
            "/bin/true",
            "/bin/true did not become a zygote: expected CPython 3.9 or later",
        ),
    ] {
        let executor = Tested::builder().python(python).build().unwrap();
        let case = Case::new("print()");
        let error = executor
            .execute(case.invocation, case.cancel)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn health_shows_the_zygote_once_there_is_one() {
    let executor = executor();
    let health = executor.health().await;
    assert_eq!(
        (health.version, &health.details["zygote"]),
        (None, &false.into())
    );
    assert!(health.available);
    zygote(&executor).await;
    let health = executor.health().await;
    assert!(health.version.unwrap().starts_with("Python 3."));
    assert_eq!(health.details["zygote"], true);
    assert_eq!(
        health.details["executable"],
        env!("AUTOMATION_BUILD_PYTHON")
    );
    assert_eq!((health.workers, health.busy), (16, 0));
}

#[tokio::test]
async fn a_probe_objects_to_what_would_crash_the_compiler_and_to_nothing_else() {
    let executor = executor();
    let probe = |source: &str| {
        let script = Script::parse("probed.py", source.as_bytes()).unwrap();
        executor.probe(&script).unwrap().map(|found| found.message)
    };
    assert_eq!(probe("open('/absent')\n"), None);
    assert_eq!(probe("def f():\n  a\n b\n"), None, "no Python is no danger");
    let deep = probe(&format!("x = {}1", "-".repeat(100_000)));
    assert!(deep.is_some_and(|deep| deep.contains("can't be compiled") || deep.contains("nested")));
    let started = Instant::now();
    assert_eq!(probe("x = 1\n"), None, "it goes on");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_inspection_without_an_inspector_looks_at_the_syntax() {
    let executor = executor();
    let inspect = |source: &str| {
        let script = Script::parse("scripts/probe.py", source.as_bytes()).unwrap();
        let found = executor.inspect(&script).unwrap().diagnostics;
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(inspect("open('/absent')\n"), Vec::<String>::new());
    assert_eq!(
        inspect("def f():\n  a\n b\n"),
        ["probe.py:3:3: IndentationError: unindent does not match any outer indentation level"]
    );
    let deep = inspect(&format!("x = {}1", "-".repeat(100_000)));
    assert_eq!(deep.len(), 1, "{deep:?}");
}
