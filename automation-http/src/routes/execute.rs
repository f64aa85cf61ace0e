//! `POST /automation/execute`: a ticket and its classification select a script.

use automation_core::Automation;
use axum::extract::State;
use axum::http::HeaderMap;

use super::message_of;
use crate::document::Document;
use crate::dto::{Envelope, RunDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn execute(
    State(automation): State<Automation>,
    headers: HeaderMap,
    document: Document,
) -> ApiResult<Envelope<RunDto>> {
    let mut asked = request::execute(document)?;
    asked.idempotency_key = request::idempotency_key(&headers)?;
    let execution = automation.execute(asked).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(RunDto::from(execution), message))
}
