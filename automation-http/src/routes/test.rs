//! `POST /automation/test`: a dry run through the whole path.

use automation_core::Automation;
use axum::extract::State;

use super::message_of;
use crate::document::Document;
use crate::dto::{Envelope, TestDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn test(
    State(automation): State<Automation>,
    document: Option<Document>,
) -> ApiResult<Envelope<TestDto>> {
    let execution = automation.test(request::test(document)?).await?;
    let message = message_of("Automation test", "completed", &execution);
    Ok(Envelope::new(TestDto::from(execution), message))
}
