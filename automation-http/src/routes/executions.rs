//! `/automation/executions`: runs by their own ids, whatever their ticket.

use automation_core::{Automation, ExecutionsQuery};
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::message_of;
use super::parameters::{self, PathResult, QueryResult, refused};
use crate::dto::{Envelope, ExecutionDto};
use crate::error::ApiResult;

#[derive(Debug, Default, Deserialize)]
pub(super) struct ListParameters {
    /// Rows at most, 50 unless asked otherwise.
    limit: Option<String>,
    /// Where the former page ended: its `next_cursor`.
    cursor: Option<String>,
    /// Statuses, separated by commas.
    status: Option<String>,
    /// A script's name.
    script: Option<String>,
    /// A ticket's id.
    ticket_id: Option<String>,
    /// Who asked.
    actor: Option<String>,
    /// Accepted at this time or later: RFC 3339, or a day (UTC).
    since: Option<String>,
    /// Accepted before this time.
    until: Option<String>,
    /// `output`: with `output`, `stderr` and `parsed_output`.
    include: Option<String>,
}

impl ListParameters {
    fn query(&self) -> ApiResult<ExecutionsQuery> {
        let time = |name, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| parameters::time(name, text)).transpose()
        };
        Ok(ExecutionsQuery {
            ticket_id: self.ticket_id.clone(),
            script_name: self.script.clone(),
            statuses: parameters::statuses(self.status.as_deref())?,
            actor: self.actor.clone(),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            with_output: match self.include.as_deref() {
                None => false,
                Some("output") => true,
                Some(other) => {
                    let detail = format!("is {other:?}, output is allowed");
                    return Err(refused("/include", detail));
                }
            },
        })
    }
}

/// Newest first.
pub(super) async fn list(
    State(automation): State<Automation>,
    query: QueryResult<ListParameters>,
) -> ApiResult<Envelope<Vec<ExecutionDto>>> {
    let asked = parameters::query(query)?;
    let query = asked.query()?;
    let row = match query.with_output {
        true => ExecutionDto::whole,
        false => ExecutionDto::row,
    };
    let page = parameters::page(asked.limit.as_deref(), asked.cursor)?;
    let listing = automation.executions(query, page).await?;
    let message = format!("Found {} executions", listing.items.len());
    let next = listing.next.map(|cursor| Value::from(cursor.as_str()));
    let rows = listing.items.into_iter().map(row).collect();
    Ok(Envelope::new(rows, message).with("next_cursor", next))
}

pub(super) async fn get(
    State(automation): State<Automation>,
    id: PathResult,
) -> ApiResult<Envelope<ExecutionDto>> {
    let execution = automation.get(parameters::execution_id(id)?).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(ExecutionDto::whole(execution), message))
}

/// Waits for the run's end: the answer says what became of it.
pub(super) async fn cancel(
    State(automation): State<Automation>,
    id: PathResult,
) -> ApiResult<Envelope<ExecutionDto>> {
    let id = parameters::execution_id(id)?;
    let execution = automation.cancel(id, None).await?;
    let message = message_of("Automation", "completed successfully", &execution);
    Ok(Envelope::new(ExecutionDto::whole(execution), message))
}
