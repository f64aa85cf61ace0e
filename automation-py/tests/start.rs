//! How the interpreter starts: a process has one, so this is one test, in the order in which it must happen.

#![expect(clippy::unwrap_used, reason = "a test's helper fails like a test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use automation_core::executor::{CancelToken, Ending, Executor, Invocation, Outcome};
use automation_core::{ExecutionId, Script};
use automation_py::PythonExecutor;
use uuid::Uuid;

const BUILD_PYTHON: &str = env!("AUTOMATION_BUILD_PYTHON");

/// Returns a program that claims to be an interpreter of another version.
fn other_version(folder: &Path) -> PathBuf {
    let path = folder.join("python3.10");
    let program = "#!/bin/sh\nprintf '3.10.1\\ncpython\\n\\n/opt/python3.10\\n'\n";
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Creates a virtual environment with a module of its own. Returns its interpreter.
fn virtual_environment(folder: &Path) -> PathBuf {
    let environment = folder.join("env");
    let created = Command::new(BUILD_PYTHON)
        .args(["-m", "venv", "--without-pip"])
        .arg(&environment)
        .status()
        .unwrap();
    assert!(created.success());
    let library = std::fs::read_dir(environment.join("lib"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let module = library.path().join("site-packages/only_here.py");
    std::fs::write(module, "VALUE = 42\n").unwrap();
    environment.join("bin/python")
}

async fn run(executor: &PythonExecutor, source: &str) -> Outcome {
    let script = Arc::new(Script::parse("probe.py", source.as_bytes()).unwrap());
    let host = Arc::new(host::Silent);
    let invocation = Invocation::new(ExecutionId::from_uuid(Uuid::now_v7()), script, host);
    executor
        .execute(invocation, CancelToken::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_wrong_interpreter_is_refused_and_an_environment_is_entered() {
    let folder = tempfile::tempdir().unwrap();
    let other = other_version(folder.path());
    let refused = PythonExecutor::builder()
        .python(&other)
        .build()
        .unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains(&format!("{} is Python 3.10.1", other.display())),
        "{text}"
    );
    assert!(
        text.contains("libpython") && text.contains(" is Python 3."),
        "{text}"
    );

    let python = virtual_environment(folder.path());
    let executor = PythonExecutor::builder().python(&python).build().unwrap();
    let outcome = run(
        &executor,
        "import os, sys, only_here\nprint(only_here.VALUE, sys.prefix, sys.prefix != sys.base_prefix)\n\
         print(sys.executable, sys.flags.utf8_mode, os.environ.get('PYTHONPATH'), sys.flags.isolated)\n",
    )
    .await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    let prefix = folder.path().join("env");
    let expected = format!(
        "42 {} True\n{} 1 None 0\n",
        prefix.display(),
        python.display()
    );
    assert_eq!(outcome.output.stdout.text, expected);
    assert_eq!(
        executor.health().await.details["prefix"],
        prefix.to_str().unwrap()
    );

    let same = PythonExecutor::builder().build().unwrap();
    assert_eq!(
        run(&same, "print('same')").await.output.stdout.text,
        "same\n"
    );
    let refused = PythonExecutor::builder()
        .python(BUILD_PYTHON)
        .build()
        .unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("a process has one interpreter"), "{text}");
}

/// A host that keeps nothing.
mod host {
    use std::time::Instant;

    use automation_core::executor::{RunEvent, RunHost};
    use automation_core::secret::{Secret, SecretError};
    use automation_core::storage::StorageError;
    use serde_json::Value;

    #[derive(Debug)]
    pub(crate) struct Silent;

    impl RunHost for Silent {
        fn started(&self) {}

        fn emit(&self, _event: RunEvent) {}

        fn secret(&self, name: &str) -> Result<Secret, SecretError> {
            Err(SecretError::Missing {
                name: name.to_owned(),
            })
        }

        fn journal(&self, _entry: Value) -> Result<(), StorageError> {
            Ok(())
        }

        fn deadline(&self) -> Option<Instant> {
            None
        }

        fn is_cancelled(&self) -> bool {
            false
        }

        fn dry_run(&self) -> bool {
            false
        }
    }
}
