//! Scripts that want more memory than they may have.

use std::time::Duration;

use automation_core::executor::{Ending, Executor};
use automation_core::{Concern, Reason};
use automation_py::PythonExecutor;

use crate::support::{Case, executor, failure};
use crate::{ALONE, MIB, assert_next_run_works, limited, resident_bytes, run_limited};

const RUNAWAYS: [(&str, &str); 18] = [
    ("string", "'a' * 10**10"),
    ("list", "x = []\nwhile True: x.append(None)"),
    ("integers", "x = []\nwhile True: x.append(len(x))"),
    ("dict", "x = {}\nwhile True: x[len(x)] = str(len(x))"),
    ("text", "x = 'abc'\nwhile True: x += x"),
    (
        "bytearray",
        "x = bytearray()\nwhile True: x += bytes(100_000)",
    ),
    (
        "bytesio",
        "import io\nx = io.BytesIO()\nwhile True: x.write(bytes(100_000))",
    ),
    (
        "json",
        "import json\nx = '[' + '[1,2],' * 3_000_000 + '1]'\njson.loads(x)",
    ),
    (
        "zlib",
        "import zlib\nc = zlib.compressobj()\nd = b''.join(c.compress(bytes(10**6)) for _ in range(300)) + c.flush()\n\
         zlib.decompress(d)",
    ),
    (
        "xml",
        "import xml.etree.ElementTree as E\nE.fromstring('<a>' + '<b c=\"d\">e</b>' * 1_000_000 + '</a>')",
    ),
    ("re", "import re\nre.findall('.', 'ab' * 10_000_000)"),
    ("compile", "compile('x = 1\\n' * 3_000_000, 'x', 'exec')"),
    ("exec", "exec('x = 1\\n' * 3_000_000)"),
    ("eval", "eval(' [' + '1,' * 3_000_000 + ']')"),
    (
        "objects",
        "class N: pass\nn = None\nwhile True:\n    m = N(); m.n = n; n = m",
    ),
    (
        "deque",
        "import collections\ncollections.deque(iter(int, 1))",
    ),
    (
        "frames",
        "import sys\nsys.setrecursionlimit(10**7)\ndef f(): f()\nf()",
    ),
    (
        "recursion",
        "import sys\nsys.setrecursionlimit(10**7)\ndef f(a):\n    return f(bytes(500)) + 1\nf(b'')",
    ),
];

#[tokio::test]
async fn runaways_end_and_the_memory_comes_back() {
    let _alone = ALONE.write().await;
    // Without the end of a C function on a busy machine nothing comes back.
    let executor = PythonExecutor::builder()
        .grace(Duration::from_secs(20))
        .build()
        .unwrap();
    run_limited(
        &executor,
        64,
        "import io, json, re, zlib, xml.etree.ElementTree",
    )
    .await;
    let before = resident_bytes();
    for (name, source) in RUNAWAYS {
        // Where recursion has a bound for the sake of the stack, it meets that one first.
        let unbounded = cfg!(all(Py_3_12, not(Py_3_13)));
        if ["frames", "recursion"].contains(&name) && !unbounded {
            continue;
        }
        let outcome = run_limited(&executor, 64, source).await;
        let (reason, message) = failure(&outcome);
        assert_eq!(reason, Reason::MemoryLimit, "{name}: {outcome:?}");
        assert!(
            message.starts_with("asked for more than its 64 MiB of memory, of which it held "),
            "{message}"
        );
        let peak = outcome.usage.memory_peak_bytes.unwrap();
        assert!(peak <= (64 + 32 + 16) * MIB, "{name}: {peak}");
        let concern = (!cfg!(Py_3_13)).then_some(Concern::MemoryLimit);
        assert_eq!(
            (outcome.concern, outcome.exit_code),
            (concern, None),
            "{name}: {outcome:?}"
        );
        assert_next_run_works(&executor).await;
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 32 * MIB, "{name}: {} MiB more", grown / MIB);
    }
}

