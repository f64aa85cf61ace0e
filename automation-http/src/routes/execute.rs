//! `POST /automation/execute`: a ticket and its classification select a script.

use automation_core::Automation;
use axum::extract::State;
use axum::response::Response;

use super::asked::{self, WaitParameters};
use super::parameters::{self, QueryResult};
use crate::document::Document;
use crate::error::ApiResult;
use crate::request;

pub(super) async fn execute(
    State(automation): State<Automation>,
    query: QueryResult<WaitParameters>,
    document: Document,
) -> ApiResult<Response> {
    let patience = parameters::query(query)?.patience()?;
    let mut request = request::execute(document)?;
    request.patience = patience;
    let execution = automation.execute(request).await?;
    Ok(asked::answer(execution))
}
