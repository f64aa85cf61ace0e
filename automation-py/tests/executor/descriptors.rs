//! What is written past `sys.stdout` into the host's descriptors.

use std::time::{Duration, Instant};

use automation_core::Executor;

use crate::support::{Case, executor};

#[tokio::test]
async fn what_is_written_by_number_is_the_runs() {
    let executor = executor();
    for write in [
        "os.write(1, b'text')",
        "posix.write(1, b'text')",
        "os.writev(1, [b'te', b'xt'])",
        "os.write(sys.stdout.fileno(), b'text')",
        "os.write(sys.__stdout__.fileno(), b'text')",
        "os.write(sys.stdout.buffer.fileno(), b'text')",
        "open(1, 'w').write('text')",
        "open(1, 'wb', closefd=False).write(b'text')",
        "open(file=1, mode='w').write('text')",
        "io.open(1, 'w').write('text')",
        "os.fdopen(1, 'w').write('text')",
        "os.fdopen(sys.stdout.fileno(), 'wb', 0).write(b'text')",
        "os.write(os.dup(1), b'text')",
        "os.dup2(1, 99), os.write(99, b'text'), os.close(99)",
    ] {
        let source = format!("import io, os, posix, sys\nprint('a')\n{write}\nprint()\n{write}\n");
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text, "a\ntext\ntext",
            "{write}: {outcome:?}"
        );
    }
    let outcome = Case::new("import os\nos.write(2, b'error')")
        .run(&executor)
        .await;
    assert_eq!(outcome.output.stderr.text, "error");
    assert_eq!(outcome.output.stdout.text, "");
}

/// A program that a script leaves behind is not waited for, goes on, and writes to nobody.
#[tokio::test]
async fn a_program_that_is_left_writes_to_nobody() {
    let executor = executor();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let source = format!(
        "import subprocess\nprint('started')\nsubprocess.Popen(['sh', '-c', 'sleep 0.4; echo late && echo alive > {}'])",
        report.display()
    );
    let begin = Instant::now();
    let outcome = Case::new(&source).run(&executor).await;
    assert!(
        begin.elapsed() < Duration::from_millis(350),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(outcome.output.stdout.text, "started\n");
    let outcome = Case::new("import os, time\nos.write(1, b'x')\ntime.sleep(1)")
        .run(&executor)
        .await;
    assert_eq!(outcome.output.stdout.text, "x");
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "alive\n");
    let health = executor.health().await;
    assert_eq!(health.details["late_output_bytes"], 5);
}

#[tokio::test]
async fn descriptors_are_given_back() {
    let executor = executor();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let once = || Case::new("import os\nos.write(1, b'x')\nos.system('true')").run(&executor);
    once().await;
    let before = open();
    for _ in 0..50 {
        once().await;
    }
    // The reading ends are closed by another thread.
    let deadline = Instant::now() + Duration::from_secs(5);
    while open() > before + 20 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(open() <= before + 20, "{} of {before}", open());
}
