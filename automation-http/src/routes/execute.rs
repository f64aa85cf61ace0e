//! `POST /automation/execute`: a ticket and its classification select a script.

use automation_core::Automation;
use axum::extract::State;

use super::message_of;
use crate::document::Document;
use crate::dto::{Envelope, RunDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn execute(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<RunDto>> {
    let execution = automation.execute(request::execute(document)?).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(RunDto::from(execution), message))
}
