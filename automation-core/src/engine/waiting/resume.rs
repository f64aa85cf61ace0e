//! Lets one row run that was claimed: with what it was asked with, at the version that it was accepted with.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::Engine;
use super::super::gate::Permit;
use super::super::life::Life;
use super::super::plan::Plan;
use crate::error::{Error, Result};
use crate::execution::{Completion, Execution, Reason};
use crate::executor::ExecutorError;
use crate::script::Script;
use crate::status::Status;
use crate::storage::{Change, RecordKind};

impl Engine {
    pub(super) fn resume(self: &Arc<Self>, row: Execution, place: Permit) {
        let engine = Arc::clone(self);
        let resume = async move {
            let id = row.id;
            if let Err(error) = engine.resume_claimed(row, place).await {
                tracing::warn!(execution = %id, %error, "an execution that waited is not taken up");
            }
            engine.waiting.tell_moved();
        };
        drop(self.tasks.spawn_on(resume, &self.parts.runtime));
    }

    async fn resume_claimed(self: &Arc<Self>, row: Execution, place: Permit) -> Result<()> {
        if row.reason == Some(Reason::AwaitingApproval) {
            let detail = "not started: nobody approved it in time";
            return self
                .end_unstarted(&row, Reason::ApprovalExpired, detail)
                .await;
        }
        let script = match self.accepted_script(&row).await {
            Ok(script) => script,
            // The storage can't be read now: the claim ends by itself, and the row is taken up again.
            Err(error @ (Error::Storage(_) | Error::Closed)) => return Err(error),
            Err(error) => {
                let detail = format!("not started: {error}");
                return self
                    .end_unstarted(&row, Reason::ExecutorError, &detail)
                    .await;
            }
        };
        let life = match self.venue(&script) {
            Ok(venue) => Life::of_row(Arc::clone(self), row, script, venue),
            Err(error) => {
                let detail = format!("not started: {error}");
                return self
                    .end_unstarted(&row, Reason::ExecutorError, &detail)
                    .await;
            }
        };
        life.resume(place).await.map(drop)
    }

    async fn end_unstarted(&self, row: &Execution, reason: Reason, detail: &str) -> Result<()> {
        let status = match reason {
            Reason::ApprovalExpired => Status::Cancelled,
            _ => Status::Failed,
        };
        let mut completion = Completion::new(status, Some(reason), self.now());
        completion.error = Some(detail.to_owned());
        let ended = self.decide(row, Change::End(completion), Vec::new()).await;
        ended.map(drop)
    }

    /// Returns the script as it was when the execution was accepted, also when it has changed or is gone since.
    pub(in crate::engine) async fn accepted_script(
        self: &Arc<Self>,
        row: &Execution,
    ) -> Result<Arc<Script>> {
        let index = self.scripts();
        let present = index.script(&row.script_name);
        match present.filter(|script| **script.version() == *row.script_version) {
            Some(script) => Ok(Arc::clone(script)),
            None => self.former_script(row).await,
        }
    }

    async fn former_script(self: &Arc<Self>, row: &Execution) -> Result<Arc<Script>> {
        let (tenant, version) = (&row.tenant_id, &row.script_version);
        let record = self
            .parts
            .storage
            .record(tenant, RecordKind::ScriptVersion, version)
            .await?;
        let source = record.and_then(|mut record| match record.value["source"].take() {
            Value::String(source) => Some(source),
            _ => None,
        });
        let Some(source) = source else {
            let what = format!(
                "version {version} of script {:?} is not kept",
                row.script_name
            );
            return Err(Error::Unsupported { what });
        };
        let folder = self.parts.scripts.folder().map(Path::to_owned);
        let path = folder.unwrap_or_default().join(&row.script_name);
        let (engine, version) = (Arc::clone(self), version.clone());
        let read = move || {
            Script::kept(path, &source, &version, |script| {
                engine.parts.inspect(script, &engine.settings)
            })
        };
        let read = self.parts.runtime.spawn_blocking(read).await;
        let read = read.map_err(|panic| ExecutorError::Internal {
            detail: panic.to_string(),
        })?;
        let name = row.script_name.clone();
        read?
            .map(Arc::new)
            .map_err(|diagnostics| Error::InvalidScript { name, diagnostics })
    }
}

impl Plan {
    /// Returns what a row was asked with.
    pub(in crate::engine) fn of_row(row: &Execution, script: Arc<Script>) -> Self {
        let context = row.context.as_deref().cloned().unwrap_or_default();
        let parameters = match &row.parameters {
            Value::Object(parameters) => parameters.clone(),
            _ => Map::new(),
        };
        Self {
            script,
            trigger: row.trigger,
            parameters,
            ticket_id: Some(row.ticket_id.clone()),
            ticket: context.ticket,
            classification: context.classification,
            actor: row.actor.clone(),
            dry_run: row.dry_run,
            wait: None,
            links: None,
            key: None,
        }
    }
}
