//! What runs see of an interpreter that they share: what a process of a run's own has no need of.

use std::time::Duration;

use automation_core::Executor;
use automation_core::executor::Ending;

use crate::Tested;
use crate::support::{Case, executor, run, stdout};

#[tokio::test]
async fn without_a_run_it_can_not_be_imported() {
    let executor = executor();
    // A script may leave it where the host finds it.
    let case = Case::new("import sys\nfrom automation import ctx\nsys.left_context = ctx");
    assert_eq!(case.run(&executor).await.ending, Ending::Completed);
    pyo3::Python::attach(|py| {
        let source = cr"
import automation, sys
try:
    from automation import ctx
    raise AssertionError
except ImportError:
    pass
assert not hasattr(automation, 'ctx') and not hasattr(automation, 'absent')
assert repr(sys.left_context) == '<automation context without a run>'
try:
    sys.left_context.ticket
    raise AssertionError
except RuntimeError as error:
    assert str(error) == 'this thread belongs to no run'
";
        py.run(source, None, None).unwrap();
    });
}

#[tokio::test]
async fn a_bad_variable_fails_as_by_hand() {
    let source = r#"
import os
for act in (lambda: os.environ.__setitem__('a', 1), lambda: os.environ.__setitem__('a=b', ''),
            lambda: os.environ.__setitem__('a', '\0'), lambda: os.environ['absent'],
            lambda: os.environ.__delitem__('absent')):
    try:
        act()
    except Exception as error:
        print(type(error).__name__, error)
"#;
    let expected = "TypeError str expected, not int\nOSError [Errno 22] Invalid argument\n\
                    ValueError embedded null byte\nKeyError 'absent'\nKeyError 'absent'\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn copies_of_the_environment_are_plain_and_what_is_started_sees_it() {
    let source = r#"
import copy, os
for copied in (copy.deepcopy(os.environ), copy.copy(os.environ), os.environ.copy()):
    copied['AUTOMATION_COPY'] = '1'
    print(type(copied).__name__, 'AUTOMATION_COPY' in os.environ)
os.environ['AUTOMATION_SPAWN'] = '1'
check = ['sh', '-c', 'test "$AUTOMATION_SPAWN" = 1']
print(os.spawnvp(os.P_WAIT, 'sh', check), os.spawnv(os.P_WAIT, '/bin/sh', check))
print(os.spawnvpe(os.P_WAIT, 'sh', check, {'PATH': os.environ['PATH']}))
"#;
    let expected = "dict False\ndict False\ndict False\n0 0\n1\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn the_import_path_is_the_runs_own() {
    let executor = executor();
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    for (folder, value) in [(&first, "first"), (&second, "second")] {
        let source = format!("VALUE = '{value}'\n");
        std::fs::write(folder.path().join("helper_probe.py"), source).unwrap();
    }
    std::fs::write(first.path().join("first_probe.py"), "").unwrap();
    let run = async |folder: &tempfile::TempDir, source: &str| {
        let path = folder.path().join("probe.py");
        let case = Case::at(path.to_str().unwrap(), source);
        let outcome = case.run(&executor).await;
        assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
        outcome.output.stdout.text
    };
    let helper = "import helper_probe\nprint(helper_probe.VALUE)\n";
    for _ in 0..2 {
        assert_eq!(run(&first, helper).await, "first\n");
        assert_eq!(run(&second, helper).await, "second\n");
    }
    let source = "import sys\nprint(len(sys.path))\nsys.path.insert(0, '/inserted')\n\
                  print(sys.path[0], sys.path is sys.path)\n";
    let once = run(&first, source).await;
    assert!(once.ends_with("/inserted True\n"), "{once}");
    assert_eq!(run(&first, source).await, once);
    let source = "import importlib.util, sys\nprint('/inserted' in sys.path, \
                  importlib.util.find_spec('first_probe'))\n";
    assert_eq!(run(&second, source).await, "False None\n");
    // What the host has is as it was.
    let source = cr"
import sys
seen = [entry for entry in sys.path if 'inserted' in entry or entry == FOLDER]
";
    let seen = pyo3::Python::attach(|py| {
        use pyo3::types::PyAnyMethods as _;
        let namespace = pyo3::types::PyDict::new(py);
        let namespace = namespace.as_any();
        namespace.set_item("FOLDER", first.path()).unwrap();
        py.run(source, Some(namespace.cast().unwrap()), None)
            .unwrap();
        namespace.get_item("seen").unwrap().to_string()
    });
    assert_eq!(seen, "[]");
}

/// A collection may come at any allocation, and what it deletes may ask for what is being made.
#[tokio::test]
async fn deleting_garbage_may_use_what_is_being_made() {
    let source = r#"
import atexit, gc
class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        atexit.register(print, 'from a deletion')
        print('deleted')
# Called directly, and with no freed list at hand: making the list is then the first allocation that may collect.
at_exit = atexit.register.__globals__['at_exit']
entry = (print, ('from the script',), {})
threshold = gc.get_threshold()
gc.disable()
gc.set_threshold(1)
Garbage()
lists = [[] for _ in range(300)]
gc.enable()
at_exit(entry)
gc.set_threshold(*threshold)
gc.collect()
"#;
    // Which comes first is the collector's business: since Python 3.12 it waits for the interpreter's next step.
    let text = stdout(source).await;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["deleted", "from a deletion", "from the script"]);
}

