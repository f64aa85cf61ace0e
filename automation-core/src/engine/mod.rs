//! The life of one run: the only place that orders storage, executor and parser calls.
//!
//! `plan` turns a request into what is to run, `gate` bounds how much runs, `life` takes one run from its row to
//! its terminal status, `record` commits it whatever the storage does, `verdict` says how it ended, `patience` is how long a caller waits for that, `metering` what the engine tells of itself, `host` is what the script talks to meanwhile, `watch` lets others follow,
//! `keys` answers who asks again, `attempts` repeats what failed, `waiting` lets runs wait, for others to decide or for
//! their time, and takes up what is due, `venue` says where a script runs, `intake` refuses runs while the storage does
//! not work, `spool` keeps the ends that it can't take, `late` tells of those whose run was given up, `recovery` ends
//! what an earlier process left open, `quarantine` knows which versions are kept out of this process, `lists` answers
//! what is recorded, `prune` deletes what is old.
//! `decision` asks the policy about a run, `stops` are people's emergency switches, `quotas` counts runs, `decided` is
//! where decisions by people are reported, `notices` is what every instance has to know before it lets a run start.

mod attempts;
mod decided;
mod decision;
mod gate;
mod host;
mod intake;
mod keys;
mod late;
mod life;
mod lists;
mod metering;
mod notices;
mod patience;
mod plan;
mod prune;
mod quarantine;
mod quotas;
mod record;
mod recovery;
mod spool;
mod stops;
mod venue;
mod verdict;
mod waiting;
mod watch;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use chrono::{DateTime, SubsecRound, Utc};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch as watch_channel};
use tokio_util::task::TaskTracker;
use uuid::{ContextV7, Timestamp, Uuid};

use self::gate::Gate;
use self::host::{LiveRun, Stop};
use self::intake::Intake;
use self::patience::Impatient;
use self::plan::Plan;
pub use self::prune::Retention;
use self::quarantine::Quarantine;
pub use self::quarantine::{Consequence, Quarantined};
use self::quotas::{Quotas, Share};
use self::spool::Spool;
use self::stops::Stops;
pub use self::stops::{StopTarget, Stopped};
use self::venue::wants_isolation;
use self::waiting::Waiting;
pub use self::watch::{Update, Watch};
use crate::automation::Health;
use crate::clock::Clock;
use crate::error::{BuildError, Error, Result};
use crate::execution::{Execution, ExecutionId, InstanceId, TenantId};
use crate::executor::{Executor, ExecutorError, LimitPolicy, RunLimits};
use crate::limits;
use crate::metrics::Meter;
use crate::parser::OutputParser;
use crate::policy::{Policy, PolicySource};
use crate::request::{ExecuteRequest, ManualRequest, StatsQuery, TestRequest, check_only_actor};
use crate::script::{Inspection, Script, ScriptIndex, ScriptRegistry, Validation};
use crate::secret::SecretSource;
use crate::stats::Stats;
use crate::storage::{Storage, StorageError};

/// How long runs that were told to end at a shutdown are waited for.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often a cancel looks again at a run that changes under it.
const CANCEL_TRIES: usize = 8;
const CANCEL_PAUSE: Duration = Duration::from_millis(10);

/// How long ends that the storage did not take until it was closed get to reach the spool.
const SPOOL_GRACE: Duration = Duration::from_secs(2);

/// What the engine is made of.
pub(crate) struct Parts {
    pub(crate) scripts: ScriptRegistry,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) isolated_executor: Option<Arc<dyn Executor>>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) parser: Arc<dyn OutputParser>,
    pub(crate) secrets: Arc<dyn SecretSource>,
    pub(crate) policy: PolicySource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Handle,
}

/// How the engine behaves.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) executions_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) lease: Duration,
    /// Where the ends of runs are kept that the storage does not take.
    pub(crate) spool: Option<PathBuf>,
    pub(crate) isolate_all: bool,
    pub(crate) limits: LimitPolicy,
    pub(crate) retention: Option<Retention>,
}

