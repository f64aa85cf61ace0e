//! Copies that scripts fork of the process: each is a process of its own, and none comes back as a second host.
//!
//! In a binary of their own, one after the other and with one worker: CPython 3.11 deadlocks in a copy that is made
//! while another thread asks for its first thread state, as the workers of a starting executor do.

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

use automation_core::executor::Ending;
use automation_py::PythonExecutor;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use self::tested::{Tested, executor};
use crate::support::Case;

/// Returns the one executor, once no other test has it.
async fn shared() -> MappedMutexGuard<'static, PythonExecutor> {
    static EXECUTOR: Mutex<Option<PythonExecutor>> = Mutex::const_new(None);
    let mut executor = EXECUTOR.lock().await;
    if executor.is_none() {
        let fresh = PythonExecutor::builder().workers(1).build().unwrap();
        Case::new("").run(&fresh).await;
        *executor = Some(fresh);
    }
    MutexGuard::map(executor, |executor| executor.as_mut().unwrap())
}

async fn stdout(source: &str) -> String {
    let outcome = Case::new(source).run(&*shared().await).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    outcome.output.stdout.text
}

/// In a copy of the process everything is real, and no copy comes back as a second host.
#[tokio::test]
async fn a_copy_of_the_process_is_a_process_of_its_own() {
    let executor = shared().await;
    for (source, expected) in [
        ("if not child:\n    os._exit(5)", "5"),
        (
            "if not child:\n    os.kill(os.getpid(), signal.SIGKILL)",
            "-9",
        ),
        ("if not child:\n    os.abort()", "-6"),
        (
            "if not child:\n    os.close(1)\n    os.execvp('sh', ['sh', '-c', 'exit 6'])",
            "6",
        ),
        (
            "if not child:\n    signal.alarm(0)\n    os.nice(0)\n    os.umask(0)\n    os.chdir('/')\n    sys.exit(7)",
            "7",
        ),
        ("if not child:\n    1/0", "1"),
        (
            "if not child:\n    child = os.fork()\n    if not child:\n        os._exit(9)\n    sys.exit(os.waitpid(child, 0)[1] >> 8)",
            "9",
        ),
        (
            "if not child:\n    threading.Thread(target=os._exit, args=(8,)).start()\n    import time\n    time.sleep(10)",
            "8",
        ),
    ] {
        let source = format!(
            "import os, signal, sys, threading\nchild = os.fork()\n{source}\n\
             code = os.waitpid(child, 0)[1]\nprint(os.WEXITSTATUS(code) if os.WIFEXITED(code) else -os.WTERMSIG(code))\n"
        );
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text.trim(),
            expected,
            "{source}\n{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_copy_that_is_made_in_a_thread_ends_with_its_function() {
    let source = r#"
import os, threading
def work():
    child = os.fork()
    if not child:
        return
    print(os.waitpid(child, 0)[1])
thread = threading.Thread(target=work)
thread.start()
thread.join()
"#;
    assert_eq!(stdout(source).await, "0\n");
}

#[tokio::test]
async fn a_copy_may_not_kill_the_host_either() {
    let source = r#"
import os, signal
host = os.getpid()
child = os.fork()
if not child:
    for act in (lambda: os.kill(host, signal.SIGCONT), lambda: os.killpg(0, signal.SIGCONT)):
        try:
            act()
        except PermissionError:
            print('refused')
    os._exit(0)
os.waitpid(child, 0)
"#;
    assert_eq!(stdout(source).await, "refused\nrefused\n");
}

#[tokio::test]
async fn copies_of_the_process_write_into_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe.py");
    for method in ["fork", "spawn", "forkserver"] {
        let source = format!(
            "import multiprocessing, os, sys\n\
             def work():\n    print('child', flush=True)\n    sys.stderr.write('error\\n')\n    sys.stderr.flush()\n\
             if __name__ == '__main__':\n    context = multiprocessing.get_context('{method}')\n    \
             process = context.Process(target=work)\n    process.start()\n    process.join()\n    print('code', process.exitcode)\n"
        );
        std::fs::write(&path, &source).unwrap();
        let outcome = Case::at(path.to_str().unwrap(), &source)
            .run(&*shared().await)
            .await;
        assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
        let stdout = &outcome.output.stdout.text;
        if method == "forkserver" {
            // The server outlives the run that started it, and its copies write where that one did.
            assert!(stdout.ends_with("code 0\n"), "{outcome:?}");
            continue;
        }
        assert_eq!(stdout, "child\ncode 0\n", "{method}: {outcome:?}");
        assert_eq!(outcome.output.stderr.text, "error\n", "{method}");
    }
}

