//! `POST /automation/manual`: a script by its name.

use automation_core::Automation;
use axum::extract::State;
use axum::http::HeaderMap;

use super::message_of;
use crate::document::Document;
use crate::dto::{Envelope, RunDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn manual(
    State(automation): State<Automation>,
    headers: HeaderMap,
    document: Document,
) -> ApiResult<Envelope<RunDto>> {
    let mut asked = request::manual(document)?;
    asked.idempotency_key = request::idempotency_key(&headers)?;
    let execution = automation.manual(asked).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(RunDto::from(execution), message))
}