pub(crate) struct Engine {
    parts: Parts,
    settings: Settings,
    instance: InstanceId,
    ids: Mutex<ContextV7>,
    gate: Gate,
    live: Mutex<HashMap<ExecutionId, Arc<LiveRun>>>,
    stored_versions: Mutex<HashSet<(TenantId, Arc<str>)>>,
    quarantine: Quarantine,
    waiting: Waiting,
    meter: Meter,
    intake: Intake,
    spool: Option<Arc<Spool>>,
    stops: Stops,
    policy: ArcSwap<Policy>,
    quotas: Quotas,
    quotas_loaded: OnceCell<()>,
    validations: Arc<Semaphore>,
    accepting: AtomicBool,
    tasks: TaskTracker,
    /// The answer of the one shutdown, once it is asked for: what went wrong, if anything did.
    shutdown: Mutex<Option<watch_channel::Receiver<Option<Option<String>>>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("instance", &self.instance)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn start(parts: Parts, settings: Settings) -> Result<Arc<Self>, BuildError> {
        let policy = parts.policy.read()?;
        let index = inspect_scripts(&parts, &settings)?;
        warn_of_unknown(&policy, &index);
        let spool = settings.spool.as_deref();
        let spool = spool.map(|path| Spool::open(path, settings.executions_max));
        let engine = Arc::new(Self {
            gate: Gate::new(settings.executions_max, settings.queue_max),
            instance: InstanceId::new(Uuid::now_v7().to_string()),
            ids: Mutex::new(ContextV7::new()),
            live: Mutex::default(),
            stored_versions: Mutex::default(),
            quarantine: Quarantine::new(parts.executors()),
            waiting: Waiting::new(),
            meter: Meter::default(),
            intake: Intake::default(),
            spool: spool.transpose()?.map(Arc::new),
            stops: Stops::default(),
            policy: ArcSwap::new(policy),
            quotas: Quotas::default(),
            quotas_loaded: OnceCell::new(),
            validations: Arc::new(Semaphore::new(limits::VALIDATIONS_MAX)),
            accepting: AtomicBool::new(true),
            tasks: TaskTracker::new(),
            shutdown: Mutex::default(),
            parts,
            settings,
        });
        recovery::spawn(&engine);
        prune::spawn(&engine);
        waiting::spawn(&engine);
        Ok(engine)
    }

    fn now(&self) -> DateTime<Utc> {
        exact_now(&*self.parts.clock)
    }

    fn next_id(&self, now: DateTime<Utc>) -> ExecutionId {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let timestamp =
            Timestamp::from_unix(&*self.ids.lock(), seconds, now.timestamp_subsec_nanos());
        ExecutionId::from_uuid(Uuid::new_v7(timestamp))
    }

