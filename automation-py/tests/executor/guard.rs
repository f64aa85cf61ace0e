//! What a run may not do to its host, and what happens instead.

use automation_core::Reason;
use automation_core::executor::Ending;

use crate::support::{Case, executor, failure, run, stdout};

const IMPORTS: &str = "\
import _signal, _thread, faulthandler, io, os, posix, resource, signal, sys, threading
core = resource.getrlimit(resource.RLIMIT_CORE)
";

/// What would end the host, bind it, or change it for all. Harmless where the guard fails, as far as that can be.
const REFUSED: &[&str] = &[
    "os.kill(os.getpid(), signal.SIGCONT)",
    "posix.kill(os.getpid(), signal.SIGCONT)",
    "os.kill(0, signal.SIGCONT)",
    "os.kill(-1, signal.SIGCONT)",
    "os.kill(-os.getpgrp(), signal.SIGCONT)",
    "os.kill(threading.get_native_id(), signal.SIGCONT)",
    "os.killpg(0, signal.SIGCONT)",
    "os.killpg(os.getpgrp(), signal.SIGCONT)",
    "signal.raise_signal(signal.SIGCONT)",
    "_signal.raise_signal(signal.SIGCONT)",
    "signal.pthread_kill(threading.get_ident(), signal.SIGCONT)",
    "signal.pthread_kill(threading.main_thread().ident, signal.SIGCONT)",
    "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), signal.SIGCONT)",
    "signal.alarm(1000)",
    "_signal.alarm(1000)",
    "signal.setitimer(signal.ITIMER_VIRTUAL, 1000)",
    "signal.siginterrupt(signal.SIGUSR1, False)",
    "signal.set_wakeup_fd(-1)",
    "signal.sigtimedwait([signal.SIGUSR1], 0)",
    "_thread.interrupt_main()",
    "faulthandler.dump_traceback_later(1000)",
    "faulthandler.register(signal.SIGUSR2)",
    "os.execv('/absent', ['absent'])",
    "os.execvp('absent', ['absent'])",
    "os.execle('/absent', 'absent', {})",
    "posix.execve('/absent', ['absent'], {})",
    "os.close(0)",
    "os.close(1)",
    "os.close(2)",
    "posix.close(1)",
    "os.close(fd=1)",
    "os.close(sys.stdout.fileno())",
    "os.closerange(900, 901)",
    "os.dup2(0, 1)",
    "os.dup2(os.open('/dev/null', os.O_WRONLY), 2)",
    "sys.setswitchinterval(sys.getswitchinterval())",
    "sys.setdlopenflags(sys.getdlopenflags())",
    "sys.addaudithook(lambda *event: None)",
    "os.nice(0)",
    "os.setpriority(os.PRIO_PROCESS, 0, 0)",
    "os.setpriority(os.PRIO_PROCESS, os.getpid(), 0)",
    "os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "os.setuid(os.getuid())",
    "os.setgid(os.getgid())",
    "os.setresuid(-1, -1, -1)",
    "os.setgroups(os.getgroups())",
    "os.setpgid(0, 0)",
    "os.setsid()",
    "os.chroot('/')",
    "resource.setrlimit(resource.RLIMIT_CORE, core)",
    "resource.prlimit(0, resource.RLIMIT_CORE, core)",
    "resource.prlimit(os.getpid(), resource.RLIMIT_CORE, core)",
    "threading.stack_size(1 << 20)",
    "_thread.stack_size(1 << 20)",
];

