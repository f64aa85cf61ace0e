//! `POST /automation/manual`: a script by its name.

use automation_core::Automation;
use axum::extract::State;

use super::message_of;
use crate::document::Document;
use crate::dto::{Envelope, RunDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn manual(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<RunDto>> {
    let execution = automation.manual(request::manual(document)?).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(RunDto::from(execution), message))
}
