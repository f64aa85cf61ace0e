//! What keeps a version out, a run or an earlier process's death, and what lets it in again, a release.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Finding, Quarantined};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::execution::{Concern, Execution};
use crate::request::{Page, check_only_actor};
use crate::script::Script;
use crate::storage::{ExecutionQuery, StorageError};

impl Engine {
    /// Waits until it is known what is kept out: before that, nothing may run.
    pub(in crate::engine) async fn quarantine_loaded(&self) -> Result<(), StorageError> {
        let notices = &self.quarantine.notices;
        notices.load(|| self.refresh_quarantine()).await
    }

    pub(in crate::engine) async fn keep_up_quarantine(&self) -> Result<(), StorageError> {
        let notices = &self.quarantine.notices;
        notices.keep_up(|| self.refresh_quarantine()).await
    }

    /// Finds out what an earlier process died of, and brings entries and records together.
    async fn refresh_quarantine(&self) -> Result<(), StorageError> {
        self.find_crashed().await?;
        let storage = &*self.parts.storage;
        self.quarantine.notices.refresh(storage).await
    }

    /// Keeps the version of a run out of this process from now on, if there is a concern; the future records that.
    pub(in crate::engine) fn put_in_quarantine(
        self: &Arc<Self>,
        execution: &Execution,
        concern: Option<Concern>,
    ) -> impl Future<Output = ()> + use<> {
        let is_new = concern.is_some_and(|concern| self.keep_out(execution, concern));
        let engine = is_new.then(|| Arc::clone(self));
        async move {
            if let Some(engine) = engine
                && let Err(error) = engine.record_quarantine().await
            {
                tracing::warn!(%error, "a quarantine is not recorded yet; it is tried again with the leases");
            }
        }
    }

    /// Returns whether the version was not known to be kept out.
    fn keep_out(&self, execution: &Execution, concern: Concern) -> bool {
        let finding = finding(execution, concern, self.now());
        let is_new = self
            .quarantine
            .notices
            .add(&execution.script_version, &finding);
        if is_new {
            let (script, version) = (&execution.script_name, &execution.script_version);
            tracing::warn!(script, version, %concern, execution = %execution.id, "a script version comes into quarantine");
        }
        is_new
    }

    /// Records what is not recorded yet.
    pub(in crate::engine) async fn record_quarantine(&self) -> Result<(), StorageError> {
        self.quarantine.notices.record(&*self.parts.storage).await
    }

    /// Looks the versions up that ran while an earlier process died.
    async fn find_crashed(&self) -> Result<(), StorageError> {
        let unresolved = self.quarantine.unresolved.lock().clone();
        for id in unresolved {
            let query = ExecutionQuery {
                id: Some(id),
                without_output: true,
                ..ExecutionQuery::default()
            };
            let found = self.parts.storage.list(&query, &Page::first(1)).await?;
            match found.items.first() {
                Some(row) => drop(self.keep_out(row, Concern::Crashed)),
                None => {
                    tracing::warn!(execution = %id, "the run during which a process died is not recorded");
                }
            }
            self.quarantine
                .unresolved
                .lock()
                .retain(|known| *known != id);
        }
        Ok(())
    }

    /// Lets the executors forget the crashes that are recorded by now.
    pub(in crate::engine) fn forget_crashes(&self) {
        if let Some(runs) = self.quarantine.settled_crashes() {
            for executor in self.parts.executors() {
                executor.forget_crashes(runs);
            }
        }
    }

    /// Returns what is known to be kept out, by script and version.
    pub(in crate::engine) fn known_quarantined(&self) -> Vec<Quarantined> {
        self.all_shown(&self.quarantine.notices.all())
    }

    fn all_shown(&self, findings: &[(Arc<str>, Finding)]) -> Vec<Quarantined> {
        let findings = findings.iter();
        let shown = findings.map(|(version, finding)| self.shown(version, finding));
        let mut all: Vec<_> = shown.collect();
        all.sort_by(|a, b| (&a.script_name, a.at).cmp(&(&b.script_name, b.at)));
        all
    }

    fn shown(&self, version: &str, finding: &Finding) -> Quarantined {
        let Finding {
            script_name,
            concern,
            execution_id,
            at,
        } = finding.clone();
        Quarantined {
            script_name,
            script_version: version.to_owned(),
            concern,
            execution_id,
            at,
            consequence: self.consequence(concern),
        }
    }

    pub(crate) async fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.quarantine_loaded().await?;
        Ok(self.known_quarantined())
    }

    pub(crate) async fn release(
        &self,
        script: &str,
        actor: Option<&str>,
    ) -> Result<Vec<Quarantined>> {
        check_only_actor(actor)?;
        self.quarantine_loaded().await?;
        let notices = &self.quarantine.notices;
        let _turn = notices.turn().await;
        let mut released = self.quarantine.notices.all();
        released.retain(|(version, finding)| finding.script_name == script || **version == *script);
        if released.is_empty() {
            return Err(self.not_quarantined(script));
        }
        for (version, finding) in &released {
            notices
                .delete(&*self.parts.storage, version, finding)
                .await?;
        }
        tracing::warn!(
            script,
            actor,
            versions = released.len(),
            "script versions are released from quarantine"
        );
        Ok(self.all_shown(&released))
    }

    fn not_quarantined(&self, script: &str) -> Error {
        let index = self.scripts();
        let is_known = |known: &Arc<Script>| known.name() == script || &**known.version() == script;
        if index.scripts().any(is_known) || index.invalid().iter().any(|known| known.name == script)
        {
            let detail = format!("script {script:?} is not in quarantine");
            return Error::Conflict { detail };
        }
        Error::ScriptNotFound {
            name: script.to_owned(),
        }
    }
}

fn finding(execution: &Execution, concern: Concern, at: DateTime<Utc>) -> Finding {
    Finding {
        script_name: execution.script_name.clone(),
        concern,
        execution_id: execution.id,
        at,
    }
}
