//! The handle: one method a verb, each asks the engine and waits with the GIL released.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use automation_core::limits::{PAGE_ROWS, SHUTDOWN_GRACE};
use automation_core::{
    ExecuteRequest, ExecutionsQuery, LogsQuery, ManualRequest, PruneRequest, StatsQuery,
    TestRequest,
};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use serde_json::Value;

use super::arguments::{self, OrRaise};
use super::door::{Door, Settings};
use super::execution::Execution;
use super::page::Page;
use super::quarantine::Quarantined;
use super::script::{InvalidScript, Route, Script, Validation};
use super::stats::Stats;
use super::url::StorageUrl;
use crate::convert;

// Signatures show literals, and these are the library's.
const _: () = assert!(PAGE_ROWS == 50 && SHUTDOWN_GRACE.as_secs() == 30);

/// Runs scripts for tickets, and by name. One handle serves every thread.
#[pyclass(frozen, module = "automation")]
pub(crate) struct Automation {
    door: Arc<Door>,
    shown: String,
}

/// Returns the interpreter that isolates scripts, which is the one that runs us, and where it looks for modules;
/// `None` where Python is embedded in another program, which must not be started in its place.
fn isolation(py: Python<'_>) -> PyResult<Option<(PathBuf, Vec<PathBuf>)>> {
    let sys = py.import("sys")?;
    let python: Option<PathBuf> = sys.getattr("executable")?.extract()?;
    let path: Vec<PathBuf> = sys.getattr("path")?.extract()?;
    let named = |python: &PathBuf| {
        let name = python.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("python")
    };
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let Some(python) = python.filter(named) else {
        tracing::warn!("scripts can't be isolated: sys.executable is no Python interpreter");
        return Ok(None);
    };
    let here = std::env::current_dir()?;
    // An empty entry stands for the working directory.
    let path = path.into_iter().map(|folder| here.join(folder)).collect();
    Ok(Some((python, path)))
}

