//! Scripts that would harm whatever they share a process with, and do not want to end.

use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Outcome};

use crate::support::{Case, executor, failure, stdout};
use crate::{Tested, processes};

const DEADLINE: Duration = Duration::from_millis(200);
/// Within which time of its deadline every script has ended; in the median, since the machine may be busy.
const BOUND: Duration = Duration::from_secs(1);
const BUSY_BOUND: Duration = Duration::from_secs(10);

async fn timed_out(executor: &Tested, source: &str) -> Outcome {
    let outcome = Case::new(source).within(DEADLINE).run(executor).await;
    assert_eq!(
        failure(&outcome),
        (Reason::Timeout, "timed out after 0.2 s"),
        "{source}\n{outcome:?}"
    );
    assert!(
        !outcome.still_running && outcome.output.interrupted,
        "{source}"
    );
    assert!(outcome.duration < DEADLINE + BUSY_BOUND, "{source}");
    outcome
}

#[tokio::test]
async fn whatever_does_not_want_to_end_ends_at_its_deadline() {
    let executor = executor();
    let mut late = Vec::new();
    for source in [
        "while True: pass\n",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n",
        "try:\n    while True: pass\nfinally:\n    while True: pass\n",
        "sum(range(10**11))\n",
        "3 ** (10 ** 9)\n",
        "import re\nre.match('(a*)*b', 'a' * 40)\n",
        "import time\ntime.sleep(60)\n",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass\n",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass\n",
        "import os\nos.system('sleep 60')\n",
        "import subprocess\nsubprocess.run(['sh', '-c', 'sleep 60; true'], capture_output=True)\n",
        "import subprocess\nsubprocess.run(['sh', '-c', 'trap \"\" TERM; sleep 60 & sleep 60; sleep 60'])\n",
        "import threading\nthreading.Thread(target=lambda: sum(range(10**11))).start()\n",
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n",
        "import asyncio\nasyncio.run(asyncio.sleep(60))\n",
        "import socket\nsocket.create_server(('127.0.0.1', 0)).accept()\n",
        "import os\nos.read(os.pipe()[0], 1)\n",
        "import os\nos.closerange(0, 100)\nwhile True: pass\n",
        "import os\nos.close(1)\nwhile True: pass\n",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        "import atexit\natexit.register(lambda: sum(range(10**11)))\n",
        "class A:\n    def __del__(self):\n        while True: pass\na = A()\n",
        "import sys\nwhile True: sys.stdout.write('x' * 100000)\n",
    ] {
        let outcome = timed_out(&executor, source).await;
        late.push(outcome.duration.saturating_sub(DEADLINE));
    }
    late.sort_unstable();
    assert!(late[late.len() / 2] < BOUND, "{late:?}");
    let outcome = Case::new("print('works')").run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "works\n");
}

#[tokio::test]
async fn the_traceback_shows_where_it_was() {
    let source = "def spin():\n    while True: pass\nprint('before')\nspin()\n";
    let outcome = timed_out(&executor(), source).await;
    assert_eq!(outcome.output.stdout.text, "before\n");
    let stderr = outcome.output.stderr.text;
    assert!(stderr.contains("line 2, in spin\n"), "{stderr}");
    assert!(stderr.ends_with("automation.RunInterrupted\n"), "{stderr}");
}

