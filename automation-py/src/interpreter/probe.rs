//! Asks an interpreter what it is, by starting it once. Knows nothing of the library that is linked.

use std::path::{Path, PathBuf};
use std::process::Command;

use automation_core::executor::ExecutorError;

use super::start_error;

/// Prints one fact a line. `sys.executable` sees through shims and finds what a bare name stands for.
const PROGRAM: &str = "\
import sys
print('.'.join(map(str, sys.version_info[:3])))
print(sys.implementation.name)
print(sys.abiflags)
print(sys.executable)
";

/// What an interpreter says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    /// For instance `3.11.7`.
    pub(super) version: String,
    /// Where it really is; inside a virtual environment the environment's own path.
    pub(super) executable: PathBuf,
}

/// Starts `python` and reads what it says, without running `site` or anything from its environment.
pub(super) fn probe(python: &Path) -> Result<Probe, ExecutorError> {
    let shown = python.display();
    let output = Command::new(python)
        .args(["-I", "-S", "-c", PROGRAM])
        .output()
        .map_err(|error| start_error(format!("{shown} can't be executed: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let [version, implementation, flags, executable] = lines[..] else {
        return Err(start_error(format!(
            "{shown} is not a Python interpreter: it was asked for its version and ended with {}",
            output.status
        )));
    };
    if implementation != "cpython" {
        return Err(start_error(format!(
            "{shown} is {implementation}, expected CPython"
        )));
    }
    if flags.contains('t') {
        return Err(start_error(format!(
            "{shown} is a free-threaded build of Python {version}, which is not supported: use the default build"
        )));
    }
    Ok(Probe {
        version: version.to_owned(),
        executable: PathBuf::from(executable),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::probe;

    fn fake(answer: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("python");
        std::fs::write(&path, format!("#!/bin/sh\nprintf '{answer}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    #[test]
    fn the_answer_is_read_line_by_line() {
        let (_folder, path) = fake("3.11.7\\ncpython\\n\\n/opt/python\\n");
        let found = probe(&path).unwrap();
        assert_eq!(found.version, "3.11.7");
        assert_eq!(found.executable, Path::new("/opt/python"));
    }

    #[test]
    fn what_can_not_be_embedded_is_refused_with_a_sentence() {
        for (answer, expected) in [
            (
                "3.13.0\\ncpython\\nt\\n/x\\n",
                "free-threaded build of Python 3.13.0",
            ),
            ("3.10.1\\npypy\\n\\n/x\\n", "is pypy, expected CPython"),
            ("hello\\n", "is not a Python interpreter"),
        ] {
            let (_folder, path) = fake(answer);
            let error = probe(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = probe(Path::new("/absent/python")).unwrap_err().to_string();
        assert!(
            error.contains("/absent/python can't be executed"),
            "{error}"
        );
    }
}
