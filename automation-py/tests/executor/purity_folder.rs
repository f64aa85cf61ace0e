//! Modules of the scripts folder in an interpreter that runs share: the host never has them, and code that is kept
//! for them is never old.

use std::path::Path;

use crate::folder::{folder, run, stdout, write};
use crate::support::executor;

/// Gives a file the time that an unpacked archive may give each of its versions.
fn age(folder: &Path, name: &str) {
    let file = std::fs::File::options().write(true).open(folder.join(name));
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    file.unwrap().set_modified(time).unwrap();
}

/// Returns whether a name is in `sys.modules`, as the host sees it.
fn is_known(name: &str) -> bool {
    use pyo3::types::PyAnyMethods as _;
    pyo3::Python::attach(|py| {
        let modules = py.import("sys").unwrap().getattr("modules").unwrap();
        modules.contains(name).unwrap()
    })
}

#[tokio::test]
async fn the_host_does_not_have_them() {
    let executor = executor();
    let folder = folder(&[
        ("known_probe/__init__.py", "from . import first\n"),
        ("known_probe/first.py", ""),
        ("late_known_probe.py", ""),
    ]);
    let source = "import known_probe, sys\nprint('known_probe.first' in sys.modules)\n\
                  exec('import late' + '_known_probe')\n";
    for _ in 0..2 {
        assert_eq!(stdout(&executor, &folder, source).await, "True\n");
        for name in ["known_probe", "known_probe.first", "late_known_probe"] {
            assert!(!is_known(name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_changed_file_is_seen_by_the_next_run_of_the_same_version() {
    let executor = executor();
    let folder = folder(&[("changing_probe.py", "VALUE = 1\n")]);
    let source = "import changing_probe\nprint(changing_probe.VALUE)\n";
    for value in 1..6 {
        let helper = format!("VALUE = {value}\n");
        write(folder.path(), "changing_probe.py", &helper);
        age(folder.path(), "changing_probe.py");
        for _ in 0..2 {
            let printed = stdout(&executor, &folder, source).await;
            assert_eq!(printed, format!("{value}\n"));
        }
    }
    std::fs::remove_file(folder.path().join("changing_probe.py")).unwrap();
    let outcome = run(&executor, &folder, source).await;
    assert!(
        outcome
            .output
            .stderr
            .text
            .ends_with("No module named 'changing_probe'\n")
    );
    // A helper that appears after the script was compiled.
    write(folder.path(), "changing_probe.py", "VALUE = 'back'\n");
    assert_eq!(stdout(&executor, &folder, source).await, "back\n");
}