#[tokio::test]
async fn all_that_it_started_ends_with_it() {
    let executor = executor();
    for (mark, source) in [
        (
            "61.1",
            "import subprocess, time\nsubprocess.Popen(['sleep', '61.1'])\ntime.sleep(60)\n",
        ),
        (
            "61.2",
            "import subprocess, time\nsubprocess.Popen(['sleep', '61.2'], start_new_session=True)\nsum(range(10**11))\n",
        ),
        (
            "61.3",
            "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.execvp('sleep', ['sleep', '61.3'])\n    os._exit(0)\nos.wait()\ntime.sleep(60)\n",
        ),
        (
            "61.4",
            "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.execvp('sleep', ['sleep', '61.4'])\n    os._exit(0)\nos.wait()\nsum(range(10**11))\n",
        ),
        (
            "61.5",
            "import os\nfor _ in range(4):\n    os.fork()\nos.execvp('sh', ['sh', '-c', 'while :; do sleep 61.5; done'])\n",
        ),
    ] {
        timed_out(&executor, source).await;
        let command = format!("while :; do sleep {mark}; done");
        let left = || {
            [
                processes(&["sleep", mark]),
                processes(&["sh", "-c", &command]),
            ]
            .concat()
        };
        let begin = Instant::now();
        while !left().is_empty() {
            assert!(begin.elapsed() < BUSY_BOUND, "{source}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_crash_is_a_failure_with_its_cause() {
    let executor = executor();
    for (source, code, message) in [
        (
            "import os\nprint('out')\nos._exit(3)\n",
            Some(3),
            "exit code 3",
        ),
        (
            "import atexit, os\nprint('out')\natexit.register(os._exit, 4)\n",
            Some(4),
            "exit code 4",
        ),
        (
            "import ctypes\nprint('out')\nctypes.string_at(0)\n",
            None,
            "killed by signal 11 (SIGSEGV)",
        ),
        (
            "import os\nprint('out')\nos.abort()\n",
            None,
            "killed by signal 6 (SIGABRT)",
        ),
        (
            "import os, signal\nprint('out')\nos.kill(os.getpid(), signal.SIGALRM)\n",
            None,
            "killed by signal 14 (SIGALRM)",
        ),
        (
            "import os, signal\nprint('out')\nos.kill(os.getpid(), signal.SIGKILL)\n",
            None,
            "killed by signal 9 (SIGKILL), not by us: the system may be out of memory",
        ),
    ] {
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(failure(&outcome), (Reason::ExitCode, message), "{source}");
        assert_eq!(outcome.exit_code, code, "{source}");
        assert_eq!(outcome.output.stdout.text, "out\n", "{source}");
    }
    let outcome = Case::new("import ctypes\nctypes.string_at(0)\n")
        .run(&executor)
        .await;
    let stderr = outcome.output.stderr.text;
    assert!(
        stderr.contains("probe.py\", line 2 in <module>"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_exit_without_a_word_is_what_its_code_says() {
    let executor = executor();
    let outcome = Case::new("import os\nos._exit(0)\n").run(&executor).await;
    assert_eq!(
        (outcome.ending, outcome.exit_code),
        (Ending::Completed, Some(0))
    );
    let source = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\nimport os\ndef run(ctx):\n    os._exit(0)\n";
    let outcome = Case::new(source).run(&executor).await;
    let message = "the process exited before `run` returned";
    assert_eq!(failure(&outcome), (Reason::InvalidOutput, message));
    let outcome = Case::new("import os\nos.closerange(3, 2000)\nraise ValueError('x')\n")
        .run(&executor)
        .await;
    assert_eq!(failure(&outcome), (Reason::ExitCode, "exit code 1"));
    assert!(outcome.output.stderr.text.ends_with("ValueError: x\n"));
}

#[tokio::test]
async fn memory_is_limited() {
    let executor = executor();
    for source in [
        "x = bytearray(10**10)\n",
        "x = []\nwhile True: x.append('x' * 1000 + str(len(x)))\n",
        "x = [0]\nwhile True: x += x\n",
        "import subprocess, sys\nhold = [sys.executable, '-c', 'import time; x = b\"x\" * (40 << 20); time.sleep(20)']\n\
         subprocess.Popen(hold)\nsubprocess.run(hold)\n",
        "import mmap, time\nx = mmap.mmap(-1, 200 << 20)\nfor at in range(0, len(x), 4096): x[at] = 1\ntime.sleep(20)\n",
    ] {
        let mut case = Case::new(source);
        case.invocation.limits.memory_bytes = 64 << 20;
        let outcome = case.run(&executor).await;
        let (reason, message) = failure(&outcome);
        assert_eq!(reason, Reason::MemoryLimit, "{source}\n{outcome:?}");
        assert!(message.contains("64 MiB of memory"), "{message}");
    }
    let mut case = Case::new("x = b'x' * (40 << 20)\nprint(len(x))\n");
    case.invocation.limits.memory_bytes = 64 << 20;
    let outcome = case.run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let peak = outcome.usage.memory_peak_bytes.unwrap();
    assert!((35 << 20..64 << 20).contains(&peak), "{peak}");
}

#[tokio::test]
async fn processor_time_is_limited_and_counted() {
    let executor = executor();
    for source in [
        "while True: pass\n",
        "sum(range(10**11))\n",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])\n",
    ] {
        let mut case = Case::new(source);
        case.invocation.limits.cpu = Some(Duration::from_millis(300));
        let outcome = case.run(&executor).await;
        let message = "used more than 0.3 s of processor time";
        assert_eq!(failure(&outcome), (Reason::CpuLimit, message), "{source}");
        let used = Duration::from_micros(outcome.usage.cpu_us.unwrap());
        assert!(used >= Duration::from_millis(300), "{used:?}");
    }
    let mut case = Case::new("import time\ntime.sleep(0.4)\n");
    case.invocation.limits.cpu = Some(Duration::from_millis(300));
    assert_eq!(case.run(&executor).await.ending, Ending::Completed);
}

#[tokio::test]
async fn a_program_that_is_left_behind_keeps_nobody_waiting() {
    let source = "import subprocess\nsubprocess.Popen(['sleep', '3.217'])\nprint('end')\n";
    let begin = Instant::now();
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.output.stdout.text, "end\n");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    let flood = "import subprocess\nsubprocess.Popen(['sh', '-c', 'yes'])\nprint('end')\n";
    let begin = Instant::now();
    assert_eq!(
        Case::new(flood).run(&executor()).await.ending,
        Ending::Completed
    );
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn what_programs_write_is_the_runs_output() {
    let source = "import os, subprocess\nprint('first')\nsubprocess.run(['echo', 'second'])\nos.write(1, b'third\\n')\nos.system('echo fourth >&2')\n";
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.output.stdout.text, "first\nsecond\nthird\n");
    assert_eq!(outcome.output.stderr.text, "fourth\n");
}

#[tokio::test]
async fn nothing_of_a_run_reaches_another() {
    let executor = executor();
    let harm = r"
import builtins, decimal, json, logging, os, random, resource, signal, socket, sys
os.chdir('/'); os.umask(0o777); os.environ['AUTOMATION_LEFT'] = '1'
json.dumps = None; builtins.print = None; sys.path[:] = []; logging.disable()
decimal.getcontext().prec = 1; random.seed(1); socket.setdefaulttimeout(1)
signal.signal(signal.SIGINT, signal.SIG_IGN); sys.setrecursionlimit(50)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
";
    let probe = r"
import decimal, json, logging, os, random, resource, signal, socket, sys
umask = os.umask(0o22); os.umask(umask)
print(os.getcwd(), umask, os.environ.get('AUTOMATION_LEFT'), json.dumps(1), len(sys.path) > 2)
print(logging.root.manager.disable, decimal.getcontext().prec, socket.getdefaulttimeout())
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.getrecursionlimit() >= 1000)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100, sorted(map(int, os.listdir('/proc/self/fd')))[:3])
";
    let before = Case::new(probe).run(&executor).await;
    assert_eq!(before.ending, Ending::Completed, "{before:?}");
    assert_eq!(
        Case::new(harm).run(&executor).await.ending,
        Ending::Completed
    );
    let after = Case::new(probe).run(&executor).await;
    assert_eq!(after.output.stdout.text, before.output.stdout.text);
    let random = "import random, uuid\nprint(random.random(), uuid.uuid4())\n";
    let first = Case::new(random).run(&executor).await.output.stdout.text;
    assert_ne!(
        first,
        Case::new(random).run(&executor).await.output.stdout.text
    );
}

#[tokio::test]
async fn a_copy_that_a_script_forks_asks_nothing() {
    let source = r"
import os, sys
from automation import ctx
if os.fork() == 0:
    try:
        ctx.log('from the copy')
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.wait()[1]))
";
    let expected = "this process belongs to no run: it is a copy that the script forked\n3\n";
    assert_eq!(stdout(source).await, expected);
}