/// `mock.patch` reads a module's dictionary, and at its end sets what it found there.
#[tokio::test]
async fn patches_of_streams_nest_and_end() {
    let source = r#"
import io, sys
from unittest.mock import patch
for name in ('stdout', 'stderr'):
    with patch(f'sys.{name}', new_callable=io.StringIO) as outer:
        print('outer', file=getattr(sys, name))
        with patch(f'sys.{name}', new_callable=io.StringIO) as inner:
            print('inner', file=getattr(sys, name))
        print('outer', file=getattr(sys, name))
    print(outer.getvalue().split(), inner.getvalue().split(), getattr(sys, name))
print('error', file=sys.stderr)
with patch('sys.argv', ['patched']):
    print(sys.argv)
print(len(sys.argv))
sys.stdout = sys.__dict__['stderr']
print('swapped')
"#;
    let outcome = run(source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let expected = "['outer', 'outer'] ['inner'] <stdout of the run, encoding='utf-8'>\n\
                    ['outer', 'outer'] ['inner'] <stderr of the run, encoding='utf-8'>\n\
                    ['patched']\n2\n";
    assert_eq!(outcome.output.stdout.text, expected);
    assert_eq!(outcome.output.stderr.text, "error\nswapped\n");
}

#[tokio::test]
async fn streams_that_are_never_restored_are_not_kept_for_ever() {
    let source = r#"
import io, sys, weakref
class Stream(io.StringIO): pass
own, seen = sys.stdout, []
for _ in range(100):
    stream = Stream()
    seen.append(weakref.ref(stream))
    sys.stdout = stream
del stream
alive = sum(each() is not None for each in seen)
last = sys.stdout is seen[-1]()
sys.stdout = own
print(alive, last, sum(each() is not None for each in seen))
"#;
    assert_eq!(stdout(source).await, "32 True 0\n");
}

#[tokio::test]
async fn the_stream_says_what_it_is() {
    let source = r#"
import io, sys
out = sys.stdout
print(out.encoding, out.isatty(), out.writable(), out.readable(), out.closed, out.name, out.mode)
print(isinstance(out, io.TextIOBase), isinstance(out.buffer, io.BufferedIOBase))
for act in (out.read, out.seek, out.tell):
    try:
        act()
    except io.UnsupportedOperation as error:
        print(error)
try:
    out.write(1)
except TypeError as error:
    print(error)
try:
    out.buffer.write('text')
except TypeError as error:
    print(error)
with out as same:
    print(same is out)
out.close()
print('still open')
"#;
    let expected = "utf-8 False True False False <stdout> w\nTrue True\nnot readable\nnot seekable\n\
                    not seekable\nwrite() argument must be str, not int\n\
                    memoryview: a bytes-like object is required, not 'str'\nTrue\nstill open\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn a_thread_that_is_left_behind_can_ask_nothing_more() {
    let source = r#"
import copyreg, threading, time
from automation import ctx
def late():
    time.sleep(0.05)
    try:
        ctx.log('late')
    except RuntimeError as error:
        copyreg.dispatch_table['probe'] = str(error)
threading.Thread(target=late, daemon=True).start()
"#;
    let executor = executor();
    let case = Case::new(source);
    let host = std::sync::Arc::clone(&case.host);
    case.run(&executor).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let outcome = Case::new("import copyreg\nprint(copyreg.dispatch_table.pop('probe'))")
        .run(&executor)
        .await;
    assert_eq!(outcome.output.stdout.text, "the run has ended\n");
    assert!(host.events.lock().is_empty());
}

#[tokio::test]
async fn what_a_thread_writes_after_its_run_is_counted_and_dropped() {
    let source = r#"
import sys, threading, time
text = 'late'
def late():
    time.sleep(0.1)
    print(text)
    sys.stderr.write(text)
threading.Thread(target=late, daemon=True).start()
print('end')
"#;
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "end\n");
    let next = Case::new("import time\ntime.sleep(0.3)\nprint('next')")
        .run(&executor)
        .await;
    assert_eq!(next.output.stdout.text, "next\n");
    assert_eq!(next.output.stderr.text, "");
    // The thread's globals were there, or it would have written a traceback.
    assert_eq!(executor.health().await.details["late_output_bytes"], 9);
}

/// A thread that a run left shares its place with no later run.
#[tokio::test]
async fn a_thread_that_is_left_moves_nobody() {
    let executor = Tested::builder().workers(1).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let source = format!(
        "import os, threading, time\nos.chdir('/usr')\ndef late():\n    time.sleep(0.3)\n    try:\n        os.chdir('/')\n    \
         except PermissionError as error:\n        found = str(error)\n    else:\n        found = 'moved'\n    \
         open({report:?}, 'w').write(os.getcwd() + ' ' + found)\nthreading.Thread(target=late, daemon=True).start()"
    );
    let outcome = Case::new(&source).run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let here = std::env::current_dir().unwrap();
    let source = "import os, time\ntime.sleep(0.5)\nprint(os.getcwd())";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, format!("{}\n", here.display()));
    let found = std::fs::read_to_string(&report).unwrap();
    assert!(
        found.starts_with("/usr ") && found.ends_with("the run has ended"),
        "{found}"
    );
}

#[tokio::test]
async fn health_says_whose_place_it_is() {
    let executor = Tested::builder().workers(1).build().unwrap();
    let health = executor.health().await;
    assert_eq!(health.details["working_directory"], "each run's own");
    executor.shutdown(Duration::from_secs(1)).await.unwrap();
}
