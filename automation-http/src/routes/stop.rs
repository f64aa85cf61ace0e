//! `POST /automation/stop` and `/automation/resume`: people's switches for everything, a script or a category.

use automation_core::Automation;
use axum::extract::State;

use crate::document::Document;
use crate::dto::{Envelope, StopDto};
use crate::error::ApiResult;
use crate::request::{self, StopRequest};

pub(super) async fn stop(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<StopDto>> {
    let StopRequest {
        target,
        actor,
        reason,
        cancel_running,
    } = request::stop(document)?;
    let stop = automation
        .stop(target, &actor, &reason, cancel_running)
        .await?;
    let message = format!("Stopped {}", stop.target);
    Ok(Envelope::new(StopDto::from(stop), message))
}

pub(super) async fn resume(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<StopDto>> {
    let StopRequest {
        target,
        actor,
        reason,
        ..
    } = request::stop(document)?;
    let stop = automation.resume(&target, &actor, &reason).await?;
    let message = format!("Resumed {target}");
    Ok(Envelope::new(StopDto::from(stop), message))
}