    fn lease_until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + self.settings.lease
    }

    pub(crate) async fn execute(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: ExecuteRequest,
    ) -> Result<Execution> {
        let patience = request.patience;
        let plan = self.plan_ticket(request)?;
        self.accept(tenant, plan, patience).await
    }

    pub(crate) async fn manual(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: ManualRequest,
    ) -> Result<Execution> {
        let patience = request.patience;
        let plan = self.plan_manual(request)?;
        self.accept(tenant, plan, patience).await
    }

    pub(crate) async fn test(
        self: &Arc<Self>,
        tenant: &TenantId,
        request: TestRequest,
    ) -> Result<Execution> {
        let plan = self.plan_test(request)?;
        self.accept(tenant, plan, None).await
    }

    /// Accepts a run and answers with its end, or within the caller's patience.
    async fn accept(
        self: &Arc<Self>,
        tenant: &TenantId,
        plan: Plan,
        patience: Option<Duration>,
    ) -> Result<Execution> {
        let Some(patience) = patience else {
            return self.settle(tenant, plan, None).await;
        };
        let (caller, recorded) = Impatient::new();
        let end = self.settle(tenant, plan, Some(caller));
        // Boxed, as all that few runs need: every run would carry it along.
        Box::pin(self.within(patience, recorded, end)).await
    }

    /// Gives the run to a task of its own, so that a caller who goes away leaves the run alone.
    async fn settle(
        self: &Arc<Self>,
        tenant: &TenantId,
        plan: Plan,
        caller: Option<Impatient>,
    ) -> Result<Execution> {
        if !self.accepting.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.intake.check()?;
        self.notices_loaded().await?;
        let key = plan.key.clone();
        if let Some(recorded) = self
            .answer_again(tenant, key.as_ref(), caller.as_ref())
            .await?
        {
            return Ok(recorded);
        }
        // Again: what other instances have stopped is known now.
        self.check_stops(&plan.script, plan.decision.category.as_deref())?;
        let may_repeat = plan.script.metadata().retry.is_some();
        match self.admit(tenant, plan, caller.clone()).await {
            Ok(execution) if may_repeat || !execution.status.is_terminal() => {
                Box::pin(self.until_end(execution)).await
            }
            // Another request under the same key was faster.
            Err(error @ Error::Conflict { .. }) => self
                .answer_again(tenant, key.as_ref(), caller.as_ref())
                .await?
                .ok_or(error),
            admitted => admitted,
        }
    }

    /// Records a run and lets it run; returns it at its end, or as it waits or as another instance has it.
    async fn admit(
        self: &Arc<Self>,
        tenant: &TenantId,
        plan: Plan,
        caller: Option<Impatient>,
    ) -> Result<Execution> {
        if plan.script.metadata().retry.is_some() {
            waiting::check_keepable(&plan)?;
        }
        let venue = self.venue(&plan.script)?;
        if let Some(wait) = plan.wait {
            return Box::pin(self.accept_waiting(tenant, plan, venue, wait)).await;
        }
        let share = self.share(tenant, &plan).await?;
        let place = self.gate.enter(
            plan.actor.as_deref(),
            plan.script.name(),
            plan.decision.priority,
        )?;
        let mut life = life::Life::new(Arc::clone(self), tenant.clone(), plan, venue);
        life.share = share.map(Share::accepted);
        life.impatient = caller;
        self.in_task(life.run(place)).await
    }

    /// Lets a run go in a task of its own. Not an `async fn`, whose future would hold the whole run, twice.
    fn in_task<R>(&self, run: R) -> impl Future<Output = Result<Execution>> + use<R>
    where
        R: Future<Output = Result<Execution>> + Send + 'static,
    {
        let task = self.tasks.spawn_on(run, &self.parts.runtime);
        async {
            task.await.unwrap_or_else(|panic| {
                let detail = format!("the run's task ended early: {panic}");
                Err(ExecutorError::Internal { detail }.into())
            })
        }
    }

    pub(crate) async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution> {
        self.parts
            .storage
            .get(tenant, id)
            .await
            .map_err(|error| match error {
                StorageError::NotFound { .. } => Error::ExecutionNotFound { id },
                other => other.into(),
            })
    }

    pub(crate) async fn cancel(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        actor: Option<&str>,
    ) -> Result<Execution> {
        check_only_actor(actor)?;
        // One that waits may be taken up, or be changed by others, meanwhile.
        for _ in 0..CANCEL_TRIES {
            if self.stop_live(tenant, id, actor).await
                || !self.cancel_waiting(tenant, id, actor).await?
            {
                break;
            }
            tokio::time::sleep(CANCEL_PAUSE).await;
        }
        let execution = self.get(tenant, id).await?;
        if !execution.status.is_terminal() {
            return Err(Error::Conflict {
                detail: format!(
                    "execution {id} is held by another instance, or its end is not recorded yet"
                ),
            });
        }
        Ok(execution)
    }

    /// Stops a run of this instance and waits for its end; false when there is none.
    async fn stop_live(&self, tenant: &TenantId, id: ExecutionId, actor: Option<&str>) -> bool {
        let Some(run) = self.live_run(tenant, id) else {
            return false;
        };
        let live = run.subscribe();
        run.stop(Stop::Cancel {
            actor: actor.map(ToOwned::to_owned),
        });
        if let Some(live) = live {
            watch::until_over(live).await;
        }
        true
    }

    pub(crate) async fn watch(
        self: &Arc<Self>,
        tenant: &TenantId,
        id: ExecutionId,
    ) -> Result<Watch> {
        let live = self.live_run(tenant, id).and_then(|run| run.subscribe());
        self.get(tenant, id).await?;
        Ok(Watch::new(Arc::clone(self), tenant.clone(), id, live))
    }

    fn live_run(&self, tenant: &TenantId, id: ExecutionId) -> Option<Arc<LiveRun>> {
        self.live
            .lock()
            .get(&id)
            .filter(|run| run.tenant() == tenant)
            .cloned()
    }

    pub(crate) async fn stats(&self, query: StatsQuery) -> Result<Stats> {
        Ok(self.parts.storage.stats(&query).await?)
    }

    pub(crate) fn scripts(&self) -> Arc<ScriptIndex> {
        self.parts.scripts.index()
    }

    pub(crate) fn script(&self, name: &str) -> Result<Arc<Script>> {
        plan::script(&self.scripts(), name)
    }

    /// Returns what a run of a script may use now.
    pub(crate) fn limits(&self, script: &Script) -> RunLimits {
        self.settings.limits.limits(script.metadata())
    }

    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Arc<ScriptIndex>> {
        let engine = Arc::clone(self);
        let reloaded = self.parts.runtime.spawn_blocking(move || engine.read_all());
        match reloaded.await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(BuildError::Executor(error))) => Err(error.into()),
            Ok(Err(error)) => Err(Error::Unsupported {
                what: error.to_string(),
            }),
            Err(panic) => Err(ExecutorError::Internal {
                detail: panic.to_string(),
            }
            .into()),
        }
    }

    /// Reads the policy and the scripts again; both stay as they were when one can't be.
    fn read_all(&self) -> Result<Arc<ScriptIndex>, BuildError> {
        let policy = self.parts.policy.read()?;
        let index = inspect_scripts(&self.parts, &self.settings)?;
        warn_of_unknown(&policy, &index);
        self.policy.store(policy);
        Ok(index)
    }

    pub(crate) async fn validate(
        self: &Arc<Self>,
        name: String,
        source: Vec<u8>,
    ) -> Result<Validation> {
        let engine = Arc::clone(self);
        let turn = self.validation_turn().await?;
        let validate = move || {
            // Kept until the source is looked at, also when nobody waits for the answer any more.
            let _turn = turn;
            Validation::of(&name, &source, |script| {
                engine.parts.inspect_stranger(script, &engine.settings)
            })
        };
        let validated = self.parts.runtime.spawn_blocking(validate).await;
        match validated {
            Ok(validation) => Ok(validation?),
            Err(panic) => Err(ExecutorError::Internal {
                detail: panic.to_string(),
            }
            .into()),
        }
    }

    /// Waits for one of the few places: whoever looks at a source keeps the interpreter from scripts meanwhile.
    async fn validation_turn(&self) -> Result<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.validations).acquire_owned();
        match tokio::time::timeout(limits::VALIDATION_WAIT_MAX, turn).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => Err(Error::ValidationsBusy {
                running: limits::VALIDATIONS_MAX,
            }),
        }
    }

    pub(crate) async fn health(&self) -> Health {
        let executor = self.parts.executor.health().await;
        let isolated_executor = match &self.parts.isolated_executor {
            Some(isolated) => Some(isolated.health().await),
            None => None,
        };
        let (storage, storage_error) = match self.parts.storage.health().await {
            Ok(place) => (Some(place), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let storage_error = storage_error.or_else(|| self.intake.cause());
        let spooled = self.spool.as_ref().map_or(0, |spool| spool.len());
        let (running, queued) = self.gate.load();
        let accepting = self.accepting.load(Ordering::Acquire);
        Health {
            executor,
            isolated_executor,
            storage,
            storage_error,
            quarantined: self.known_quarantined(),
            stopped: self.known_stops(),
            running,
            queued,
            spooled,
            accepting,
        }
    }

    /// Shuts down once, in a task of its own; every caller gets the answer of the one time.
    pub(crate) async fn shutdown(self: &Arc<Self>, grace: Duration) -> Result<()> {
        let mut answer = {
            let mut shutdown = self.shutdown.lock();
            shutdown
                .get_or_insert_with(|| self.spawn_shutdown(grace))
                .clone()
        };
        let failure = match answer.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().flatten(),
            Err(_) => Some("the shutdown ended early".to_owned()),
        };
        failure.map_or(Ok(()), |detail| {
            Err(ExecutorError::Internal { detail }.into())
        })
    }

    fn spawn_shutdown(
        self: &Arc<Self>,
        grace: Duration,
    ) -> watch_channel::Receiver<Option<Option<String>>> {
        let (sender, receiver) = watch_channel::channel(None);
        let engine = Arc::clone(self);
        drop(self.parts.runtime.spawn(async move {
            let failure = engine.shut_down(grace).await;
            let _ = sender.send(Some(failure));
        }));
        receiver
    }

    /// Returns what went wrong; everything is released all the same.
    async fn shut_down(&self, grace: Duration) -> Option<String> {
        self.accepting.store(false, Ordering::Release);
        self.gate.close();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait())
            .await
            .is_err()
        {
            for run in self.live.lock().values() {
                run.stop(Stop::Shutdown);
            }
            // The executor answers within its own bound after a stop; a storage that is away may not.
            let _ = tokio::time::timeout(STOP_GRACE, self.tasks.wait()).await;
        }
        let mut failures = Vec::new();
        for recorded in self.record_notices().await {
            failures.extend(recorded.err().map(|error| error.to_string()));
        }
        for executor in self.parts.executors() {
            failures.extend(
                executor
                    .shutdown(Duration::ZERO)
                    .await
                    .err()
                    .map(|error| error.to_string()),
            );
        }
        failures.extend(
            self.parts
                .storage
                .close()
                .await
                .err()
                .map(|error| error.to_string()),
        );
        if let Some(spool) = &self.spool {
            // Whoever still had an end to record is told now that the storage is closed, and spools it.
            let _ = tokio::time::timeout(SPOOL_GRACE, self.tasks.wait()).await;
            spool.close();
        }
        (!failures.is_empty()).then(|| failures.join("; "))
    }
}

