//! What a script does that is refused in a run or reaches other runs is warned of, with its place and a code that
//! allows it.

use automation_core::script::Severity;
use automation_core::{Executor, Script};
use automation_py::PythonExecutor;

use crate::support::{Case, executor, failure};

/// Returns line, column and code of each warning.
fn codes(executor: &PythonExecutor, source: &str) -> Vec<(u32, u32, String)> {
    let script = Script::parse("probe.py", source.as_bytes()).unwrap();
    let found = executor.inspect(&script).unwrap().diagnostics;
    let code = |text: &str| {
        text.rsplit_once('[')
            .map(|(_, code)| code.trim_end_matches(']').to_owned())
    };
    found
        .iter()
        .map(|warning| {
            assert_eq!(warning.severity, Severity::Warning, "{source}: {warning}");
            let code = code(&warning.message).unwrap_or_else(|| panic!("{warning}"));
            (warning.line.unwrap(), warning.column.unwrap(), code)
        })
        .collect()
}

#[test]
fn harm_is_found_where_it_is() {
    let executor = executor();
    for (source, line, column, code) in [
        (
            "from os import execv as out\n'ä'; out('ls', [])\n",
            2,
            6,
            "refused",
        ),
        ("import os as o\nlist(map(o.nice, []))\n", 2, 10, "refused"),
        ("import os\nos.execvp('ls', ['ls'])\n", 2, 1, "refused"),
        ("import os\nif os.fork() == 0: pass\n", 2, 4, "fork"),
        (
            "from concurrent.futures import ProcessPoolExecutor\nx = ProcessPoolExecutor()\n",
            2,
            5,
            "fork",
        ),
        ("import signal\nsignal.alarm(5)\n", 2, 1, "refused"),
        ("import os\nos.setsid()\n", 2, 1, "refused"),
        (
            "import threading\nthreading.stack_size(65536)\n",
            2,
            1,
            "refused",
        ),
        ("import os\nos.setuid(1)\n", 2, 1, "refused"),
        (
            "import locale\nlocale.setlocale(locale.LC_ALL, '')\n",
            2,
            1,
            "process-state",
        ),
        ("name = input()\n", 1, 8, "terminal"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
            2,
            1,
            "refused",
        ),
        ("import os\nos.kill(0, 9)\n", 2, 1, "refused"),
        ("import os\nos.kill(-1, 9)\n", 2, 1, "refused"),
        ("import os\nos.close(1)\n", 2, 1, "refused"),
        ("import os\nos.dup2(3, 1)\n", 2, 1, "refused"),
        (
            "import sys\nsys.setrecursionlimit(1000000)\n",
            2,
            1,
            "process-state",
        ),
        ("import ctypes\n", 1, 1, "foreign-code"),
        ("from ctypes import util\n", 1, 1, "foreign-code"),
        ("import json\njson.dumps = print\n", 2, 1, "patch"),
        (
            "import socket\nsocket.socket.connect = None\n",
            2,
            1,
            "patch",
        ),
        (
            "from json import JSONEncoder\ndel JSONEncoder.default\n",
            2,
            5,
            "patch",
        ),
        (
            "import json\nsetattr(json, 'dumps', print)\n",
            2,
            1,
            "patch",
        ),
        (
            "import subprocess\nx = 1\nsubprocess.run(f'ls {x}', shell=True)\n",
            3,
            1,
            "shell-injection",
        ),
        (
            "import os\nx = 1\nos.system('ls %s' % x)\n",
            3,
            1,
            "shell-injection",
        ),
        (
            "import os\nx = 1\nos.popen('ls {}'.format(x))\n",
            3,
            1,
            "shell-injection",
        ),
        (
            "import subprocess as s\nx = ''\nc = 'ls ' + x\ns.call(c, shell=True)\n",
            4,
            1,
            "shell-injection",
        ),
        (
            "while True:\n    try:\n        pass\n    except:\n        pass\n",
            4,
            5,
            "swallow",
        ),
        (
            "for x in y:\n    try:\n        x()\n    except (OSError, BaseException):\n        continue\n",
            4,
            5,
            "swallow",
        ),
    ] {
        assert_eq!(
            codes(&executor, source),
            [(line, column, code.to_owned())],
            "{source}"
        );
    }
}

