//! `GET /automation/logs/:ticket_id`: a ticket's runs, newest first.

use automation_core::{Automation, LogsQuery};
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::parameters::{self, PathResult, QueryResult};
use crate::dto::{Envelope, LogDto};
use crate::error::ApiResult;

#[derive(Debug, Default, Deserialize)]
pub(super) struct LogsParameters {
    /// Rows at most.
    limit: Option<String>,
    /// Where the former page ended.
    cursor: Option<String>,
    /// Statuses, separated by commas.
    status: Option<String>,
    /// A script's name.
    script: Option<String>,
}

pub(super) async fn logs(
    State(automation): State<Automation>,
    ticket_id: PathResult,
    query: QueryResult<LogsParameters>,
) -> ApiResult<Envelope<Vec<LogDto>>> {
    let ticket_id = parameters::segment("ticket_id", ticket_id)?;
    let asked = parameters::query(query)?;
    let page = parameters::page(asked.limit.as_deref(), asked.cursor)?;
    let mut query = LogsQuery::new(&ticket_id);
    query.statuses = parameters::statuses(asked.status.as_deref())?;
    query.script_name = asked.script;
    let listing = automation.logs(query, page).await?;
    let message = format!(
        "Found {} automation logs for ticket {ticket_id}",
        listing.items.len()
    );
    let next = listing.next.map(|cursor| Value::from(cursor.as_str()));
    let rows = listing.items.into_iter().map(LogDto::from).collect();
    Ok(Envelope::new(rows, message).with("next_cursor", next))
}
