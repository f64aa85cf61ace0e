//! The records of what is kept out: loaded before anything runs, written when a run is a cause, deleted by a release.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Finding, Quarantined};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::execution::{Concern, Execution, TenantId};
use crate::limits;
use crate::request::{Page, check_actor};
use crate::script::Script;
use crate::storage::{ExecutionQuery, Record, RecordKind, StorageError, Write, WriteError};

impl Engine {
    /// Waits until it is known what is kept out: before that, nothing may run.
    pub(in crate::engine) async fn quarantine_loaded(&self) -> Result<(), StorageError> {
        if self.quarantine.is_loaded() {
            return Ok(());
        }
        let load = || self.refresh_quarantine();
        // Boxed: it happens once, and every run would carry it along.
        Box::pin(self.quarantine.loaded.get_or_try_init(load))
            .await
            .map(drop)
    }

    /// Brings entries and records together: writes what is not recorded, reads what other instances recorded and
    /// released.
    pub(in crate::engine) async fn refresh_quarantine(&self) -> Result<(), StorageError> {
        let _turn = self.quarantine.turn.lock().await;
        self.find_crashed().await?;
        for (version, finding) in self.quarantine.unrecorded() {
            self.record_finding(&version, &finding).await?;
        }
        self.quarantine.replace(&self.recorded_findings().await?);
        Ok(())
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
        let is_new = self.quarantine.add(&execution.script_version, &finding);
        if is_new {
            let (script, version) = (&execution.script_name, &execution.script_version);
            tracing::warn!(script, version, %concern, execution = %execution.id, "a script version comes into quarantine");
        }
        is_new
    }

    /// Records what is not recorded yet.
    pub(in crate::engine) async fn record_quarantine(&self) -> Result<(), StorageError> {
        let _turn = self.quarantine.turn.lock().await;
        for (version, finding) in self.quarantine.unrecorded() {
            self.record_finding(&version, &finding).await?;
        }
        Ok(())
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

    /// Records a finding, unless another instance has recorded one that weighs as much.
    async fn record_finding(&self, version: &str, finding: &Finding) -> Result<(), StorageError> {
        let present = self.quarantine_record(version).await?;
        let expected = present.as_ref().map(|record| record.revision);
        let known = present.and_then(|record| serde_json::from_value(record.value).ok());
        if known.is_some_and(|known: Finding| !finding.outweighs(&known)) {
            self.quarantine.recorded(version, finding);
            return Ok(());
        }
        let record = Record {
            tenant_id: TenantId::default(),
            kind: RecordKind::Quarantine,
            key: version.to_owned(),
            value: json!(finding),
            revision: 0,
        };
        match self.write(Write::Put { record, expected }).await {
            Ok(()) => {
                self.quarantine.recorded(version, finding);
                Ok(())
            }
            // Another instance was faster: which finding weighs more is looked at again with the leases.
            Err(WriteError::Mismatch { .. } | WriteError::Missing { .. }) => Ok(()),
            Err(error) => Err(in_storage(error)),
        }
    }

    async fn quarantine_record(&self, version: &str) -> Result<Option<Record>, StorageError> {
        let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
        self.parts.storage.record(&tenant, kind, version).await
    }

    async fn recorded_findings(&self) -> Result<BTreeMap<Arc<str>, Finding>, StorageError> {
        let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
        let (mut page, mut findings) = (Page::first(limits::PAGE_ROWS_MAX), BTreeMap::new());
        loop {
            let found = self.parts.storage.records(&tenant, kind, &page).await?;
            for record in found.items {
                match serde_json::from_value(record.value) {
                    Ok(finding) => drop(findings.insert(record.key.into(), finding)),
                    Err(error) => {
                        tracing::error!(version = record.key, %error, "a quarantine can't be read");
                    }
                }
            }
            let Some(next) = found.next else {
                return Ok(findings);
            };
            page = Page::first(limits::PAGE_ROWS_MAX).after(next);
        }
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        let answer = self.parts.storage.commit(vec![write]).await.pop();
        answer.unwrap_or(Err(WriteError::Aborted)).map(drop)
    }

    /// Returns what is known to be kept out, by script and version.
    pub(in crate::engine) fn known_quarantined(&self) -> Vec<Quarantined> {
        self.all_shown(&self.quarantine.findings())
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
        let mut problems = Vec::new();
        check_actor(actor, &mut problems);
        if !problems.is_empty() {
            return Err(Error::InvalidRequest { problems });
        }
        self.quarantine_loaded().await?;
        let _turn = self.quarantine.turn.lock().await;
        let mut released = self.quarantine.findings();
        released.retain(|(version, finding)| finding.script_name == script || **version == *script);
        if released.is_empty() {
            return Err(self.not_quarantined(script));
        }
        for (version, finding) in &released {
            self.delete_record(version).await?;
            self.quarantine.remove(version, finding);
        }
        tracing::warn!(
            script,
            actor,
            versions = released.len(),
            "script versions are released from quarantine"
        );
        Ok(self.all_shown(&released))
    }

    /// A release stands when its record is gone, whoever deleted it.
    async fn delete_record(&self, version: &str) -> Result<(), StorageError> {
        let Some(record) = self.quarantine_record(version).await? else {
            return Ok(());
        };
        match self.write(Write::Delete { record }).await {
            Ok(()) | Err(WriteError::Missing { .. }) => Ok(()),
            Err(error) => Err(in_storage(error)),
        }
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

fn in_storage(error: WriteError) -> StorageError {
    match error {
        WriteError::Storage(error) => error,
        other => StorageError::Backend {
            backend: "quarantine",
            source: other.into(),
        },
    }
}
