//! Where Python is the host's: its threads see what they always saw, while runs are contained.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the embedded case")]
mod support;

use automation_core::executor::Ending;
use automation_py::PythonExecutor as Tested;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use self::support::Case;

fn executor() -> Tested {
    let builder = Tested::builder();
    builder
        .grace(std::time::Duration::from_millis(300))
        .build()
        .unwrap()
}

const BEFORE: &std::ffi::CStr = cr#"
import gc, json, logging, os, random, sys, threading, types, warnings
import __main__
json.host_probe = 'host'
gc.set_threshold(701, 11, 11)
host_handler = logging.NullHandler()
logging.root.addHandler(host_handler)
logging.root.setLevel(logging.DEBUG)
logging.getLogger('host_probe').setLevel(5)
warnings.filterwarnings('ignore', 'host_probe')
filters, finders = list(warnings.filters), list(sys.meta_path)
random.seed(5)
expected = random.random(), random.random()
random.seed(5)
__main__.host_value = 1
left_streams = []
sys.modules['host_probe'] = types.ModuleType('host_probe')
sys.modules['host_probe'].left_streams = left_streams
sys.argv = ['host', 'argument']
streams = (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__)
seen = []
sys.excepthook = hook = lambda *arguments: seen.append(arguments)
threading.excepthook = thread_hook = lambda arguments: seen.append(arguments.exc_type)
sys.unraisablehook = unraisable_hook = lambda arguments: seen.append(str(arguments.exc_value))
path = sys.path[:]
"#;

/// Runs on a thread of the host, after a script has done its best to change things.
const AFTER: &std::ffi::CStr = cr#"
import io, subprocess
assert (json.host_probe, gc.get_threshold()) == ('host', (701, 11, 11)), json.host_probe
assert (logging.root.handlers, logging.root.level) == ([host_handler], logging.DEBUG), logging.root.handlers
assert logging.getLogger('host_probe').level == 5 and not logging.getLogger('host_probe').disabled
assert warnings.filters == filters and [f for f in sys.meta_path if f not in finders] in ([], sys.meta_path[:1])
assert (random.random(), random.random()) == expected
gc.set_threshold(700, 10, 10)
json.host_probe = 'changed'
warnings.filterwarnings('ignore', 'more')
assert warnings.filters is sys.modules['warnings'].__dict__['filters'] and len(warnings.filters) == len(filters) + 1
assert (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__) == streams
assert sys.argv == ['host', 'argument'] and sys.excepthook is hook
assert __main__.host_value == 1 and not hasattr(__main__, 'script_value')
assert sys.modules['__main__'] is __main__ and 'host_value' in vars(__main__)
__main__.host_value = 2
assert 'AUTOMATION_HOSTED' not in os.environ
os.environ['AUTOMATION_HOSTED'] = 'host'
assert subprocess.check_output(['sh', '-c', 'echo $AUTOMATION_HOSTED']) == b'host\n'
assert os.system('test "$AUTOMATION_HOSTED" = host') == 0
del os.environ['AUTOMATION_HOSTED']
os.putenv('AUTOMATION_PUT', 'x'); os.unsetenv('AUTOMATION_PUT')

mine = sys.stdout = io.StringIO()
print('host')
thread = threading.Thread(target=print, args=('thread',))
thread.start()
thread.join()
sys.stdout = streams[1]
assert mine.getvalue() == 'host\nthread\n', mine.getvalue()
[left] = left_streams
left.flush()
sys.stdout = mine
left.write('through a stream that a run left')
sys.stdout = streams[1]
assert mine.getvalue().endswith('through a stream that a run left')

from unittest.mock import patch
for name in ('stdout', 'stderr'):
    own = getattr(sys, name)
    with patch(f'sys.{name}', new_callable=io.StringIO) as outer:
        with patch(f'sys.{name}', new_callable=io.StringIO) as inner:
            print('inner', file=getattr(sys, name))
        print('outer', file=getattr(sys, name))
    assert (outer.getvalue(), inner.getvalue()) == ('outer\n', 'inner\n')
    assert getattr(sys, name) is own
    setattr(sys, name, sys.__dict__[name])
    assert getattr(sys, name) is own