/// Tells of names in the policy that no script has: a rule about them does nothing.
fn warn_of_unknown(policy: &Policy, index: &ScriptIndex) {
    for name in policy.named_scripts() {
        let is_invalid = || index.invalid().iter().any(|script| script.name == name);
        if index.script(name).is_none() && !is_invalid() {
            tracing::warn!(script = name, "the policy names a script that is not there");
        }
    }
}

/// Returns the present time, as exact as every backend keeps it: to the microsecond.
fn exact_now(clock: &dyn Clock) -> DateTime<Utc> {
    clock.now().trunc_subsecs(6)
}

/// Reads the scripts again and lets their executors look at them; the former scripts stay when one can't.
fn inspect_scripts(parts: &Parts, settings: &Settings) -> Result<Arc<ScriptIndex>, BuildError> {
    parts
        .scripts
        .refresh(|script| Ok(parts.inspect(script, settings)?))
}

impl Parts {
    fn executors(&self) -> impl Iterator<Item = &Arc<dyn Executor>> {
        iter::once(&self.executor).chain(&self.isolated_executor)
    }

    /// Lets the executor that would run a script look at it.
    fn inspect(&self, script: &Script, settings: &Settings) -> Result<Inspection, ExecutorError> {
        let isolated = self.isolated_executor.as_ref();
        let isolated = isolated.filter(|_| wants_isolation(settings, script));
        isolated.unwrap_or(&self.executor).inspect(script)
    }

    /// Looks at a source that nobody vouches for: first where it harms nobody, if there is such a place.
    fn inspect_stranger(
        &self,
        script: &Script,
        settings: &Settings,
    ) -> Result<Inspection, ExecutorError> {
        let isolated = self.isolated_executor.as_ref();
        let objection = isolated.map(|isolated| isolated.probe(script));
        if let Some(objection) = objection.transpose()?.flatten() {
            let diagnostics = vec![objection];
            return Ok(Inspection {
                diagnostics,
                ..Inspection::default()
            });
        }
        self.inspect(script, settings)
    }
}
