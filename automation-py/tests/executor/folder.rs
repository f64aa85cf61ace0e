//! Modules of the scripts folder belong to the run that imports them.

use std::path::Path;
use std::sync::Arc;

use automation_core::executor::{Ending, Outcome};
use serde_json::json;
use tempfile::TempDir;

use crate::Tested;
use crate::support::{Case, executor};

pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        write(folder.path(), name, source);
    }
    folder
}

pub(crate) fn write(folder: &Path, name: &str, source: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, source).unwrap();
}

pub(crate) async fn run(executor: &Tested, folder: &TempDir, source: &str) -> Outcome {
    let path = folder.path().join("probe.py");
    Case::at(path.to_str().unwrap(), source).run(executor).await
}

pub(crate) async fn stdout(executor: &Tested, folder: &TempDir, source: &str) -> String {
    let outcome = run(executor, folder, source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    outcome.output.stdout.text
}

#[tokio::test]
async fn each_run_has_a_fresh_module() {
    let executor = executor();
    let folder = folder(&[("fresh_probe.py", "import json\ncount = 0\n")]);
    let source = "import fresh_probe\nfresh_probe.count += 1\nfrom fresh_probe import count\n\
                  import fresh_probe as again\nprint(count, again is fresh_probe)\n";
    for _ in 0..3 {
        assert_eq!(stdout(&executor, &folder, source).await, "1 True\n");
    }
}

#[tokio::test]
async fn it_is_a_module_like_any_other() {
    let executor = executor();
    let helper = "from __future__ import annotations\nimport dataclasses, typing\n\
                  @dataclasses.dataclass\nclass Item:\n    name: str\n    count: typing.ClassVar[int] = 2\n\
                  def fail(): raise ValueError('in the helper')\n";
    let folder = folder(&[("module_probe.py", helper)]);
    let source = r#"
import copy, importlib, inspect, pickle, sys, traceback, types, typing
import module_probe
from module_probe import Item
module = sys.modules['module_probe']
print(module.Item is Item, vars(module) is vars(module_probe), isinstance(module, types.ModuleType))
print(type(module_probe) is types.ModuleType, module_probe.__file__ == inspect.getfile(Item))
print(pickle.loads(pickle.dumps(Item('a'))), copy.deepcopy(Item('b')), typing.get_type_hints(Item)['name'])
print([field.name for field in module_probe.dataclasses.fields(Item)])
module.added = 1
print(module_probe.added, importlib.import_module('module_probe') is module_probe, __import__('module_probe') is module_probe)
print(importlib.reload(module_probe) is module_probe, module_probe.Item is Item, module_probe.added)
try:
    module_probe.fail()
except ValueError:
    print("    def fail(): raise ValueError('in the helper')\n" in traceback.format_exc())
from unittest import mock
with mock.patch('module_probe.fail', lambda: 'patched'):
    print(module_probe.fail())
exec('import module_probe as other')
print(other is module_probe)
"#;
    let expected = "True True True\nTrue True\nItem(name='a') Item(name='b') <class 'str'>\n['name']\n\
                    1 True True\nTrue False 1\n\
                    True\npatched\nTrue\n";
    assert_eq!(stdout(&executor, &folder, source).await, expected);
}

#[tokio::test]
async fn packages_and_relative_imports_work() {
    let executor = executor();
    let folder = folder(&[
        (
            "package_probe/__init__.py",
            "from . import first\nfrom .deep import thing\n",
        ),
        (
            "package_probe/first.py",
            "from .second import VALUE\nimport package_probe.second as two\n",
        ),
        ("package_probe/second.py", "VALUE = 7\n"),
        (
            "package_probe/deep/__init__.py",
            "from ..second import VALUE as thing\n",
        ),
        (
            "package_probe/deep/leaf.py",
            "from ... package_probe import second\n",
        ),
        ("plain_probe/leaf.py", "LEAF = 'leaf'\n"),
        ("left_probe.py", "import right_probe\nNAME = 'left'\n"),
        (
            "right_probe.py",
            "import left_probe\ndef name(): return left_probe.NAME\n",
        ),
    ]);
    let source = r#"
import package_probe.second, package_probe
print(package_probe.first.VALUE, package_probe.thing, package_probe.first.two is package_probe.second)
import package_probe.first as first
from package_probe import second, deep
print(first is package_probe.first, second.VALUE, deep.thing)
import plain_probe.leaf
print(plain_probe.leaf.LEAF)
import left_probe
print(left_probe.right_probe.name())
for statement in ('import package_probe.absent', 'from package_probe import absent', 'import package_probe.second.x',
                  'import absent_probe', 'from . import x'):
    try:
        exec(statement)
    except ImportError as error:
        print(type(error).__name__, str(error).partition(' (')[0])
"#;
    let expected = "7 7 True\nTrue 7 7\nleaf\nleft\n\
                    ModuleNotFoundError No module named 'package_probe.absent'\n\
                    ImportError cannot import name 'absent' from 'package_probe'\n\
                    ModuleNotFoundError No module named 'package_probe.second.x'; 'package_probe.second' is not a package\n\
                    ModuleNotFoundError No module named 'absent_probe'\n\
                    ImportError attempted relative import with no known parent package\n";
    for _ in 0..2 {
        assert_eq!(stdout(&executor, &folder, source).await, expected);
    }
}

#[tokio::test]
async fn a_helper_that_appears_later_or_is_named_by_a_text_belongs_to_the_run_too() {
    let executor = executor();
    let folder = folder(&[]);
    let source = "import importlib, sys\nname = 'late_' + 'probe'\ntry:\n    module = importlib.import_module(name)\n\
                  except ImportError:\n    print('absent')\nelse:\n    module.count += 1\n    \
                  print(module.count, sys.modules[name].count)\n";
    assert_eq!(stdout(&executor, &folder, source).await, "absent\n");
    write(folder.path(), "late_probe.py", "count = 0\n");
    for _ in 0..2 {
        assert_eq!(stdout(&executor, &folder, source).await, "1 1\n");
    }
    let source = "exec('import late' + '_probe as late')\nlate.count += 1\nprint(late.count)\n";
    for _ in 0..2 {
        assert_eq!(stdout(&executor, &folder, source).await, "1\n");
    }
}

#[tokio::test]
async fn a_module_that_fails_is_tried_again_and_one_that_replaces_itself_is_found() {
    let executor = executor();
    let folder = folder(&[
        (
            "failing_probe.py",
            "import sys\nsys.argv.append('x')\nif len(sys.argv) < 4: raise KeyError(len(sys.argv))\n",
        ),
        (
            "replacing_probe.py",
            "import sys\nclass Self: value = 5\nsys.modules[__name__] = Self()\n",
        ),
    ]);
    let source = r#"
import sys
for _ in range(2):
    try:
        import failing_probe
        print('imported')
    except KeyError as error:
        print('failed', error)
import replacing_probe
print(replacing_probe.value, sys.modules['replacing_probe'].value)
import types
sys.modules['stand_in_probe'] = types.ModuleType('stand_in_probe')
import stand_in_probe
print(stand_in_probe is sys.modules['stand_in_probe'])
"#;
    write(folder.path(), "stand_in_probe.py", "");
    let expected = "failed 3\nimported\n5 5\nTrue\n";
    for _ in 0..2 {
        assert_eq!(stdout(&executor, &folder, source).await, expected);
    }
}

#[tokio::test]
async fn a_file_named_as_a_library_is_the_scripts_alone() {
    let executor = executor();
    let folder = folder(&[("colorsys.py", "NAME = 'mine'\n"), ("json/data.txt", "")]);
    let source = "import colorsys, json\nprint(colorsys.NAME, json.dumps(1))\n";
    assert_eq!(stdout(&executor, &folder, source).await, "mine 1\n");
    let other = tempfile::tempdir().unwrap();
    let source = "import colorsys\nprint(hasattr(colorsys, 'rgb_to_hsv'))\n";
    assert_eq!(stdout(&executor, &other, source).await, "True\n");
    let source = "import colorsys\nprint(colorsys.NAME)\n";
    assert_eq!(stdout(&executor, &folder, source).await, "mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_at_the_same_time_never_meet_each_others() {
    let executor = Arc::new(executor());
    let folders: Vec<_> = (0..3)
        .map(|n| {
            let source = format!(
                "import time\ntime.sleep(0.002)\nowner = {n}\nclass Item: owner = {n}\nseen = []\n"
            );
            Arc::new(match n {
                2 => folder(&[]),
                _ => folder(&[("shared_probe.py", &source)]),
            })
        })
        .collect();
    let source = r#"
import json, pickle, sys, threading, time
n = json.loads(sys.argv[1])['n']
try:
    import shared_probe
except ImportError:
    print('absent', n)
    raise SystemExit
assert shared_probe.owner == n and not shared_probe.seen, (shared_probe.owner, n, shared_probe.seen)
shared_probe.seen.append(n)
for turn in range(5):
    loaded = pickle.loads(pickle.dumps(shared_probe.Item()))
    assert type(loaded) is shared_probe.Item and sys.modules['shared_probe'].owner == n
    thread = threading.Thread(target=lambda: shared_probe.seen.append(sys.modules['shared_probe'].owner))
    thread.start(); thread.join()
    time.sleep(0.001)
assert shared_probe.seen == [n] * 6, shared_probe.seen
print('owner', n)
"#;
    let runs: Vec<_> = (0..48)
        .map(|turn| {
            let n = turn % 3;
            let (executor, folder) = (Arc::clone(&executor), Arc::clone(&folders[n]));
            tokio::spawn(async move {
                let path = folder.path().join("probe.py");
                let case = Case::at(path.to_str().unwrap(), source).with(json!({ "n": n }));
                let outcome = case.run(&executor).await;
                let word = if n == 2 { "absent" } else { "owner" };
                assert_eq!(
                    outcome.output.stdout.text,
                    format!("{word} {n}\n"),
                    "{outcome:?}"
                );
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}