#[test]
fn what_harms_nobody_is_left_alone() {
    let executor = executor();
    for source in [
        "import sys\nsys.exit(1)\n",
        "import logging\nlogging.basicConfig(level=10)\n",
        "import sys, io\nsys.stdout = io.StringIO()\nsys.argv = []\n",
        "import os\nos.environ['A'] = '1'\nhasattr(os, 'fork')\n",
        "import os\nos.kill(4711, 15)\nos.close(5)\n",
        "import os\nos._exit(1)\n",
        "import logging\nlogging.disable()\n",
        "import subprocess, os\nsubprocess.run(['ls'], preexec_fn=os.setsid)\n",
        "import threading\nthreading.stack_size()\n",
        "import warnings\nwarnings.filters = []\n",
        "class A: pass\na = A()\na.x = 1\nA.y = 2\n",
        "def f(json):\n    json.dumps = 1\n",
        "def input(): return ''\ninput()\n",
        "import subprocess\nx = 1\nsubprocess.run(['ls', f'{x}'])\nsubprocess.run('ls | wc', shell=True)\n",
        "import subprocess, shlex\nx = ''\nsubprocess.run(f'ls {shlex.quote(x)} | wc', shell=True)\n",
        "import subprocess\nx = 1\nsubprocess.run(f'ls {x}', shell=False)\n",
        "while True:\n    try:\n        pass\n    except Exception:\n        pass\n",
        "while True:\n    try:\n        pass\n    except BaseException:\n        print()\n        raise\n",
        "try:\n    pass\nexcept BaseException:\n    pass\n",
        "while True:\n    def f():\n        try:\n            pass\n        except: pass\n    break\n",
    ] {
        assert_eq!(codes(&executor, source), [], "{source}");
    }
}

#[test]
fn a_line_can_allow_a_code() {
    let executor = executor();
    let allowed = "import gc, os\nos.nice(1)  # automation: allow(refused)\ngc.disable() # automation: allow(fork, process-state)\n";
    assert_eq!(codes(&executor, allowed), []);
    let other = "import os\nos.nice(1)  # automation: allow(fork)\n";
    assert_eq!(codes(&executor, other), [(2, 1, "refused".to_owned())]);
    let script = Script::parse("x.py", b"x = 1  # automation: allow(exit)\n").unwrap();
    let found = executor.inspect(&script).unwrap().diagnostics;
    assert!(
        found[0].to_string().starts_with(
            "x.py:1:8: allow(exit) is unknown, expected one of foreign-code, fork, guard"
        ),
        "{found:?}"
    );
}

/// Working directory and mask are the run's own where the system allows that.
#[test]
fn a_place_is_doubtful_only_where_it_is_shared() {
    let source = "import os\nos.chdir('/tmp')\nos.umask(0)\n";
    let found = codes(&executor(), source);
    let expected: &[_] = if cfg!(target_os = "linux") {
        &[]
    } else {
        &[(2, 1, "refused".to_owned()), (3, 1, "refused".to_owned())]
    };
    assert_eq!(found, expected);
}

/// What is warned of as refused is refused, and what changes all runs is found out.
#[tokio::test]
async fn warnings_are_true() {
    let executor = executor();
    for call in [
        "os.execv('/absent', ['x'])",
        "signal.alarm(1000)",
        "os.nice(1)",
        "os.setsid()",
        "os.close(1)",
        "threading.stack_size(65536)",
    ] {
        let source = format!("import os, signal, threading, time\n{call}\n");
        assert_eq!(codes(&executor, &source)[0].2, "refused", "{call}");
        let outcome = Case::new(&source).run(&executor).await;
        let (_, message) = failure(&outcome);
        assert!(
            message.starts_with("PermissionError") || message.starts_with("ValueError"),
            "{message}"
        );
    }
    for change in [
        "import gc\ngc.disable()",
        "import gc\ngc.set_threshold(701)",
        "import locale\nlocale.setlocale(locale.LC_ALL, 'C.UTF-8')",
        "import socket\nsocket.setdefaulttimeout(1000)",
        "import sys\nsys.setrecursionlimit(1001)",
    ] {
        assert_eq!(codes(&executor, change)[0].2, "process-state", "{change}");
        // What has a function of its own in runs has it from the run after its first import.
        Case::new(change.lines().next().unwrap())
            .run(&executor)
            .await;
        let case = Case::new(change);
        let host = std::sync::Arc::clone(&case.host);
        let outcome = case.run(&executor).await;
        let told = !host.events.lock().is_empty();
        assert!(told, "{change} is not noticed: {outcome:?}");
    }
}

/// In a process of its own a script harms itself only.
#[test]
fn isolation_allows_what_harms_a_host_only() {
    let block = "# /// script\n# [tool.automation]\n# isolation = \"process\"\n# ///\n";
    let source = format!("{block}import os\nos.chdir('/')\nos.system(f'ls {{os.sep}}')\ninput()\n");
    let codes: Vec<_> = codes(&executor(), &source)
        .into_iter()
        .map(|(.., code)| code)
        .collect();
    assert_eq!(codes, ["shell-injection", "terminal"]);
}

#[test]
fn the_bundled_scripts_and_examples_are_free_of_warnings() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let executor = executor();
    let mut seen = 0;
    for folder in ["scripts", "examples/helpdesk"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "py") {
                let script = Script::parse(&path, &std::fs::read(&path).unwrap()).unwrap();
                assert_eq!(
                    executor.inspect(&script).unwrap().diagnostics,
                    [],
                    "{path:?}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "{seen}");
}
