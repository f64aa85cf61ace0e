//! `GET /automation/executions/:id/output`: what a run wrote, as a text file.

use automation_core::{Automation, Error, Execution};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::parameters::{self, PathResult, QueryResult, refused};
use crate::error::ApiResult;

/// Whether the run wrote more than was kept.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static("x-output-truncated");

#[derive(Debug, Default, Deserialize)]
pub(super) struct OutputParameters {
    /// `stdout` (the default) or `stderr`.
    stream: Option<String>,
}

pub(super) async fn output(
    State(automation): State<Automation>,
    id: PathResult,
    query: QueryResult<OutputParameters>,
) -> ApiResult<Response> {
    let id = parameters::execution_id(id)?;
    let stream = parameters::query(query)?.stream;
    let execution = automation.get(id).await?;
    let truncated = execution.truncated;
    let (name, text) = text_of(execution, stream.as_deref())?;
    let file = format!("attachment; filename=\"{id}.{name}.txt\"");
    let file = HeaderValue::from_str(&file).expect("an id and a stream's name are visible");
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        (header::CONTENT_DISPOSITION, file),
        (
            TRUNCATED,
            HeaderValue::from_static(if truncated { "true" } else { "false" }),
        ),
    ];
    Ok((headers, Body::from(text)).into_response())
}

/// Returns a stream's name and text. It is recorded at the run's end: before, an empty file would be a lie.
fn text_of(execution: Execution, stream: Option<&str>) -> ApiResult<(&'static str, String)> {
    let chosen = match stream {
        None | Some("stdout") => ("stdout", execution.output),
        Some("stderr") => ("stderr", execution.stderr),
        Some(other) => {
            let detail = format!("is {other:?}, stdout and stderr are allowed");
            return Err(refused("/stream", detail));
        }
    };
    if execution.status.is_terminal() {
        return Ok(chosen);
    }
    let detail = format!(
        "execution {} is {}, its output is recorded at its end",
        execution.id, execution.status
    );
    Err(Error::Conflict { detail }.into())
}
