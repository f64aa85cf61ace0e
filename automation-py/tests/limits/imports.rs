//! A limit that is met while something is imported or compiled does not break the process.

use automation_core::Reason;
use automation_core::executor::Ending;

use crate::support::{Case, executor, failure, run};
use crate::{MIB, assert_next_run_works, limited};

/// What follows meets the limit in each of many places.
const MODULES: &str = "asyncio, unittest.mock, xml.dom.minidom, email.mime.text, http.client, \
     concurrent.futures, multiprocessing.pool, sqlite3, decimal, argparse, html.parser, urllib.request";

#[tokio::test]
async fn an_import_at_the_limit_is_whole() {
    let executor = executor();
    let fill =
        "held = []\ntry:\n    while True: held.append(bytes(5000))\nexcept MemoryError: pass\n";
    for module in MODULES.split(", ") {
        let source = format!("{fill}import {module}\nprint('imported')");
        let outcome = limited(&executor, 16, &source).await;
        assert_eq!(failure(&outcome).0, Reason::MemoryLimit);
        assert_eq!(outcome.output.stdout.text, "imported\n", "{outcome:?}");
    }
    let source = format!("import {MODULES}\nasyncio.run(asyncio.sleep(0))\nprint('works')");
    let outcome = Case::new(&source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "works\n", "{outcome:?}");
}

/// Modules stay for all runs: who is the first to import them does not pay for all.
#[tokio::test]
async fn an_import_is_not_charged_to_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("big_helper.py"),
        "data = bytes(40 * 2**20)\n",
    )
    .unwrap();
    let source = format!(
        "import sys\nsys.path.append({:?})\nimport big_helper\nprint(len(big_helper.data))",
        folder.path()
    );
    let mut case = Case::new(&source);
    case.invocation.limits.memory_bytes = 16 * MIB;
    let outcome = case.run(&executor()).await;
    assert_eq!(outcome.output.stdout.text, "41943040\n", "{outcome:?}");
    assert!(outcome.usage.memory_peak_bytes.unwrap() < 4 * MIB);
}

#[tokio::test]
async fn a_runaway_import_is_refused_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("runaway_helper.py"),
        "data = []\nwhile True: data.append(bytes(10**6))\n",
    )
    .unwrap();
    let path = folder.path().join("script.py");
    let mut case = Case::at(path.to_str().unwrap(), "import runaway_helper");
    case.invocation.limits.memory_bytes = 16 * MIB;
    let executor = executor();
    let outcome = case.run(&executor).await;
    assert_eq!(failure(&outcome).0, Reason::MemoryLimit, "{outcome:?}");
    assert_next_run_works(&executor).await;
}

#[tokio::test]
async fn compiling_at_the_limit_works() {
    let source = r#"
source = ''.join(f'def f{n}(a, b={n}):\n    return [a, b, {n} * 2.5, "text{n}"]\n' for n in range(500))
held = []
try:
    while True: held.append(bytes(5000))
except MemoryError: pass
print(len(compile(source, 'x', 'exec').co_consts) > 500)
exec('x = 7')
print(x, eval(' \t1 + 1'), compile('2', 'x', 'eval').co_filename)
import ast, collections
print(type(ast.parse(source)).__name__, collections.namedtuple('P', 'x y')(1, 2))
"#;
    let outcome = limited(&executor(), 16, source).await;
    assert_eq!(
        outcome.output.stdout.text, "True\n7 2 x\nModule P(x=1, y=2)\n",
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_stands_for_the_builtins_behaves_as_they_do() {
    let source = r#"
from __future__ import annotations
import builtins, inspect, pickle
a = 1
def local():
    b = 2
    exec('assert a == 1 and b == 2')
    exec(b'c = 3', None, names := {})
    assert names == {'c': 3}
    return eval('a + b'), eval(b' b '), eval(bytearray(b'b'))
print(local(), eval(compile('a', 'x', 'eval')), exec(compile('a', 'x', 'exec')))
exec('def f(x: undefined): pass')
print(f.__annotations__)
for function in (exec, eval, compile):
    assert inspect.isbuiltin(function) and function.__module__ == 'builtins'
    assert pickle.loads(pickle.dumps(function)) is function
    assert function is getattr(builtins, function.__name__)
for call in (lambda: eval('1 +'), lambda: exec('x = ('), lambda: eval(5), lambda: exec(), lambda: compile('1')):
    try: call()
    except (SyntaxError, TypeError) as error: print(type(error).__name__, getattr(error, 'filename', None))
try: exec('1/0')
except ZeroDivisionError as error: print(error.__traceback__.tb_next.tb_frame.f_code.co_filename)
try: import absent_module
except ImportError as error: print(error.__traceback__.tb_next, error.name)
"#;
    let outcome = run(source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let expected = "(3, 2, 2) 1 None\n{'x': 'undefined'}\nSyntaxError <string>\nSyntaxError <string>\n\
         TypeError None\nTypeError None\nTypeError None\n<string>\nNone absent_module\n";
    assert_eq!(outcome.output.stdout.text, expected);
}