#[tokio::test]
async fn what_would_strike_the_host_is_refused() {
    let executor = executor();
    for call in REFUSED {
        let source = format!(
            "{IMPORTS}try:\n    {call}\nexcept PermissionError as error:\n    print(error)\n"
        );
        let outcome = Case::new(&source).run(&executor).await;
        let text = &outcome.output.stdout.text;
        if text.is_empty() && outcome.output.stderr.text.contains("AttributeError") {
            // This Python, or this system, does not have the function.
            continue;
        }
        assert!(
            text.contains("is refused inside a run: "),
            "{call}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_names_the_function_and_why() {
    let source = "import os\nos.nice(5)\n";
    let outcome = run(source).await;
    let message = "PermissionError: [Errno 1] os.nice is refused inside a run: it would change the whole process";
    assert_eq!(failure(&outcome), (Reason::Exception, message));
    assert!(
        !outcome.output.stderr.text.contains("<automation>"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_concerns_others_is_allowed() {
    let source = r#"
import faulthandler, os, resource, signal, subprocess, sys, threading
os.kill(os.getpid(), 0)
signal.pthread_kill(threading.get_ident(), 0)
child = subprocess.Popen(['sleep', '60'])
os.setpriority(os.PRIO_PROCESS, child.pid, 5)
resource.prlimit(child.pid, resource.RLIMIT_CORE, (0, 0))
resource.prlimit(0, resource.RLIMIT_CORE)
os.kill(child.pid, signal.SIGTERM)
print(child.wait(), threading.stack_size())
faulthandler.enable()
faulthandler.disable()
try:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
except ValueError as error:
    print('main thread' in str(error))
"#;
    assert_eq!(stdout(source).await, "-15 0\nTrue\n");
}

#[tokio::test]
async fn ending_the_process_ends_the_run() {
    let executor = executor();
    for (source, code) in [
        ("import os\nos._exit(3)", 3),
        ("import posix\nposix._exit(3)", 3),
        ("from os import _exit\n_exit(259)", 3),
        ("import os\nos._exit(0)", 0),
        ("import os\nos.abort()", 134),
        (
            "import os\ntry:\n    os._exit(4)\nexcept BaseException:\n    print('caught')",
            4,
        ),
        ("import os\ntry:\n    os._exit(4)\nfinally:\n    1/0", 4),
        (
            "import atexit, os\natexit.register(print, 'exit function')\nos._exit(5)",
            5,
        ),
        (
            "import os, sys\ntry:\n    os._exit(5)\nexcept SystemExit:\n    sys.exit(6)",
            5,
        ),
        (
            "import os, threading\nt = threading.Thread(target=os._exit, args=(7,))\nt.start()\nt.join()\nwhile True: pass",
            7,
        ),
        (
            "import os, threading, time\ndef wait():\n    while True: time.sleep(0.01)\nthreading.Thread(target=wait).start()\nos._exit(8)",
            8,
        ),
    ] {
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(outcome.exit_code, Some(code), "{source}: {outcome:?}");
        let text = &outcome.output.stdout.text;
        assert!(!text.contains("exit function"), "{source}: {text}");
        assert_eq!(outcome.output.stderr.text, "", "{source}");
        if code == 0 {
            assert_eq!(outcome.ending, Ending::Completed, "{source}");
        } else {
            assert_eq!(failure(&outcome).0, Reason::ExitCode, "{source}");
        }
    }
}

/// In a copy of the process everything is real, and no copy comes back as a second host.
#[tokio::test]
async fn a_copy_of_the_process_is_a_process_of_its_own() {
    let executor = executor();
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
async fn guarded_functions_look_like_what_they_stand_for() {
    let source = r#"
import builtins, copy, inspect, io, os, pickle, posix, signal
from unittest import mock
print(os.close is posix.close, builtins.open is io.open, os.close.__name__, os._exit.__doc__[:4])
print(inspect.signature(os.dup2), inspect.signature(open).parameters['mode'])
print(pickle.loads(pickle.dumps(os.close)) is os.close, copy.deepcopy(os.close) is os.close)
class Holder:
    close = os.close
reader, writer = os.pipe()
Holder().close(reader)
Holder.close(writer)
with mock.patch('os.nice', autospec=True) as nice:
    os.nice(5)
    print(nice.call_args)
with mock.patch('os._exit') as leave:
    os._exit(5)
print(callable(os._exit), 'built-in function close' in repr(os.close))
"#;
    let expected = "True True close Exit\n(fd, fd2, inheritable=True) mode='r'\nTrue True\ncall(5)\nTrue True\n";
    assert_eq!(stdout(source).await, expected);
}

/// Deep recursion through C code and through Python, as deep as a script may ask for.
const RECURSIONS: &[&str] = &[
    "def f(x): return sorted([1, 2], key=f)\nf(1)",
    "def f(): return f()\nf()",
    "class A:\n    def __repr__(self): return '%r' % (self,)\nrepr(A())",
    "class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
    "def f(): return eval('f()')\nf()",
    "nested = []\nfor _ in range(100_000): nested = [nested]\nrepr(nested)",
    "import json\nnested = []\nfor _ in range(100_000): nested = [nested]\njson.dumps(nested)",
    "import json\njson.loads('[' * 100_000)",
    "compile('-' * 100_000 + '1', 'x', 'eval')",
    "compile('(' * 100_000, 'x', 'eval')",
];

#[tokio::test]
async fn deep_recursion_overflows_no_stack() {
    let executor = executor();
    for recursion in RECURSIONS {
        for start in [
            "attempt()",
            "thread = threading.Thread(target=attempt)\nthread.start()\nthread.join()",
        ] {
            let source = format!(
                "import sys, threading\nsys.setrecursionlimit(60_000)\ndef attempt():\n    try:\n        exec({recursion:?}, {{}})\n    \
                 except (RecursionError, MemoryError, SyntaxError, ValueError) as error:\n        print('ended')\n{start}\n\
                 sys.setrecursionlimit(1000)\n"
            );
            let outcome = Case::new(&source).run(&executor).await;
            assert_eq!(
                outcome.ending,
                Ending::Completed,
                "{recursion}: {outcome:?}"
            );
        }
    }
}

#[cfg(not(Py_3_12))]
#[tokio::test]
async fn a_recursion_limit_is_what_the_stack_bears() {
    let source = "import sys\nsys.setrecursionlimit(10**6)\nprint(sys.getrecursionlimit())\nsys.setrecursionlimit(1000)\n";
    assert_eq!(stdout(source).await, "10000\n");
}
