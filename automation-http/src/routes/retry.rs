//! `POST /automation/executions/:id/retry`: what did not complete runs once more. A body is not asked for.

use automation_core::Automation;
use axum::extract::State;
use axum::response::Response;

use super::asked::answer;
use super::parameters::{self, PathResult};
use crate::error::ApiResult;

pub(super) async fn retry(
    State(automation): State<Automation>,
    id: PathResult,
) -> ApiResult<Response> {
    let id = parameters::execution_id(id)?;
    Ok(answer(automation.retry(id, None).await?))
}
