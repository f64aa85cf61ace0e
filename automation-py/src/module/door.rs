//! The engine behind a handle: how it is opened, asked and shut down. Knows nothing of arguments and answers.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use automation_core::limits::SHUTDOWN_GRACE;
use automation_core::secret::Secrets;
use automation_core::{
    Automation, BuildError, Error, Executor, Result, Retention, ScriptRegistry, Storage,
};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use tokio::runtime::Handle;

use super::fork::Opened;
use super::url::StorageUrl;
use super::{errors, runtime};
use crate::{ProcessExecutor, PythonExecutor};

/// What an engine is made of.
pub(super) struct Settings {
    pub(super) scripts: PathBuf,
    pub(super) storage: StorageUrl,
    /// Where the ends of runs are kept that the storage does not take, if not beside it.
    pub(super) spool: Option<PathBuf>,
    pub(super) secrets: Secrets,
    pub(super) workers: Option<usize>,
    /// The interpreter that isolates scripts, and where it looks for modules.
    pub(super) isolation: Option<(PathBuf, Vec<PathBuf>)>,
    /// Whether it isolates all of them.
    pub(super) isolate_all: bool,
    /// For how long ended runs are kept, if not for ever.
    pub(super) retention: Option<Retention>,
    pub(super) executions_max: Option<usize>,
    pub(super) queue_max: Option<usize>,
}

impl Settings {
    async fn build(self) -> Result<Automation> {
        let (storage, beside) = self.storage.clone().open().await?;
        let spool = self.spool.clone().or(beside);
        // Compiling each script needs the GIL, which may be far away.
        let built = tokio::task::spawn_blocking(move || self.build_on(storage, spool)).await;
        built.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn build_on(self, storage: Arc<dyn Storage>, spool: Option<PathBuf>) -> Result<Automation> {
        if self.isolate_all && self.isolation.is_none() {
            let detail = "isolate_all = True needs an isolated executor, and there is none here";
            return Err(Error::invalid_request("", detail));
        }
        let scripts = ScriptRegistry::load(&self.scripts).map_err(|error| refused(error.into()))?;
        let mut executor = PythonExecutor::builder();
        if let Some(workers) = self.workers {
            executor = executor.workers(workers);
        }
        let executor: Arc<dyn Executor> = Arc::new(executor.build()?);
        let mut builder = Automation::builder()
            .scripts(scripts)
            .shared_executor(Arc::clone(&executor))
            .shared_storage(storage)
            .secrets(self.secrets)
            .isolate_all(self.isolate_all)
            .runtime(Handle::current());
        if let Some(file) = spool {
            builder = builder.spool(file);
        }
        if let Some((python, path)) = self.isolation {
            let isolated = ProcessExecutor::builder().python(python).import_path(path);
            builder = builder.isolated_executor(isolated.inspector(executor).build()?);
        }
        if let Some(executions_max) = self.executions_max {
            builder = builder.executions_max(executions_max);
        }
        if let Some(queue_max) = self.queue_max {
            builder = builder.queue_max(queue_max);
        }
        if let Some(retention) = self.retention {
            builder = builder.retention(retention);
        }
        builder.build().map_err(refused)
    }
}

/// What was given is to blame, unless the executor is.
fn refused(error: BuildError) -> Error {
    match error {
        BuildError::Executor(error) => error.into(),
        other => Error::invalid_request("", other.to_string()),
    }
}

/// An open engine.
pub(super) struct Door {
    automation: Automation,
    opened: Arc<Opened>,
}

impl Door {
    /// Opens an engine. It is shut down at the end of the interpreter, unless it was before.
    pub(super) fn open(py: Python<'_>, settings: Settings) -> PyResult<Arc<Self>> {
        let opened = Opened::new().map_err(|error| errors::exception(py, &error))?;
        let opening = async {
            let automation = settings.build().await?;
            // Made here, so that the engine ends when nobody waits for it any more.
            Ok(Self {
                automation,
                opened: Arc::new(opened),
            })
        };
        let door = runtime::block(py, opening)?.map_err(|error| errors::exception(py, &error))?;
        let door = Arc::new(door);
        shut_down_at_exit(py, Arc::downgrade(&door))?;
        Ok(door)
    }

    /// Returns the engine, for what it answers without its threads.
    pub(super) const fn automation(&self) -> &Automation {
        &self.automation
    }

    /// Asks the engine, and waits for its answer with the GIL released.
    pub(super) fn ask<T, F>(
        &self,
        py: Python<'_>,
        verb: impl FnOnce(Automation) -> F,
    ) -> PyResult<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let asked = match self.opened.check() {
            Ok(()) => runtime::block(py, verb(self.automation.clone()))?,
            Err(error) => Err(error),
        };
        asked.map_err(|error| errors::exception(py, &error))
    }

    /// Shuts the engine down, and waits for that.
    pub(super) fn shut_down(&self, py: Python<'_>, grace: Duration) -> PyResult<()> {
        let opened = Arc::clone(&self.opened);
        self.ask(py, move |automation| shut_down(automation, grace, opened))
    }
}

async fn shut_down(automation: Automation, grace: Duration, opened: Arc<Opened>) -> Result<()> {
    let ended = automation.shutdown(grace).await;
    opened.close();
    ended
}

impl Drop for Door {
    /// Never waits: this is the thread that happened to drop the last reference, and it holds the GIL.
    fn drop(&mut self) {
        let automation = self.automation.clone();
        if !self.opened.is_here() {
            // A forked child has none of the threads that dropping the engine would wait for.
            std::mem::forget(automation);
        } else if let Ok(runtime) = runtime::runtime() {
            let opened = Arc::clone(&self.opened);
            runtime.spawn(shut_down(automation, SHUTDOWN_GRACE, opened));
        }
    }
}

/// Threads that still run scripts when the interpreter ends would bring the process down with it.
fn shut_down_at_exit(py: Python<'_>, door: Weak<Door>) -> PyResult<()> {
    let shut_down = PyCFunction::new_closure(py, None, None, move |arguments, _| {
        let door = door.upgrade().filter(|door| door.opened.is_here());
        door.map_or(Ok(()), |door| {
            door.shut_down(arguments.py(), Duration::ZERO)
        })
    })?;
    py.import("atexit")?
        .call_method1("register", (shut_down,))?;
    Ok(())
}