#[tokio::test]
async fn a_copy_with_a_terminal_of_its_own_keeps_it() {
    let source = r#"
import os
child, terminal = os.forkpty()
if not child:
    print('on the terminal', os.isatty(1))
    os._exit(0)
read = b''
while not read.endswith(b'\n'):
    read += os.read(terminal, 100)
print(read)
os.waitpid(child, 0)
"#;
    assert_eq!(stdout(source).await, "b'on the terminal True\\r\\n'\n");
}

#[tokio::test]
async fn a_copy_that_a_script_forks_ends_where_the_script_ends() {
    let source = r#"
import os, sys
child = os.fork()
if not child:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    assert_eq!(stdout(source).await, "7\n");
}

#[tokio::test]
async fn children_by_way_of_a_copy_write_into_their_run() {
    let executor = shared().await;
    for child in [
        "subprocess.run(command, shell=True, preexec_fn=lambda: None)",
        "os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', command)",
        "os.waitpid(os.fork() or os.execvp('sh', ['sh', '-c', command]), 0)",
    ] {
        let source = format!(
            "import os, subprocess\ncommand = 'echo out; echo err >&2'\nprint('before')\n{child}\nprint('after')\n"
        );
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text, "before\nout\nafter\n",
            "{child}: {outcome:?}"
        );
        // From 3.12 on Python warns of forks while there are other threads.
        assert!(
            outcome.output.stderr.text.ends_with("err\n"),
            "{child}: {outcome:?}"
        );
        assert_eq!(outcome.usage.children, Some(1), "{child}");
    }
}

#[tokio::test]
async fn a_run_makes_no_more_copies_than_it_may() {
    let source = "# /// script\n# [tool.automation]\n# children_max = 2\n# ///\nimport os\n\
                  for _ in range(3):\n    os.waitpid(os.fork() or os._exit(0), 0)\n    print('one')\n";
    let outcome = Case::new(source).run(&*shared().await).await;
    assert_eq!(outcome.output.stdout.text, "one\none\n", "{outcome:?}");
    assert!(
        outcome.output.stderr.text.contains("children_max = 2"),
        "{outcome:?}"
    );
}

/// What a copy does to the world is told by the copy's own host, which it has not.
#[tokio::test]
async fn a_copy_tells_nothing() {
    let source = "import os\nfrom automation import ctx\npid = os.fork()\nif not pid:\n    ctx.progress(0.5)\n    \
                  open('/dev/full', 'w').close()\n    os._exit(0)\nprint(os.waitpid(pid, 0)[1])";
    assert_eq!(stdout(source).await, "0\n");
}

/// The threads of the process that was copied are not the copy's: nobody waits for them in it, and it ends as any
/// other.
#[tokio::test]
async fn a_copy_has_none_of_the_threads_that_went_on() {
    let source = "\
import os, threading, time
reader, writer = os.pipe()
thread = threading.Thread(target=time.sleep, args=(0.3,))
thread.start()
child = os.fork()
if child:
    os.close(writer)
    os.waitpid(child, 0)
    print(os.read(reader, 10))
    os.close(reader)
else:
    class Last:
        def __del__(self, write=os.write):
            write(writer, b'x')
    last = Last()
    own = threading.Thread(target=os.write, args=(writer, b'y'))
    own.start()
    own.join()
";
    assert_eq!(stdout(source).await, "b'yx'\n");
}
