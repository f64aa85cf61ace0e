//! `POST /automation/executions/:id/retry`: what did not complete runs once more. A body is not asked for.

use automation_core::{Automation, ExecutionId, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::message_of;
use crate::dto::{Envelope, RunDto};
use crate::error::{ApiError, ApiResult};

pub(super) async fn retry(
    State(automation): State<Automation>,
    id: Result<Path<String>, PathRejection>,
) -> ApiResult<Envelope<RunDto>> {
    let malformed = |detail| ApiError::invalid_request(vec![Problem::new("/id", detail)]);
    let Path(id) = id.map_err(|rejection| malformed(rejection.body_text()))?;
    let id: ExecutionId = id
        .parse()
        .map_err(|_| malformed("must be an execution's id, a UUID".to_owned()))?;
    let execution = automation.retry(id, None).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(RunDto::from(execution), message))
}
