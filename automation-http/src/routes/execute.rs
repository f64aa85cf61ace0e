//! `POST /automation/execute`: a ticket and its classification select a script.

use automation_core::Automation;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::asked::{WaitParameters, answer};
use super::parameters::{self, QueryResult};
use crate::document::Document;
use crate::error::ApiResult;
use crate::request;

pub(super) async fn execute(
    State(automation): State<Automation>,
    query: QueryResult<WaitParameters>,
    headers: HeaderMap,
    document: Document,
) -> ApiResult<Response> {
    let patience = parameters::query(query)?.patience()?;
    let mut asked = request::execute(document)?;
    asked.idempotency_key = request::idempotency_key(&headers)?;
    asked.patience = patience;
    let execution = automation.execute(asked).await?;
    Ok(answer(execution))
}