sys.stdout = left
assert sys.stdout is streams[1]

assert (seen, sys.path) == ([], path), (seen, sys.path)
assert threading.excepthook is thread_hook and sys.unraisablehook is unraisable_hook
class Guard:
    def __del__(self): raise ValueError('deleted')
def fail():
    thread = threading.Thread(target=lambda: 1/0)
    thread.start(); thread.join()
with patch('threading.excepthook') as hook, patch('sys.unraisablehook') as deleted:
    fail(); Guard()
    assert hook.called and deleted.called and not seen
fail(); Guard()
assert seen == [ZeroDivisionError, 'deleted'], seen

sys.argv = ['changed']
assert sys.argv == ['changed'] and sys.__dict__['argv'] == ['changed']
"#;

const SCRIPT: &str = r#"
import os, sys, host_probe
import __main__
print(sys.argv[0], hasattr(__main__, 'host_value'))
host_probe.left_streams.append(sys.stdout)
os.environ['AUTOMATION_HOSTED'] = 'run'
__main__.script_value = 3
sys.argv, sys.stdout, sys.stderr, sys.stdin, sys.excepthook = [], None, None, None, None
sys.__stdout__ = None
import gc, json, logging, random, warnings
assert json.host_probe == 'host' and logging.root.handlers == [] and logging.root.level == 30
json.host_probe = lambda: 'script'
gc.set_threshold(1, 2, 3)
logging.basicConfig(level=1, force=True)
logging.getLogger('host_probe').disabled = True
warnings.resetwarnings()
sys.meta_path.clear()
random.seed(1)
"#;

const RAISES: &str = r#"
import sys, threading
sys.path.insert(0, '/inserted')
def fail():
    raise ValueError('in a thread')
thread = threading.Thread(target=fail)
thread.start(); thread.join()
class Guard:
    def __del__(self):
        raise ValueError('in a deletion')
Guard()
raise ValueError('uncaught')
"#;

#[tokio::test]
async fn the_host_goes_on_as_before() {
    Python::initialize();
    let namespace = Python::attach(|py| {
        let namespace = PyDict::new(py);
        py.run(BEFORE, Some(&namespace), None).unwrap();
        namespace.unbind()
    });
    let executor = executor();
    let outcome = Case::new(SCRIPT).run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.stdout.text, "/srv/scripts/probe.py False\n");
    let outcome = Case::new(RAISES).run(&executor).await;
    let text = outcome.output.stderr.text;
    for shown in ["in a thread", "in a deletion", "uncaught"] {
        assert!(text.contains(&format!("ValueError: {shown}\n")), "{text}");
    }
    Python::attach(|py| {
        let namespace = namespace.bind(py);
        if let Err(error) = py.run(AFTER, Some(namespace), None) {
            error.display(py);
            panic!("the host noticed");
        }
    });
    let replace = cr"
import sys, types
main = sys.modules['__main__']
other = sys.modules['__main__'] = types.ModuleType('__main__')
other.host_value = 'other'
";
    let restored = cr"
assert sys.modules['__main__'] is main and main.host_value == 'other'
main.more = 1
assert other.more == 1
del other
assert main.host_value == 2 and not hasattr(main, 'more')
";
    Python::attach(|py| py.run(replace, Some(namespace.bind(py)), None)).unwrap();
    let source = "import __main__\nprint(vars(__main__) is globals())";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "True\n");
    Python::attach(|py| py.run(restored, Some(namespace.bind(py)), None)).unwrap();
    let outcome = Case::new("from automation import ctx\nprint(ctx.dry_run)")
        .run(&executor)
        .await;
    assert_eq!(outcome.output.stdout.text, "False\n");
}
