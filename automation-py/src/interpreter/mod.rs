//! The one interpreter of this process: started once on a thread of its own, or found running already.
//!
//! Owns start and facts. Knows nothing of runs; what makes concurrent runs possible is installed by `run`.

mod probe;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use automation_core::executor::ExecutorError;
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use self::probe::probe;
use crate::{ffi, run};

/// Stack of each thread that executes Python: as deep as the recursion that scripts may ask for. Memory is used as
/// far as a stack has grown.
pub(crate) const STACK_BYTES: usize = 32 * 1024 * 1024;
/// How long a script may compute while another waits for the GIL; the interpreter's own is 5 ms. A short script waits
/// for one of them beside each that computes.
const SWITCH_INTERVAL: Duration = Duration::from_millis(1);
/// Minor versions that the suite is run with.
const TESTED_MINORS: std::ops::RangeInclusive<u8> = 9..=13;

/// A process has at most one interpreter, and it is never stopped: threads may be in it.
static INTERPRETER: Mutex<Option<Arc<Interpreter>>> = Mutex::new(None);

/// What is known of the interpreter. Read without the GIL.
#[derive(Debug)]
pub(crate) struct Interpreter {
    /// For instance `3.11.7`.
    pub(crate) version: String,
    build: String,
    executable: PathBuf,
    prefix: String,
    library: Option<PathBuf>,
    /// Whether a host had started it.
    pub(crate) hosted: bool,
    /// Why waits of scripts can not be ended, if so.
    uninterruptible: Option<&'static str>,
    warning: Option<String>,
}

impl Interpreter {
    /// Returns the running interpreter, and starts it if there is none: as `python`, or as the interpreter that
    /// this crate was built with.
    pub(crate) fn start(python: Option<&Path>) -> Result<Arc<Self>, ExecutorError> {
        without_gil(|| Self::start_detached(python))
    }

    fn start_detached(python: Option<&Path>) -> Result<Arc<Self>, ExecutorError> {
        let mut current = INTERPRETER.lock();
        if let Some(interpreter) = &*current {
            if let Some(python) = python {
                interpreter.check_same(python)?;
            }
            return Ok(Arc::clone(interpreter));
        }
        if cfg!(Py_GIL_DISABLED) {
            return Err(start_error(
                "a free-threaded Python is linked, which is not supported: build with the default build of Python",
            ));
        }
        let hosted = ffi::is_initialized();
        let interpreter = Arc::new(if hosted {
            Python::attach(|py| install(py, true))?
        } else {
            embed(python)?
        });
        *current = Some(Arc::clone(&interpreter));
        Ok(interpreter)
    }

    fn check_same(&self, python: &Path) -> Result<(), ExecutorError> {
        if python == self.executable || probe(python)?.executable == self.executable {
            return Ok(());
        }
        Err(start_error(format!(
            "this process already runs {} as {}, expected {}: a process has one interpreter",
            self.name(),
            self.executable.display(),
            python.display()
        )))
    }

    /// Returns for instance `Python 3.11.7`.
    pub(crate) fn name(&self) -> String {
        format!("Python {}", self.version)
    }

    /// Returns whether it ran already when it was found.
    pub(crate) const fn is_hosted(&self) -> bool {
        self.hosted
    }

    /// Returns the interpreter's program.
    pub(crate) fn executable(&self) -> &Path {
        &self.executable
    }

    /// Returns the facts that health shows.
    pub(crate) fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        let mut add = |key: &str, value: Value| details.insert(key.to_owned(), value);
        add("build", json!(self.build));
        add("executable", json!(self.executable.display().to_string()));
        add("prefix", json!(self.prefix));
        let library = self.library.as_ref();
        add(
            "library",
            json!(library.map(|path| path.display().to_string())),
        );
        add("hosted", json!(self.hosted));
        let waits = self.uninterruptible.map_or_else(
            || "interruptible".to_owned(),
            |why| format!("not interruptible: {why}"),
        );
        add("waits", json!(waits));
        if let Some(warning) = &self.warning {
            add("warning", json!(warning));
        }
        details
    }
}

