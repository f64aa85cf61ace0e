//! The command line, the environment and the import path of a run.

use automation_core::executor::Ending;
use serde_json::json;

use crate::support::{Case, executor, stdout};

#[tokio::test]
async fn argv_is_a_list_like_any_other() {
    let source = r#"
import copy, json, sys
path, parameters = sys.argv
print(path, json.loads(parameters), len(sys.argv), isinstance(sys.argv, list))
print(['q'] + sys.argv == ['q', path, parameters], copy.copy(sys.argv) == sys.argv)
from sys import argv
print(argv is sys.argv)
argv.append('more')
print(sys.argv[2])
sys.argv = ['mine']
print(sys.argv)
"#;
    let executor = executor();
    let case = Case::new(source).with(json!({ "a": [1, "ü"] }));
    let outcome = case.run(&executor).await;
    let expected =
        "/srv/scripts/probe.py {'a': [1, 'ü']} 2 True\nTrue True\nTrue\nmore\n['mine']\n";
    assert_eq!(outcome.output.stdout.text, expected);
    let next = Case::new("import sys\nprint(sys.argv)")
        .run(&executor)
        .await;
    assert_eq!(next.output.stdout.text, "['/srv/scripts/probe.py', '{}']\n");
}

#[tokio::test]
async fn the_ticket_is_an_argument_only_where_the_script_asks() {
    let executor = executor();
    let asks = "# /// script\n# [tool.automation]\n# context_argv = true\n# ///\n";
    for (block, expected) in [(asks, "{\"id\":\"T-1\"}\n"), ("", "None\n")] {
        let source =
            format!("{block}import sys\nprint(sys.argv[2] if len(sys.argv) > 2 else None)\n");
        let case = Case::new(&source).ticket(json!({ "id": "T-1" }));
        assert_eq!(case.run(&executor).await.output.stdout.text, expected);
    }
}

#[tokio::test]
async fn argparse_speaks_as_by_hand() {
    let source = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('parameters')\n\
                  print(parser.prog, parser.parse_args())\nparser.parse_args(['--bad'])\n";
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.exit_code, Some(2));
    assert_eq!(
        outcome.output.stdout.text,
        "probe.py Namespace(parameters='{}')\n"
    );
    let stderr = outcome.output.stderr.text;
    assert!(stderr.starts_with("usage: probe.py"), "{stderr}");
}

#[tokio::test]
async fn changes_of_the_environment_stay_in_their_run_and_reach_its_children() {
    let source = r#"
import os, subprocess
from os import environ
before = dict(environ)
os.environ['AUTOMATION_PROBE'] = 'ä'
os.putenv('AUTOMATION_PUT', 'put')
print(os.getenv('AUTOMATION_PROBE'), os.environb[b'AUTOMATION_PROBE'], 'AUTOMATION_PROBE' in environ)
child = 'echo "$AUTOMATION_PROBE $AUTOMATION_PUT"'
print(subprocess.run(['sh', '-c', child], capture_output=True, text=True).stdout, end='')
print(os.popen(child).read(), end='')
print(os.system('test "$AUTOMATION_PROBE" = ä'), os.system('exit 3') >> 8)
print(subprocess.run(['sh', '-c', child], capture_output=True, text=True, env={}).stdout, end='')
del os.environ['AUTOMATION_PROBE']
os.unsetenv('AUTOMATION_PUT')
print(dict(environ) == before, os.environ.pop('AUTOMATION_PROBE', None))
os.environ['AUTOMATION_LEFT'] = 'x'
"#;
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stderr.text, "");
    let expected = "ä b'\\xc3\\xa4' True\nä put\nä put\n0 3\n \nTrue None\n";
    assert_eq!(outcome.output.stdout.text, expected);
    let source = "import os, subprocess\nprint(os.environ.get('AUTOMATION_LEFT'), \
                  subprocess.run('echo $AUTOMATION_LEFT', shell=True, capture_output=True).stdout)";
    let next = Case::new(source).run(&executor).await;
    assert_eq!(next.output.stdout.text, "None b'\\n'\n");
    assert!(std::env::var_os("AUTOMATION_LEFT").is_none());
}

#[tokio::test]
async fn the_scripts_folder_comes_first_in_the_import_path() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("neighbour_probe.py"), "VALUE = 42\n").unwrap();
    let path = folder.path().join("probe.py");
    let source = "import sys, neighbour_probe\n\
                  print(neighbour_probe.VALUE, sys.path.count(__file__.rpartition('/')[0]))\n";
    let executor = executor();
    for _ in 0..2 {
        let case = Case::at(path.to_str().unwrap(), source);
        assert_eq!(case.run(&executor).await.output.stdout.text, "42 1\n");
    }
}

#[tokio::test]
async fn other_modules_have_their_own_path_and_argv() {
    let folder = tempfile::tempdir().unwrap();
    let helper = "path, argv, excepthook = 'own path', 'own argv', 'own hook'\n";
    std::fs::write(folder.path().join("attributes_probe.py"), helper).unwrap();
    let source = "import json, sys, types, attributes_probe as own\n\
                  print(own.path, own.argv, own.excepthook, type(own) is types.ModuleType)\n\
                  print(type(type(sys)('new')) is types.ModuleType, isinstance(json, type(sys)))\n";
    let path = folder.path().join("probe.py");
    let case = Case::at(path.to_str().unwrap(), source);
    let outcome = case.run(&executor()).await;
    let expected = "own path own argv own hook True\nTrue True\n";
    assert_eq!(outcome.output.stdout.text, expected, "{outcome:?}");
}

#[tokio::test]
async fn a_new_version_of_a_script_meets_new_helpers() {
    let executor = executor();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe.py");
    for (version, value) in ["'old'", "'changed'"].into_iter().enumerate() {
        let helper = format!("VALUE = {value}\n");
        std::fs::write(folder.path().join("versioned_probe.py"), helper).unwrap();
        let source =
            format!("import versioned_probe\nprint(repr(versioned_probe.VALUE))  # {version}\n");
        let case = Case::at(path.to_str().unwrap(), &source);
        let outcome = case.run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text,
            format!("{value}\n"),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn the_interpreter_is_a_real_one() {
    let source = "import subprocess, sys\n\
                  print(subprocess.run([sys.executable, '-c', 'import sys; print(sys.version)'], \
                  capture_output=True, text=True).stdout.strip() == sys.version.strip())\n";
    assert_eq!(stdout(source).await, "True\n");
}

#[tokio::test]
async fn what_a_thread_keeps_does_not_meet_the_next_run() {
    let source = r#"
import contextvars, decimal, sys
first = not hasattr(sys, 'probe_var')
if first:
    sys.probe_var = contextvars.ContextVar('probe', default='default')
print(decimal.getcontext().prec, sys.probe_var.get(), sys.gettrace(), sys.getprofile())
decimal.getcontext().prec = 3
sys.probe_var.set('set')
sys.settrace(lambda *_: None)
sys.setprofile(lambda *_: None)
"#;
    let executor = crate::Tested::builder().workers(1).build().unwrap();
    for _ in 0..2 {
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
        assert_eq!(outcome.output.stdout.text, "28 default None None\n");
    }
}
