//! What everybody hears who asks for a run: its end, or that it is accepted and where to look for its end.

use std::time::Duration;

use automation_core::Execution;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::message_of;
use super::parameters;
use crate::dto::{Envelope, RunDto};
use crate::error::ApiResult;

#[derive(Debug, Default, Deserialize)]
pub(super) struct WaitParameters {
    /// How long the answer may wait for the end, `30s`; `0` does not wait. Without it the answer is the end.
    wait: Option<String>,
}

impl WaitParameters {
    pub(super) fn patience(&self) -> ApiResult<Option<Duration>> {
        parameters::wait(self.wait.as_deref())
    }
}

/// Answers 200 with the end of a run, or 202 with a run that is not over and with its `Location`.
pub(super) fn answer(execution: Execution) -> Response {
    let message = message_of("Automation", "completed successfully", &execution);
    if execution.status.is_terminal() {
        return Envelope::new(RunDto::from(execution), message).into_response();
    }
    let place = format!("/api/automation/executions/{}", execution.id);
    let place = HeaderValue::from_str(&place).expect("an id is made of visible characters");
    let body = Envelope::new(RunDto::from(execution), message);
    (StatusCode::ACCEPTED, [(header::LOCATION, place)], body).into_response()
}
