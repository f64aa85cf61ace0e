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
"#;
    assert_eq!(stdout(source).await, "-15 0\n");
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
