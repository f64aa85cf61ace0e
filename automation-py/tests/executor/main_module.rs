//! `__main__` is the run's own.

use automation_core::executor::Ending;
use serde_json::json;

use crate::support::{Case, executor, stdout};

#[tokio::test]
async fn the_module_looks_as_by_hand() {
    let source = r#"
import sys, types
import __main__
print(__name__, __file__, __doc__, __spec__, __package__, __cached__)
print(type(__builtins__) is types.ModuleType, __main__.__file__, vars(__main__) is globals())
x = 1
__main__.y = 2
print(__main__.x, y, sys.modules['__main__'].x, 'x' in dir(__main__), repr(__main__))
del __main__.y
print(hasattr(__main__, 'y'), isinstance(__main__, types.ModuleType))
"#;
    let expected = "__main__ /srv/scripts/probe.py None None None None\nTrue /srv/scripts/probe.py True\n\
                    1 2 1 True <module '__main__' from '/srv/scripts/probe.py'>\nFalse True\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn what_looks_a_class_up_by_its_module_finds_it() {
    let source = r#"
from __future__ import annotations
import dataclasses, pickle, typing

@dataclasses.dataclass
class Item:
    name: str
    count: typing.ClassVar[int] = 2

print([field.name for field in dataclasses.fields(Item)])
print(pickle.loads(pickle.dumps(Item('a'))))
print(typing.get_type_hints(Item))
"#;
    let expected =
        "['name']\nItem(name='a')\n{'name': <class 'str'>, 'count': typing.ClassVar[int]}\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn unittest_finds_the_tests() {
    let source = r#"
import unittest
class Probe(unittest.TestCase):
    def test_it(self):
        self.assertEqual(1, 1)
unittest.main(argv=['probe'], exit=False)
"#;
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed);
    let text = outcome.output.stderr.text;
    assert!(
        text.contains("Ran 1 test") && text.ends_with("OK\n"),
        "{text}"
    );
}

#[tokio::test]
async fn nothing_is_left_for_the_next_run() {
    let executor = executor();
    Case::new("left = 1").run(&executor).await;
    let source = "import __main__\nprint('left' in globals(), hasattr(__main__, 'left'))";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "False False\n");
}

#[tokio::test]
async fn objects_end_with_the_run_and_what_they_write_is_kept() {
    let source = "import atexit\nclass Guard:\n    def __del__(self):\n        print('deleted')\n\
                  guard = Guard()\n@atexit.register\ndef bye():\n    print('bye')\n\
                  atexit.register(print, 'first')\nprint('end')\n";
    assert_eq!(stdout(source).await, "end\nfirst\nbye\ndeleted\n");
}

#[tokio::test]
async fn an_exit_function_can_be_taken_back() {
    let source = "import atexit\natexit.register(print, 'x')\natexit.unregister(print)\n";
    assert_eq!(stdout(source).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classes_of_one_name_never_mix() {
    let source = r#"
import json, pickle, sys, time
n = json.loads(sys.argv[1])['n']
class Item:
    owner = n
    def __init__(self, value):
        self.value = value
for turn in range(10):
    loaded = pickle.loads(pickle.dumps(Item(turn)))
    assert type(loaded) is Item and loaded.owner == n, (loaded.owner, n)
    time.sleep(0.001)
print(n)
"#;
    let executor = std::sync::Arc::new(executor());
    let runs: Vec<_> = (0..64)
        .map(|n| {
            let executor = std::sync::Arc::clone(&executor);
            tokio::spawn(async move {
                let source = format!("{source}# {n}\n");
                let case = Case::new(&source).with(json!({ "n": n }));
                let outcome = case.run(&executor).await;
                assert_eq!(outcome.output.stdout.text, format!("{n}\n"), "{outcome:?}");
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn a_replaced_module_does_not_end_the_isolation() {
    let source = "import sys, types\nsys.modules['__main__'] = types.ModuleType('__main__')\n";
    let executor = executor();
    Case::new(source).run(&executor).await;
    let source = "import __main__, pickle\nclass Item: pass\n\
                  print(vars(__main__) is globals(), len(pickle.dumps(Item())) > 0)\n";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "True True\n", "{outcome:?}");
}

#[tokio::test]
async fn finalisers_find_the_names_that_they_need() {
    let source = r#"
import os
PREFIX = 'end of'
def shown(value): return f'{PREFIX} {value.name}{os.sep}'
class Value:
    def __init__(self, name): self.name = name
    def __del__(self): print(shown(self))
first, second = Value('first'), Value('second')
"#;
    assert_eq!(stdout(source).await, "end of second/\nend of first/\n");
}

#[tokio::test]
async fn garbage_ends_with_its_run() {
    let executor = executor();
    let source = r#"
def say(name): print(name)
class Node:
    def __init__(self, name): self.me, self.name = self, name
    def __del__(self): say(self.name)
class Keeper:
    def __del__(self): print('kept')
Keeper.kept = Keeper()
Node('early')
late = Node('late')
"#;
    let outcome = Case::new(source).run(&executor).await;
    let mut lines: Vec<_> = outcome.output.stdout.text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["early", "kept", "late"], "{outcome:?}");
    let next = Case::new("import gc\nprint(gc.collect() >= 0)")
        .run(&executor)
        .await;
    assert_eq!(next.output.stdout.text, "True\n");
    assert_eq!(next.output.stderr.text, "");
}