#[pymethods]
impl Automation {
    #[new]
    #[pyo3(signature = (scripts, storage = "memory:", *, secrets = None, workers = None, executions_max = None, queue_max = None, isolated = true, isolate_all = false, spool = None, retention_days = None, retention_failed_days = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn new(
        py: Python<'_>,
        scripts: PathBuf,
        storage: &str,
        secrets: Option<HashMap<String, String>>,
        workers: Option<i64>,
        executions_max: Option<i64>,
        queue_max: Option<i64>,
        isolated: bool,
        isolate_all: bool,
        spool: Option<PathBuf>,
        retention_days: Option<i64>,
        retention_failed_days: Option<i64>,
    ) -> PyResult<Self> {
        let storage = StorageUrl::parse(storage).or_raise(py)?;
        let shown = format!(
            "Automation(scripts='{}', storage='{storage}')",
            scripts.display()
        );
        let settings = Settings {
            secrets: arguments::secrets(secrets).or_raise(py)?,
            workers: arguments::count("workers", workers, 1).or_raise(py)?,
            executions_max: arguments::count("executions_max", executions_max, 1).or_raise(py)?,
            queue_max: arguments::count("queue_max", queue_max, 0).or_raise(py)?,
            isolation: isolated.then(|| isolation(py)).transpose()?.flatten(),
            isolate_all,
            retention: arguments::retention(retention_days, retention_failed_days).or_raise(py)?,
            spool,
            scripts,
            storage,
        };
        let door = Door::open(py, settings)?;
        Ok(Self { door, shown })
    }

    /// Runs the script that the ticket's classification selects, and waits for its end.
    #[pyo3(signature = (ticket, classification, *, actor = None, idempotency_key = None))]
    fn execute(
        &self,
        py: Python<'_>,
        ticket: &Bound<'_, PyDict>,
        classification: &Bound<'_, PyDict>,
        actor: Option<String>,
        idempotency_key: Option<String>,
    ) -> PyResult<Execution> {
        let mut request = ExecuteRequest::new(
            arguments::ticket(ticket).or_raise(py)?,
            arguments::classification(classification).or_raise(py)?,
        );
        request.actor = actor;
        request.idempotency_key = idempotency_key;
        let execution = self.door.ask(
            py,
            |automation| async move { automation.execute(request).await },
        );
        Ok(execution?.into())
    }

    /// Runs a script by its name, and waits for its end.
    #[pyo3(signature = (script_name, parameters = None, *, ticket_id = None, actor = None, dry_run = false, idempotency_key = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn manual(
        &self,
        py: Python<'_>,
        script_name: &str,
        parameters: Option<&Bound<'_, PyDict>>,
        ticket_id: Option<String>,
        actor: Option<String>,
        dry_run: bool,
        idempotency_key: Option<String>,
    ) -> PyResult<Execution> {
        let parameters = arguments::parameters(script_name, parameters).or_raise(py)?;
        let mut request = ManualRequest::new(script_name)
            .with_parameters(parameters)
            .with_dry_run(dry_run);
        request.ticket_id = ticket_id;
        request.actor = actor;
        request.idempotency_key = idempotency_key;
        let execution = self.door.ask(
            py,
            |automation| async move { automation.manual(request).await },
        );
        Ok(execution?.into())
    }

    /// Makes a dry run through the whole path, and waits for its end.
    #[pyo3(signature = (script_name = None, *, actor = None))]
    fn test(
        &self,
        py: Python<'_>,
        script_name: Option<String>,
        actor: Option<String>,
    ) -> PyResult<Execution> {
        let request = TestRequest { script_name, actor };
        let execution = self.door.ask(
            py,
            |automation| async move { automation.test(request).await },
        );
        Ok(execution?.into())
    }

    /// Returns which script would run for a ticket, and why, without running it.
    fn route(
        &self,
        py: Python<'_>,
        ticket: &Bound<'_, PyDict>,
        classification: &Bound<'_, PyDict>,
    ) -> PyResult<Route> {
        let ticket = arguments::ticket(ticket).or_raise(py)?;
        let classification = arguments::classification(classification).or_raise(py)?;
        let route = self.door.automation().route(&ticket, &classification);
        Ok(route.or_raise(py)?.into())
    }

    /// Returns an execution.
    fn get(&self, py: Python<'_>, id: &str) -> PyResult<Execution> {
        let id = arguments::execution_id(id).or_raise(py)?;
        let execution = self.door.ask(
            py,
            move |automation| async move { automation.get(id).await },
        );
        Ok(execution?.into())
    }

    /// Asks an execution to end, waits for its terminal status, and returns it.
    #[pyo3(signature = (id, actor = None))]
    fn cancel(&self, py: Python<'_>, id: &str, actor: Option<String>) -> PyResult<Execution> {
        let id = arguments::execution_id(id).or_raise(py)?;
        let execution = self.door.ask(py, move |automation| async move {
            automation.cancel(id, actor.as_deref()).await
        });
        Ok(execution?.into())
    }

    /// Runs once more what an execution ran that did not complete, and waits for the end.
    #[pyo3(signature = (id, *, actor = None))]
    fn retry(&self, py: Python<'_>, id: &str, actor: Option<String>) -> PyResult<Execution> {
        let id = arguments::execution_id(id).or_raise(py)?;
        let execution = self.door.ask(py, move |automation| async move {
            automation.retry(id, actor.as_deref()).await
        });
        Ok(execution?.into())
    }

    /// Returns a page of a ticket's executions, newest first.
    #[pyo3(signature = (ticket_id, *, script_name = None, statuses = None, limit = 50, cursor = None))]
    fn logs(
        &self,
        py: Python<'_>,
        ticket_id: &str,
        script_name: Option<String>,
        statuses: Option<Vec<String>>,
        limit: i64,
        cursor: Option<String>,
    ) -> PyResult<Page> {
        let page = arguments::page(limit, cursor).or_raise(py)?;
        let mut query = LogsQuery::new(ticket_id);
        query.script_name = script_name;
        query.statuses = arguments::statuses(statuses).or_raise(py)?;
        let listing = self.door.ask(py, |automation| async move {
            automation.logs(query, page).await
        });
        Page::new(py, listing?)
    }

    /// Returns a page of the executions that fit, of any ticket, newest first.
    #[pyo3(signature = (*, ticket_id = None, script_name = None, statuses = None, actor = None, since = None, until = None, with_output = false, limit = 50, cursor = None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn executions(
        &self,
        py: Python<'_>,
        ticket_id: Option<String>,
        script_name: Option<String>,
        statuses: Option<Vec<String>>,
        actor: Option<String>,
        since: Option<&Bound<'_, PyAny>>,
        until: Option<&Bound<'_, PyAny>>,
        with_output: bool,
        limit: i64,
        cursor: Option<String>,
    ) -> PyResult<Page> {
        let page = arguments::page(limit, cursor).or_raise(py)?;
        let query = ExecutionsQuery {
            ticket_id,
            script_name,
            statuses: arguments::statuses(statuses).or_raise(py)?,
            actor,
            since: arguments::instant("since", since)?,
            until: arguments::instant("until", until)?,
            with_output,
        };
        let listing = self.door.ask(py, |automation| async move {
            automation.executions(query, page).await
        });
        Page::new(py, listing?)
    }

    /// Deletes executions that ended before a day (UTC), with their events; returns how many.
    #[pyo3(signature = (before, *, statuses = None))]
    fn prune(
        &self,
        py: Python<'_>,
        before: &Bound<'_, PyAny>,
        statuses: Option<Vec<String>>,
    ) -> PyResult<u64> {
        let statuses = arguments::statuses(statuses).or_raise(py)?;
        let request =
            PruneRequest::before(arguments::day("before", before)?).with_statuses(statuses);
        self.door.ask(
            py,
            |automation| async move { automation.prune(request).await },
        )
    }

    /// Copies everything that is recorded into a new file; returns its size in bytes.
    fn back_up(&self, py: Python<'_>, path: PathBuf) -> PyResult<u64> {
        self.door.ask(
            py,
            |automation| async move { automation.back_up(path).await },
        )
    }

    /// Returns the statistics.
    #[pyo3(signature = (*, since = None, script_name = None))]
    fn stats(
        &self,
        py: Python<'_>,
        since: Option<&Bound<'_, PyAny>>,
        script_name: Option<String>,
    ) -> PyResult<Py<Stats>> {
        let query = StatsQuery {
            since: since
                .map(|since| arguments::day("since", since))
                .transpose()?,
            script_name,
            ..StatsQuery::default()
        };
        let stats = self.door.ask(
            py,
            |automation| async move { automation.stats(query).await },
        );
        Stats::new(py, stats?)
    }

    /// Returns the scripts that can run, by name.
    fn scripts(&self) -> Vec<Script> {
        let automation = self.door.automation();
        let index = automation.scripts();
        let scripts = index.scripts().cloned();
        scripts
            .map(|script| Script::new(automation, script))
            .collect()
    }

    /// Returns the scripts that can't run, by name, and why.
    fn invalid_scripts(&self) -> Vec<InvalidScript> {
        let index = self.door.automation().scripts();
        index.invalid().iter().map(InvalidScript::from).collect()
    }

    /// Returns a script that can run.
    fn script(&self, py: Python<'_>, name: &str) -> PyResult<Script> {
        let automation = self.door.automation();
        let script = automation.script(name).or_raise(py)?;
        Ok(Script::new(automation, script))
    }

    /// Returns the script versions that are kept out of the process, by script.
    fn quarantined(&self, py: Python<'_>) -> PyResult<Vec<Quarantined>> {
        let quarantined = self.door.ask(
            py,
            |automation| async move { automation.quarantined().await },
        );
        Ok(quarantined?.into_iter().map(Quarantined::from).collect())
    }

    /// Releases a script, by its name or one version, from quarantine; returns what is released.
    #[pyo3(signature = (script, *, actor = None))]
    fn release(
        &self,
        py: Python<'_>,
        script: String,
        actor: Option<String>,
    ) -> PyResult<Vec<Quarantined>> {
        let released = self.door.ask(py, |automation| async move {
            automation.release(&script, actor.as_deref()).await
        });
        Ok(released?.into_iter().map(Quarantined::from).collect())
    }

    /// Says what is wrong or doubtful about a source, without executing, registering or keeping it.
    #[pyo3(signature = (source, *, name = "script.py"))]
    fn validate(&self, py: Python<'_>, source: &str, name: &str) -> PyResult<Validation> {
        let (name, source) = (name.to_owned(), source.to_owned());
        let validation = self.door.ask(py, |automation| async move {
            automation.validate(name, source).await
        });
        Ok(Validation::new(self.door.automation(), validation?))
    }

    /// Reads the scripts folder again. Runs that were accepted keep their version.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        self.door
            .ask(py, |automation| async move { automation.reload().await })?;
        Ok(())
    }

    /// Returns how everything is.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let health = self.door.ask(
            py,
            |automation| async move { Ok(automation.health().await) },
        )?;
        let ready = health.is_ready();
        let fields = serde_json::to_value(health).expect("health is plain data");
        let Value::Object(mut fields) = fields else {
            unreachable!("health is an object")
        };
        fields.insert("ready".to_owned(), ready.into());
        convert::object_to_python(py, &fields)
    }

    /// Refuses further runs, waits up to `grace` seconds for the present ones, cancels the rest, and closes.
    #[pyo3(signature = (grace = 30.0))]
    fn shutdown(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        let grace = arguments::grace(grace).or_raise(py)?;
        self.door.shut_down(py, grace)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Shuts down. Who leaves by Ctrl-C or `sys.exit` does not wait: what still runs is cancelled.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<&Bound<'_, PyType>>,
        _error: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let in_a_hurry = match kind {
            Some(kind) => !kind.is_subclass_of::<PyException>()?,
            None => false,
        };
        let grace = if in_a_hurry {
            Duration::ZERO
        } else {
            SHUTDOWN_GRACE
        };
        self.door.shut_down(py, grace)
    }

    fn __repr__(&self) -> &str {
        &self.shown
    }
}
