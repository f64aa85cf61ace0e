//! What a run did to the world, and what its script's metadata keeps it from.

use std::path::Path;

use automation_core::executor::{Ending, Outcome, RunEvent};

use crate::support::{Case, executor, failure};

/// Runs a source. Returns its effects in one line each, and the outcome.
async fn effects(metadata: &str, source: &str) -> (Vec<String>, Outcome) {
    let head = format!("# /// script\n# [tool.automation]\n# {metadata}\n# ///\n");
    let case = Case::new(&format!("{head}{source}"));
    let host = std::sync::Arc::clone(&case.host);
    let outcome = case.run(&executor()).await;
    let events = host.effects.lock();
    let told = events.iter().filter_map(|event| match event {
        RunEvent::Effect {
            effect,
            target,
            denied,
        } => {
            let denied = if *denied { " denied" } else { "" };
            Some(format!("{effect} {target}{denied}"))
        }
        _ => None,
    });
    (told.collect(), outcome)
}

/// Metadata that denies nothing.
const NOTHING: &str = "risk = \"low\"";

#[tokio::test]
async fn effects_are_told_as_they_happen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (a, b, d) = (at("a"), at("b"), at("d"));
    for (source, expected) in [
        (format!("open({a:?}, 'w').close()"), vec![format!("write {a}")]),
        (format!("open({a:?}, 'rb').close()"), vec![]),
        (format!("open({a:?}, 'r+').close()"), vec![format!("write {a}")]),
        (format!("import pathlib\npathlib.Path({a:?}).write_text('x')"), vec![format!("write {a}")]),
        (format!("import os\nos.close(os.open({a:?}, os.O_RDONLY))"), vec![]),
        (format!("import os\nos.close(os.open({a:?}.encode(), os.O_WRONLY | os.O_APPEND))"), vec![format!("write {a}")]),
        (format!("import os\nos.rename({a:?}, {b:?})"), vec![format!("write {a} -> {b}")]),
        (format!("import os\nos.truncate({b:?}, 0)\nos.remove({b:?})"), vec![format!("write {b}")]),
        (format!("import os\nos.mkdir({d:?})\nos.rmdir({d:?})"), vec![format!("write {d}")]),
        (format!("import os, shutil\nos.mkdir({d:?})\nshutil.rmtree({d:?})"), vec![format!("write {d}")]),
        ("import sqlite3\nsqlite3.connect(':memory:').close()".to_owned(), vec![]),
        ("import subprocess\nsubprocess.run(['true', 'x'])".to_owned(), vec!["subprocess true x".to_owned()]),
        ("import subprocess, pathlib\nsubprocess.run([pathlib.Path('/bin/true'), b'x'])".to_owned(), vec!["subprocess /bin/true x".to_owned()]),
        ("import os\nos.system('true')".to_owned(), vec!["subprocess /bin/sh -c true".to_owned()]),
        ("import os\nos.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)".to_owned(), vec!["subprocess true".to_owned()]),
        ("import socket\nsocket.socket().connect_ex(('127.0.0.1', 1))".to_owned(), vec!["network 127.0.0.1:1".to_owned()]),
        ("import socket\nsocket.getaddrinfo('::1', 80)".to_owned(), vec!["network [::1]:80".to_owned()]),
        ("import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\ns.sendto(b'', ('127.0.0.1', 9))".to_owned(), vec!["network 127.0.0.1:9".to_owned()]),
        ("import ctypes\nctypes.CDLL('libc.so.6').getpid()".to_owned(), vec!["native libc.so.6".to_owned(), "native getpid".to_owned()]),
        ("import socket, asyncio, json\nasyncio.run(asyncio.sleep(0))".to_owned(), vec![]),
        ("id(1)\nimport sys\nsys._getframe()".to_owned(), vec![]),
    ] {
        // What the first import of a module does is no matter here.
        let lines = source.lines().filter(|line| line.starts_with("import")).collect::<Vec<_>>();
        effects(NOTHING, &lines.join("\n")).await;
        let (told, outcome) = effects(NOTHING, &source).await;
        assert_eq!(told, expected, "{source}: {outcome:?}");
        assert_eq!(outcome.ending, Ending::Completed, "{source}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_the_metadata_denies_does_not_happen() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    std::fs::write(&kept, "x").unwrap();
    for (effect, source) in [
        ("write", format!("open({kept:?}, 'w')")),
        ("write", format!("import os\nos.remove({kept:?})")),
        (
            "write",
            format!("import shutil\nshutil.rmtree({:?})", folder.path()),
        ),
        (
            "subprocess",
            format!("import subprocess\nsubprocess.run(['rm', {kept:?}])"),
        ),
        (
            "subprocess",
            format!("import os\nos.system('rm {}')", kept.display()),
        ),
        (
            "subprocess",
            format!("import os\nos.posix_spawnp('rm', ['rm', {kept:?}], {{}})"),
        ),
        ("subprocess", "import os\nos.fork()".to_owned()),
        ("subprocess", "import os\nos.forkpty()".to_owned()),
        (
            "subprocess",
            format!("import os\nos.spawnlp(os.P_WAIT, 'rm', 'rm', {kept:?})"),
        ),
        (
            "network",
            "import socket\nsocket.create_connection(('127.0.0.1', 1))".to_owned(),
        ),
        (
            "network",
            "import socket\nsocket.socket().bind(('127.0.0.1', 0))".to_owned(),
        ),
        (
            "network",
            "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1/')".to_owned(),
        ),
        (
            "native",
            "import ctypes\nctypes.CDLL('libc.so.6')".to_owned(),
        ),
        ("native", "import ctypes\nctypes.string_at(0)".to_owned()),
    ] {
        let (told, outcome) = effects(&format!("deny = [\"{effect}\"]"), &source).await;
        let (_, message) = failure(&outcome);
        assert!(
            message.contains(&format!("{effect} is denied")),
            "{source}: {message}"
        );
        assert!(
            message.contains(&format!("deny = [\"{effect}\"]")),
            "{source}: {message}"
        );
        assert!(
            told.last().is_some_and(|told| told.ends_with(" denied")),
            "{source}: {told:?}"
        );
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "x", "{source}");
    }
}

