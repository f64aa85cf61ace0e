//! `GET /automation/scripts`: what can run, and beside it what can't and why; `/automation/scripts/:name`: one of them.

use automation_core::{Automation, Quarantined};
use axum::extract::State;
use serde_json::Value;

use super::parameters::{self, PathResult};
use crate::dto::{Envelope, InvalidScriptDto, ScriptDetailDto, ScriptDto};
use crate::error::ApiResult;

pub(super) async fn scripts(State(automation): State<Automation>) -> Envelope<Vec<ScriptDto>> {
    let index = automation.scripts();
    let quarantined = quarantined(&automation).await;
    let scripts: Vec<_> = index
        .scripts()
        .map(|script| ScriptDto::new(script, automation.limits(script), &quarantined))
        .collect();
    let invalid: Vec<_> = index.invalid().iter().map(InvalidScriptDto::from).collect();
    let invalid = serde_json::to_value(invalid).unwrap_or(Value::Null);
    let message = format!("Found {} automation scripts", scripts.len());
    Envelope::new(scripts, message).with("invalid", invalid)
}

pub(super) async fn script(
    State(automation): State<Automation>,
    name: PathResult,
) -> ApiResult<Envelope<ScriptDetailDto>> {
    let script = automation.script(&parameters::segment("name", name)?)?;
    let quarantined = quarantined(&automation).await;
    let detail = ScriptDetailDto::new(&script, automation.limits(&script), &quarantined);
    Ok(Envelope::new(detail, format!("Script {}", script.name())))
}

/// Scripts are known when the storage is away, too; nothing of them runs then.
async fn quarantined(automation: &Automation) -> Vec<Quarantined> {
    automation.quarantined().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known yet which scripts are in quarantine");
        Vec::new()
    })
}
