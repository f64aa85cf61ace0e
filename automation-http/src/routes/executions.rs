//! `/automation/executions`: runs by their own ids, whatever their ticket.

use automation_core::Automation;
use axum::extract::State;

use super::message_of;
use super::parameters::{self, PathResult};
use crate::dto::{Envelope, ExecutionDto};
use crate::error::ApiResult;

pub(super) async fn get(
    State(automation): State<Automation>,
    id: PathResult,
) -> ApiResult<Envelope<ExecutionDto>> {
    let execution = automation.get(parameters::execution_id(id)?).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(ExecutionDto::whole(execution), message))
}

/// Waits for the run's end: the answer says what became of it.
pub(super) async fn cancel(
    State(automation): State<Automation>,
    id: PathResult,
) -> ApiResult<Envelope<ExecutionDto>> {
    let id = parameters::execution_id(id)?;
    let execution = automation.cancel(id, None).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(ExecutionDto::whole(execution), message))
}