/// Calls `f` with the GIL released, if this thread may hold it: what waits for other threads of ours must not.
pub(crate) fn without_gil<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if ffi::is_initialized() {
        Python::attach(|py| py.detach(f))
    } else {
        f()
    }
}

/// Starts Python on a thread that stays: it is Python's main thread for as long as the process lives.
fn embed(python: Option<&Path>) -> Result<Interpreter, ExecutorError> {
    let requested = python.map_or_else(default_python, Path::to_owned);
    let probe = probe(&requested)?;
    check_library(&probe.version, &requested, &ffi::library_version())?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("python-main".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let started = ffi::initialize(&probe.executable).map_err(start_error);
            let installed = started.and_then(|()| Python::attach(|py| install(py, false)));
            let failed = installed.is_err();
            let _ = sender.send(installed);
            if failed {
                return;
            }
            loop {
                thread::park();
            }
        })
        .map_err(|error| start_error(format!("no thread for it: {error}")))?;
    receiver
        .recv()
        .unwrap_or_else(|_| Err(start_error("its thread panicked")))
}

/// Returns the interpreter that this crate was built with if it is here, else whatever `python3` is.
pub(crate) fn default_python() -> PathBuf {
    option_env!("AUTOMATION_BUILD_PYTHON")
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("python3"))
}

/// Refuses an interpreter whose version is not the one of the library: its standard library and its packages
/// would meet another language version.
fn check_library(version: &str, python: &Path, library: &str) -> Result<(), ExecutorError> {
    let linked = library.split_whitespace().next().unwrap_or(library);
    if linked == version {
        return Ok(());
    }
    let place = ffi::library_path().map_or_else(
        || "the linked library".to_owned(),
        |path| path.display().to_string(),
    );
    Err(start_error(format!(
        "{} is Python {version}, and the library {place} is Python {linked}: use an interpreter and a library of the same version",
        python.display()
    )))
}

/// Prepares the interpreter for runs and reads its facts.
fn install(py: Python<'_>, hosted: bool) -> Result<Interpreter, ExecutorError> {
    let facts = || -> PyResult<Interpreter> {
        run::install(py, hosted)?;
        let waits = run::install_waits(py)?;
        let sys = py.import("sys")?;
        if !hosted {
            ffi::keep_little();
            sys.call_method1("setswitchinterval", (SWITCH_INTERVAL.as_secs_f64(),))?;
        }
        let (major, minor, micro): (u8, u8, u8) = sys
            .getattr("version_info")?
            .get_item(pyo3::types::PySlice::new(py, 0, 3, 1))?
            .extract()?;
        let version = format!("{major}.{minor}.{micro}");
        let mut warnings = Vec::new();
        if major != 3 || !TESTED_MINORS.contains(&minor) {
            warnings.push(format!(
                "Python {version} is not tested: 3.{} to 3.{} are",
                TESTED_MINORS.start(),
                TESTED_MINORS.end()
            ));
        }
        if !run::hears_effects() {
            let text = "effects of scripts are neither recorded nor denied: an audit hook of this program objects";
            warnings.push(text.to_owned());
        }
        if run::is_package_foreign(py)? {
            let text =
                "scripts have no automation.ctx: another package automation was imported before";
            warnings.push(text.to_owned());
        }
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        Ok(Interpreter {
            version,
            build: sys.getattr("version")?.extract()?,
            executable: PathBuf::from(sys.getattr("executable")?.extract::<String>()?),
            prefix: sys.getattr("prefix")?.extract()?,
            library: ffi::library_path(),
            hosted,
            uninterruptible: waits.err(),
            warning,
        })
    };
    facts().map_err(|error| start_error(error.to_string()))
}

fn start_error(detail: impl Into<String>) -> ExecutorError {
    ExecutorError::Start {
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::check_library;

    #[test]
    fn a_library_of_another_version_is_named() {
        let python = Path::new("/opt/python3");
        assert!(check_library("3.11.7", python, "3.11.7 (main, ...) [GCC]").is_ok());
        let error = check_library("3.11.7", python, "3.11.2 (main, ...) [GCC]").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("/opt/python3 is Python 3.11.7"), "{error}");
        assert!(error.contains("is Python 3.11.2: use"), "{error}");
    }
}
