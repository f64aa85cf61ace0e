//! What is written past `sys.stdout`: by number, and by children.

use std::time::{Duration, Instant};

use automation_core::Executor;

use crate::support::{Case, executor, run, stdout};

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

#[tokio::test]
async fn standard_input_is_empty() {
    let source = r#"
import os, subprocess
print(os.read(0, 10), open(0).read() == '', os.isatty(0), os.isatty(1))
print(subprocess.run(['cat'], stdout=subprocess.PIPE).stdout)
"#;
    assert_eq!(stdout(source).await, "b'' True False False\nb''\n");
}

#[tokio::test]
async fn standard_input_is_a_stream_with_a_number() {
    let source = r#"
import fcntl, os, select, subprocess, sys, termios
print(repr(sys.stdin.read()), repr(sys.stdin.buffer.read()), sys.stdin.name, sys.stdin.isatty())
print(subprocess.run(['cat'], stdin=sys.stdin, stdout=subprocess.PIPE).stdout)
print(select.select([sys.stdin], [], [], 0)[0] == [sys.stdin])
for close in (lambda: os.close(sys.stdin.fileno()), lambda: termios.tcgetattr(1)):
    try: close()
    except (OSError, termios.error) as error: print(type(error).__name__)
sys.stdin.close()
print(open(0).read() == '')
"#;
    let expected = "'' b'' <stdin> False\nb''\nTrue\nPermissionError\nerror\nTrue\n";
    for _ in 0..2 {
        assert_eq!(stdout(source).await, expected);
    }
}

#[tokio::test]
async fn what_goes_between_descriptors_goes_into_the_run() {
    let source = r#"
import fcntl, os, tempfile
file = tempfile.TemporaryFile()
file.write(b'text\n')
file.flush()
for offset in (None, 0):
    try: os.pwrite(1, b'lost', 0)
    except OSError as error: print(error.errno)
if hasattr(os, 'splice'):
    print(os.splice(file.fileno(), 1, 5, offset_src=0))
print(os.sendfile(1, file.fileno(), 0, 5))
print(fcntl.fcntl(1, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY)
"#;
    let text = stdout(source).await;
    let text = text.replace("text\n5\ntext\n5\n", "text\n5\n");
    assert_eq!(text, "29\n29\ntext\n5\nTrue\n");
}

/// What ends with the run finds its output closed, and not another's file under the same number.
#[tokio::test]
async fn what_is_written_too_late_is_written_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let source = format!(
        "import asyncio, os\nos.write(1, b'x')\nclass Late(asyncio.AbstractEventLoop):\n\
         \x20   def is_closed(self, os=os, opened=[]):\n\
         \x20       others = [os.open({path:?}, os.O_CREAT | os.O_WRONLY) for _ in range(8)]\n\
         \x20       print(os.write(1, b'late'))\n        [os.close(other) for other in others]\n\
         \x20       return True\n    def __del__(self, os=os):\n        os._exit(3)\nasyncio.set_event_loop(Late())\n"
    );
    let executor = executor();
    for _ in 0..2 {
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(outcome.output.stdout.text, "x4\n", "{outcome:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}

#[tokio::test]
async fn children_write_into_their_run_and_in_its_order() {
    let executor = executor();
    for child in [
        "subprocess.run(['sh', '-c', command])",
        "subprocess.run(command, shell=True, close_fds=False)",
        "subprocess.run(command, shell=True, stdout=sys.stdout, stderr=sys.stderr)",
        "subprocess.run(command, shell=True, stdout=1, stderr=2)",
        "subprocess.run(command, shell=True, stdout=sys.__stdout__)",
        "subprocess.check_call(command, shell=True)",
        "os.system(command)",
        "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', command], os.environ), 0)",
        "os.waitpid(os.posix_spawnp('sh', ['sh', '-c', command], os.environ, file_actions=[(os.POSIX_SPAWN_CLOSE, 0)]), 0)",
        "asyncio.run(wait())",
    ] {
        let source = format!(
            "import asyncio, os, subprocess, sys\ncommand = 'echo out; echo err >&2'\n\
             async def wait():\n    await (await asyncio.create_subprocess_shell(command)).wait()\n\
             print('before')\n{child}\nprint('after')\n"
        );
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text, "before\nout\nafter\n",
            "{child}: {outcome:?}"
        );
        assert_eq!(outcome.output.stderr.text, "err\n", "{child}");
    }
}

#[tokio::test]
async fn a_childs_environment_is_its_runs() {
    let source = r#"
import os, subprocess
os.environ['AUTOMATION_PROBE'] = 'own'
for start in (subprocess.call, lambda command, **_: os.system(command)):
    start('echo $AUTOMATION_PROBE', shell=True)
subprocess.call(['sh', '-c', 'echo $AUTOMATION_PROBE'], close_fds=False)
"#;
    assert_eq!(stdout(source).await, "own\nown\nown\n");
}

#[tokio::test]
async fn much_output_holds_up_nobody() {
    let outcome = run(
        "import subprocess\nsubprocess.run('head -c 5000000 /dev/zero; echo done', shell=True)",
    )
    .await;
    assert_eq!(outcome.output.stdout.bytes_total, 5_000_005);
    assert!(outcome.output.stdout.text.ends_with("done\n"));
    let source = "import os\nfor _ in range(100):\n    os.write(1, b'x' * 50_000)\n";
    assert_eq!(run(source).await.output.stdout.bytes_total, 5_000_000);
}

#[tokio::test]
async fn a_childs_progress_counts() {
    let case = Case::new("import os\nos.system('echo ::progress 40 copying')\n");
    let host = std::sync::Arc::clone(&case.host);
    case.run(&executor()).await;
    let events = format!("{:?}", host.events.lock());
    assert!(events.contains("copying"), "{events}");
}

#[tokio::test]
async fn children_of_runs_at_the_same_time_are_not_mixed_up() {
    let executor = executor();
    let run = |word: &str| {
        let source = format!(
            "import subprocess\nfor _ in range(20):\n    subprocess.run(['echo', '{word}'])\n    print('{word}')\n"
        );
        Case::new(&source).run(&executor)
    };
    let outcomes = tokio::join!(run("a"), run("b"), run("c"));
    for (outcome, word) in [(outcomes.0, "a"), (outcomes.1, "b"), (outcomes.2, "c")] {
        assert_eq!(outcome.output.stdout.text, format!("{word}\n").repeat(40));
    }
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
