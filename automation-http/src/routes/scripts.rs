//! `GET /automation/scripts`: what can run, and beside it what can't and why.

use automation_core::Automation;
use axum::extract::State;
use serde_json::Value;

use crate::dto::{Envelope, InvalidScriptDto, ScriptDto};

pub(super) async fn scripts(State(automation): State<Automation>) -> Envelope<Vec<ScriptDto>> {
    let index = automation.scripts();
    // Scripts are known when the storage is away, too; nothing of them runs then.
    let quarantined = automation.quarantined().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known yet which scripts are in quarantine");
        Vec::new()
    });
    let scripts: Vec<_> = index
        .scripts()
        .map(|script| ScriptDto::new(script, automation.limits(script), &quarantined))
        .collect();
    let invalid: Vec<_> = index.invalid().iter().map(InvalidScriptDto::from).collect();
    let invalid = serde_json::to_value(invalid).unwrap_or(Value::Null);
    let message = format!("Found {} automation scripts", scripts.len());
    Envelope::new(scripts, message).with("invalid", invalid)
}