#[tokio::test]
async fn what_fits_is_allowed_and_measured() {
    let executor = executor();
    let source = "x = bytes(40 * 2**20)\ndel x\ny = bytes(30 * 2**20)\nprint(len(y))";
    let outcome = limited(&executor, 64, source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let peak = outcome.usage.memory_peak_bytes.unwrap();
    assert!((40 * MIB..44 * MIB).contains(&peak), "{peak}");
    assert_eq!(outcome.concern, None);
}

/// The flag of the account decides: the script noticed, went on and ended well.
#[tokio::test]
async fn a_script_that_catches_the_refusal_is_held_at_its_limit() {
    let source = r#"
held, refused = [], 0
while refused < 50:
    try:
        held.append(bytes(2**20))
    except MemoryError:
        refused += 1
print(len(held))
"#;
    let executor = executor();
    let outcome = limited(&executor, 64, source).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
    let held: u64 = outcome.output.stdout.text.trim().parse().unwrap();
    assert!((50..=64).contains(&held), "{held}");
    assert_next_run_works(&executor).await;
}

#[tokio::test]
async fn a_limit_strikes_its_own_run_only() {
    let neighbour = r#"
import time
end = time.monotonic() + 1
most = 0
while time.monotonic() < end:
    x = bytearray(48 * 2**20)
    most = max(most, len(x))
    del x
    time.sleep(0.01)
print(most)
"#;
    let executor = executor();
    let runaway = async {
        for _ in 0..5 {
            let outcome =
                limited(&executor, 16, "x = []\nwhile True: x.append(bytes(10_000))").await;
            assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
        }
    };
    let (outcome, ()) = tokio::join!(limited(&executor, 64, neighbour), runaway);
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.stdout.text, "50331648\n");
}

/// A block that one run made and another one frees was never the other one's.
#[tokio::test]
async fn memory_is_credited_to_the_run_that_it_was_charged_to() {
    let executor = executor();
    let keep = "import copyreg\ncopyreg.dispatch_table['kept'] = [bytes(2**20) for _ in range(40)]";
    assert_eq!(limited(&executor, 64, keep).await.ending, Ending::Completed);
    let source =
        "import copyreg\ndel copyreg.dispatch_table['kept']\nx = bytes(60 * 2**20)\nprint('fits')";
    let outcome = limited(&executor, 64, source).await;
    assert_eq!(outcome.output.stdout.text, "fits\n", "{outcome:?}");
    let peak = outcome.usage.memory_peak_bytes.unwrap();
    assert!((60 * MIB..64 * MIB).contains(&peak), "{peak}");
}

#[tokio::test]
async fn what_the_script_does_at_its_end_still_works_at_the_limit() {
    let source = r#"
import atexit, sys
atexit.register(print, 'at exit')
held = []
try:
    while True: held.append(bytes(100_000))
except MemoryError:
    pass
raise ValueError('after the limit')
"#;
    let executor = executor();
    let outcome = limited(&executor, 64, source).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
    assert_eq!(outcome.output.stdout.text, "at exit\n");
    let text = outcome.output.stderr.text;
    assert!(text.ends_with("ValueError: after the limit\n"), "{text}");
}

#[tokio::test]
async fn exit_functions_and_threads_are_limited_too() {
    for source in [
        "import atexit\natexit.register(lambda: bytes(10**10))",
        "class C:\n    def __del__(self): bytes(10**10)\nc = C()",
        "import threading\nt = threading.Thread(target=lambda: bytes(10**10))\nt.start(); t.join()",
        "import threading\nthreading.Thread(target=lambda: bytes(10**10)).start()",
        "import sys\nsys.excepthook = lambda *a: bytes(10**10)\n1/0",
    ] {
        let executor = executor();
        let outcome = limited(&executor, 64, source).await;
        assert_eq!(failure(&outcome).0, Reason::MemoryLimit, "{source}");
        assert_next_run_works(&executor).await;
    }
}

#[tokio::test]
async fn threads_are_charged_to_their_run() {
    let source = r#"
import threading
held = []
def work():
    try:
        while True: held.append(bytes(2**20))
    except MemoryError:
        pass
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(held))
"#;
    let outcome = limited(&executor(), 64, source).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
    let held: u64 = outcome.output.stdout.text.trim().parse().unwrap();
    assert!((50..=64).contains(&held), "{held}");
    assert_eq!(outcome.usage.threads, Some(4));
}

