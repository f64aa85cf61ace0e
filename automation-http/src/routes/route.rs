//! `POST /automation/route`: which script would run for a ticket, and why. Nothing runs.

use automation_core::Automation;
use axum::extract::State;

use crate::document::Document;
use crate::dto::{Envelope, RouteDto};
use crate::error::ApiResult;
use crate::request;

pub(super) async fn route(
    State(automation): State<Automation>,
    document: Document,
) -> ApiResult<Envelope<RouteDto>> {
    let request = request::execute(document)?;
    let route = automation.route(&request.ticket, &request.classification)?;
    let message = format!("{} would run", route.script_name);
    Ok(Envelope::new(RouteDto::from(route), message))
}