#[tokio::test]
async fn what_is_denied_leaves_the_rest_alone() {
    let (_, outcome) = effects(
        "deny = [\"subprocess\", \"network\", \"native\"]",
        "import os, tempfile\nwith tempfile.TemporaryFile() as file: file.write(b'x')\nprint(os.getcwd())",
    )
    .await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
}

#[tokio::test]
async fn a_run_starts_no_more_children_than_it_may() {
    for start in [
        "subprocess.run(['true'])",
        "os.system('true')",
        "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
        "subprocess.run(['true'], close_fds=False)",
        "subprocess.run(['/bin/true'], close_fds=False)",
    ] {
        let source =
            format!("import os, subprocess\nfor _ in range(3):\n    {start}\n    print('one')\n");
        let (_, outcome) = effects("children_max = 2", &source).await;
        assert_eq!(
            outcome.output.stdout.text, "one\none\n",
            "{start}: {outcome:?}"
        );
        assert!(
            failure(&outcome).1.contains("children_max = 2"),
            "{outcome:?}"
        );
        assert_eq!(outcome.usage.children, Some(2), "{start}");
    }
    let (_, outcome) = effects(
        "children_max = 0",
        "import subprocess\nsubprocess.run(['true'])",
    )
    .await;
    assert!(
        failure(&outcome).1.contains("children_max = 0"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn extension_modules_from_elsewhere_are_native_code() {
    let folder = tempfile::tempdir().unwrap();
    let source = "import importlib.machinery, importlib.util, shutil, sys, _json\n\
                  print(_json.__file__)\n";
    let (_, outcome) = effects(NOTHING, source).await;
    if outcome.ending != Ending::Completed {
        // Built into this interpreter.
        return;
    }
    let library = outcome.output.stdout.text.trim().to_owned();
    let name = Path::new(&library).file_name().unwrap();
    let copy = folder.path().join(name);
    std::fs::copy(&library, &copy).unwrap();
    let source = format!(
        "import importlib.machinery, importlib.util\nloader = importlib.machinery.ExtensionFileLoader('_json', {copy:?})\n\
         spec = importlib.util.spec_from_loader('_json', loader)\nimportlib.util.module_from_spec(spec)\n"
    );
    let (told, outcome) = effects(NOTHING, &source).await;
    assert_eq!(told, [format!("native {}", copy.display())], "{outcome:?}");
}
