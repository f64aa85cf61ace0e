//! `POST /automation/manual`: a script by its name.

use automation_core::Automation;
use axum::extract::State;
use axum::response::Response;

use super::asked::{self, WaitParameters};
use super::parameters::{self, QueryResult};
use crate::document::Document;
use crate::error::ApiResult;
use crate::request;

pub(super) async fn manual(
    State(automation): State<Automation>,
    query: QueryResult<WaitParameters>,
    document: Document,
) -> ApiResult<Response> {
    let patience = parameters::query(query)?.patience()?;
    let mut request = request::manual(document)?;
    request.patience = patience;
    let execution = automation.manual(request).await?;
    Ok(asked::answer(execution))
}
