//! Threads that scripts start.

use automation_core::executor::Ending;

use crate::support::{Case, executor, run, stdout};

#[tokio::test]
async fn threads_belong_to_the_run_that_started_them() {
    let source = r#"
import _thread, asyncio, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import __main__
mine = 5
os.environ['AUTOMATION_THREAD'] = 'yes'
def look(name):
    print(name, len(sys.argv), __main__.mine, os.environ['AUTOMATION_THREAD'])
thread = threading.Thread(target=look, args=('thread',))
thread.start(); thread.join()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(look, ['pool']))
async def main():
    await asyncio.to_thread(look, 'asyncio')
asyncio.run(main())
timer = threading.Timer(0.001, look, ('timer',))
timer.start(); timer.join()
done = threading.Event()
def raw(): look('raw'); done.set()
_thread.start_new_thread(raw, ())
done.wait()
def nested():
    inner = threading.Thread(target=look, args=('nested',))
    inner.start(); inner.join()
thread = threading.Thread(target=nested)
thread.start(); thread.join()
"#;
    let expected = ["thread", "pool", "asyncio", "timer", "raw", "nested"]
        .map(|name| format!("{name} 2 5 yes\n"))
        .concat();
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn exceptions_of_threads_are_shown_in_the_run() {
    let source = r#"
import _thread, sys, threading, time
class Tee:
    seen, stderr = '', sys.stderr
    def write(self, text):
        Tee.stderr.write(text)
        Tee.seen += text
    def flush(self): pass
sys.stderr = Tee()
thread = threading.Thread(target=lambda: 1/0, name='worker')
thread.start(); thread.join()
def raw():
    raise ValueError('raw')
_thread.start_new_thread(raw, ())
while 'ValueError: raw' not in Tee.seen: time.sleep(0.001)
exits = threading.Thread(target=sys.exit)
exits.start(); exits.join()
"#;
    let outcome = run(source).await;
    assert_eq!(outcome.ending, Ending::Completed);
    let text = outcome.output.stderr.text;
    assert!(text.contains("Exception in thread worker:\n"), "{text}");
    assert!(
        text.contains("ZeroDivisionError: division by zero\n"),
        "{text}"
    );
    assert!(text.contains("ValueError: raw\n"), "{text}");
    assert!(!text.contains("SystemExit"), "{text}");
}

#[tokio::test]
async fn hooks_that_a_run_sets_are_its_own() {
    let source = r#"
import sys, threading
from unittest.mock import patch
def fail():
    thread = threading.Thread(target=lambda: 1/0)
    thread.start(); thread.join()
class Guard:
    def __del__(self):
        raise ValueError('deleted')
threading.excepthook = lambda arguments: print('thread', arguments.exc_type.__name__)
sys.unraisablehook = lambda arguments: print('unraisable', arguments.exc_value)
fail(); Guard()
with patch('threading.excepthook'), patch('sys.unraisablehook'), patch('sys.excepthook'):
    fail(); Guard()
fail(); Guard()
print(sys.excepthook is sys.__excepthook__)
"#;
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    let expected = "thread ZeroDivisionError\nunraisable deleted\n".repeat(2) + "True\n";
    assert_eq!(outcome.output.stdout.text, expected, "{outcome:?}");
    let source = source.replace("threading.excepthook =", "mine =");
    let source = source.replace("sys.unraisablehook =", "mine =");
    let outcome = Case::new(&source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "True\n");
    let text = outcome.output.stderr.text;
    assert_eq!(text.matches("ZeroDivisionError").count(), 2, "{text}");
    assert_eq!(text.matches("ValueError: deleted").count(), 2, "{text}");
}

#[tokio::test]
async fn threads_that_are_no_daemons_are_waited_for() {
    let source = r#"
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
atexit.register(print, 'at exit')
def late(name):
    time.sleep(0.05)
    print(name, threading.current_thread().daemon)
def parent():
    time.sleep(0.05)
    threading.Thread(target=late, args=('child',)).start()
threading.Thread(target=parent).start()
pool = ThreadPoolExecutor(1)
pool.submit(late, 'pool')
pool.submit(late, 'pool')
print('end', threading.current_thread().daemon)
"#;
    let mut lines: Vec<_> = stdout(source).await.lines().map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some("at exit"));
    lines.sort();
    assert_eq!(
        lines,
        ["child False", "end False", "pool False", "pool False"]
    );
}
