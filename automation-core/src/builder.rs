//! The builder of the handle: every configuration error surfaces in `build`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::automation::Automation;
use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, Parts, Retention, Settings};
use crate::error::BuildError;
use crate::execution::TenantId;
use crate::executor::{Executor, LimitPolicy};
use crate::limits;
use crate::parser::{JsonInNoise, OutputParser};
use crate::script::ScriptRegistry;
use crate::secret::{SecretSource, Secrets};
use crate::storage::{MemoryStorage, Storage};

/// Builds an [`Automation`].
#[derive(Debug)]
#[must_use]
pub struct AutomationBuilder {
    scripts: Option<ScriptRegistry>,
    executor: Option<Arc<dyn Executor>>,
    isolated_executor: Option<Arc<dyn Executor>>,
    storage: Arc<dyn Storage>,
    parser: Arc<dyn OutputParser>,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    runtime: Option<Handle>,
    settings: Settings,
}

impl AutomationBuilder {
    pub(crate) fn new() -> Self {
        Self {
            scripts: None,
            executor: None,
            isolated_executor: None,
            storage: Arc::new(MemoryStorage::default()),
            parser: Arc::new(JsonInNoise),
            secrets: Arc::new(Secrets::new()),
            clock: Arc::new(SystemClock),
            runtime: None,
            settings: Settings::default(),
        }
    }

    /// Sets the scripts. Required.
    pub fn scripts(mut self, scripts: ScriptRegistry) -> Self {
        self.scripts = Some(scripts);
        self
    }

    /// Sets what runs the scripts. Required.
    pub fn executor(self, executor: impl Executor) -> Self {
        self.shared_executor(Arc::new(executor))
    }

    /// Sets what runs the scripts, for an executor that is held elsewhere too.
    pub fn shared_executor(mut self, executor: Arc<dyn Executor>) -> Self {
        self.executor = Some(executor);
        self
    }

    /// Sets what runs the scripts whose metadata says `isolation = "process"`, and the versions in quarantine. Default:
    /// none; then the former are refused, and so are versions in quarantine during whose run a process died.
    pub fn isolated_executor(mut self, executor: impl Executor) -> Self {
        self.isolated_executor = Some(Arc::new(executor));
        self
    }

    /// Sets whether every script is isolated, whatever its metadata says. Default: no. Needs
    /// [`isolated_executor`](Self::isolated_executor).
    pub const fn isolate_all(mut self, isolate_all: bool) -> Self {
        self.settings.isolate_all = isolate_all;
        self
    }

    /// Sets where executions are recorded. Default: [`MemoryStorage`].
    pub fn storage(self, storage: impl Storage) -> Self {
        self.shared_storage(Arc::new(storage))
    }

    /// Sets where executions are recorded, for a storage that is held elsewhere too.
    pub fn shared_storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Sets what finds the result in the output. Default: [`JsonInNoise`].
    pub fn parser(mut self, parser: impl OutputParser) -> Self {
        self.parser = Arc::new(parser);
        self
    }

    /// Sets where scripts get their secrets. Default: nowhere.
    pub fn secrets(mut self, secrets: impl SecretSource) -> Self {
        self.secrets = Arc::new(secrets);
        self
    }

    /// Sets the clock. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the runtime on which the engine's tasks live. Default: the one in which `build` is called.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets how many runs may be dispatched at once. Default: [`limits::EXECUTIONS_MAX`].
    pub const fn executions_max(mut self, executions_max: usize) -> Self {
        self.settings.executions_max = executions_max;
        self
    }

    /// Sets how many accepted runs may wait. Default: [`limits::QUEUE_MAX`].
    pub const fn queue_max(mut self, queue_max: usize) -> Self {
        self.settings.queue_max = queue_max;
        self
    }

    /// Sets for how long this instance's runs are its own without a renewal. Default: [`limits::LEASE`].
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Sets the file that keeps the ends of runs which the storage does not take, until it does: in this process, or at
    /// the next start, before runs that were left open are taken for orphans. Default: none; then such an end is lost
    /// with the process. Made by [`build`](Self::build) where it is not there, readable by its owner only, with 32 KiB
    /// for each of [`executions_max`](Self::executions_max) runs; one process uses it at a time. Output that is too long
    /// for that is cut in the middle, and says so. Best beside the database, or on another disk.
    pub fn spool(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.spool = Some(file.into());
        self
    }

    /// Sets what runs may use where their scripts' metadata states nothing, and at most. Default: the library's defaults,
    /// and no ceilings. [`Automation::limits`] shows what follows for a script.
    pub const fn limits(mut self, policy: LimitPolicy) -> Self {
        self.settings.limits = policy;
        self
    }

    /// Sets how long ended executions are kept, of every tenant. Default: for ever. What is older is deleted in small
    /// batches, now and every hour; the statistics keep what they counted of it.
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.settings.retention = Some(retention);
        self
    }

    /// Builds the handle: checks the settings, lets the executor inspect every script (which blocks), and starts
    /// to recover what an earlier process left open.
    ///
    /// # Errors
    /// [`BuildError`]: a part is missing, a setting can't work, there is no runtime, the executor broke.
    pub fn build(self) -> Result<Automation, BuildError> {
        self.settings.check()?;
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Handle::try_current().map_err(|_| BuildError::NoRuntime)?,
        };
        if self.settings.isolate_all && self.isolated_executor.is_none() {
            let part = "isolated_executor";
            return Err(BuildError::Missing { part });
        }
        let parts = Parts {
            scripts: self
                .scripts
                .ok_or(BuildError::Missing { part: "scripts" })?,
            executor: self
                .executor
                .ok_or(BuildError::Missing { part: "executor" })?,
            isolated_executor: self.isolated_executor,
            storage: self.storage,
            parser: self.parser,
            secrets: self.secrets,
            clock: self.clock,
            runtime,
        };
        Ok(Automation::new(
            Engine::start(parts, self.settings)?,
            TenantId::default(),
        ))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            executions_max: limits::EXECUTIONS_MAX,
            queue_max: limits::QUEUE_MAX,
            lease: limits::LEASE,
            spool: None,
            isolate_all: false,
            limits: LimitPolicy::default(),
            retention: None,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), BuildError> {
        let setting = |setting, value: String, expected| {
            Err(BuildError::Setting {
                setting,
                value,
                expected,
            })
        };
        if !(1..=limits::EXECUTIONS_MAX_MAX).contains(&self.executions_max) {
            let expected = "1 to 100000 are allowed";
            return setting("executions_max", self.executions_max.to_string(), expected);
        }
        if !(Duration::from_secs(1)..=limits::LEASE_MAX).contains(&self.lease) {
            return setting(
                "lease",
                format!("{:?}", self.lease),
                "1 second to 24 hours are allowed",
            );
        }
        self.limits.check()
    }
}
