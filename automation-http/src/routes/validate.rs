//! `POST /automation/scripts/validate`: what is wrong or doubtful about a source, without keeping it.

use automation_core::Automation;
use axum::extract::State;

use crate::document::Document;
use crate::dto::{Envelope, ValidationDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn validate(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<ValidationDto>> {
    let (name, source) = request::validate(document)?;
    let validation = automation.validate(name, source).await?;
    let fitness = if validation.is_valid() {
        "can"
    } else {
        "can't"
    };
    let message = format!("Script {} {fitness} run", validation.name);
    let validation = ValidationDto::new(validation, |script| automation.limits(script));
    Ok(Envelope::new(validation, message))
}