#[tokio::test]
async fn limits_and_counting_can_be_switched_off() {
    let source = "x = bytes(100 * 2**20)\nprint(len(x))";
    let build = |executor: automation_py::PythonExecutorBuilder| executor.build().unwrap();
    let measured = build(PythonExecutor::builder().memory_limits(false));
    let outcome = limited(&measured, 64, source).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert!(outcome.usage.memory_peak_bytes.unwrap() > 100 * MIB);
    assert_eq!(measured.health().await.details["memory"], "measured");
    let off = build(PythonExecutor::builder().accounting(false));
    let outcome = limited(&off, 64, source).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.usage.memory_peak_bytes, None);
    assert_eq!(off.health().await.details["memory"], "off");
    assert_eq!(executor().health().await.details["memory"], "limited");
}

#[tokio::test]
async fn a_deadline_ends_a_script_that_sits_at_its_limit() {
    let source = r#"
held = []
while True:
    try:
        held.append(bytes(2**20))
    except MemoryError:
        pass
"#;
    let executor = executor();
    let mut case = Case::new(source).within(Duration::from_millis(300));
    case.invocation.limits.memory_bytes = 32 * MIB;
    let outcome = case.run(&executor).await;
    assert_eq!(failure(&outcome).0, Reason::Timeout);
    let concern = (!cfg!(Py_3_13)).then_some(Concern::MemoryLimit);
    assert_eq!(outcome.concern, concern);
    assert_next_run_works(&executor).await;
}

/// Our own functions allocate too, and PyO3 panics when it is refused.
#[tokio::test]
async fn our_own_functions_do_not_panic_at_the_limit() {
    let source = r#"
import atexit, io, os, sys, threading
from automation import ctx
accented, long = 'é' * 10_000, 'x' * 10_000
calls = (
    lambda: print(accented[:5000], long[:9]), lambda: sys.stdout.write('\ud800' * 10_000),
    lambda: sys.stdout.writelines([long, accented]), lambda: sys.stdout.buffer.write(bytes(4000)),
    lambda: sys.stdin.read(), lambda: sys.argv, lambda: sys.path, lambda: setattr(sys, 'argv', []),
    lambda: os.environ.update(A=long), lambda: os.environ.copy(),
    lambda: ctx.parameters['long'], lambda: ctx.ticket, lambda: ctx.progress(0.5, long), lambda: ctx.progress(5),
    lambda: ctx.log(accented), lambda: ctx.secret('token'), lambda: ctx.secret(long), lambda: ctx.absent,
    lambda: atexit.register(print, 'end'), lambda: threading.Thread(target=print).start(),
    lambda: exec('x = 1'), lambda: eval('[' + '1,' * 10_000 + ']'), lambda: exec('x = ('),
    lambda: sys.unraisablehook, lambda: threading.excepthook,
    lambda: __import__('absent_module'), lambda: __import__('colorsys'),
)
held, panics = [], []
try:
    while True: held.append(bytes(5000))
except MemoryError:
    pass
for number, call in enumerate(calls):
    try:
        call()
    except Exception:
        pass
    except BaseException as error:
        panics.append((number, repr(error)))
print('\npanics', panics)
"#;
    let executor = executor();
    let mut case = Case::new(source).with(serde_json::json!({ "long": "x".repeat(10_000) }));
    case.invocation.limits.memory_bytes = 16 * MIB;
    let outcome = case.run(&executor).await;
    assert_eq!(
        failure(&outcome).0,
        Reason::MemoryLimit,
        "{}",
        outcome.output.stderr.text
    );
    let text = outcome.output.stdout.text;
    assert!(
        text.ends_with("\npanics []\nend\n"),
        "{} {}",
        &text[text.len().saturating_sub(300)..],
        outcome.output.stderr.text
    );
    assert_next_run_works(&executor).await;
}

/// Small blocks are not refused one by one: the run is cut short.
#[tokio::test]
async fn small_blocks_are_no_way_round_the_limit() {
    let source = r#"
held = None
while True:
    try:
        while True: held = (held, 1.5)
    except MemoryError:
        pass
"#;
    let executor = executor();
    let outcome = limited(&executor, 16, source).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit, "{outcome:?}");
    assert!(outcome.output.interrupted && !outcome.still_running);
    assert_next_run_works(&executor).await;
}
