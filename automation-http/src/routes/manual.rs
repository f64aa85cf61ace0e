//! `POST /automation/manual`: a script by its name.

use automation_core::Automation;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::asked::{WaitParameters, answer};
use super::parameters::{self, QueryResult};
use crate::document::Document;
use crate::error::ApiResult;
use crate::request;

pub(super) async fn manual(
    State(automation): State<Automation>,
    query: QueryResult<WaitParameters>,
    headers: HeaderMap,
    document: Document,
) -> ApiResult<Response> {
    let patience = parameters::query(query)?.patience()?;
    let mut asked = request::manual(document)?;
    asked.idempotency_key = request::idempotency_key(&headers)?;
    asked.patience = patience;
    let execution = automation.manual(asked).await?;
    Ok(answer(execution))
}
