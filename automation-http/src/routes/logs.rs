//! `GET /automation/logs/:ticket_id`: a ticket's runs, newest first.

use automation_core::limits::{PAGE_ROWS, PAGE_ROWS_MAX};
use automation_core::{Automation, Cursor, LogsQuery, Page, Problem, Status};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::dto::{Envelope, LogDto};
use crate::error::{ApiError, ApiResult};

/// Unknown ones are ignored, as everywhere.
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
    ticket_id: Result<Path<String>, PathRejection>,
    parameters: Result<Query<LogsParameters>, QueryRejection>,
) -> ApiResult<Envelope<Vec<LogDto>>> {
    let Path(ticket_id) =
        ticket_id.map_err(|rejection| refused("/ticket_id", &rejection.body_text()))?;
    let Query(parameters) = parameters.map_err(|rejection| refused("", &rejection.body_text()))?;
    let page = parameters.page()?;
    let mut query = LogsQuery::new(&ticket_id);
    query.statuses = parameters.statuses()?;
    query.script_name = parameters.script;
    let listing = automation.logs(query, page).await?;
    let message = format!(
        "Found {} automation logs for ticket {ticket_id}",
        listing.items.len()
    );
    let next = listing.next.map(|cursor| Value::from(cursor.as_str()));
    let rows = listing.items.into_iter().map(LogDto::from).collect();
    Ok(Envelope::new(rows, message).with("next_cursor", next))
}

impl LogsParameters {
    fn page(&self) -> ApiResult<Page> {
        let rows_max = match &self.limit {
            None => PAGE_ROWS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|rows| (1..=PAGE_ROWS_MAX).contains(rows))
                .ok_or_else(|| {
                    refused(
                        "/limit",
                        &format!("is {text:?}, 1 to {PAGE_ROWS_MAX} is allowed"),
                    )
                })?,
        };
        let page = Page::first(rows_max);
        Ok(match &self.cursor {
            Some(cursor) => page.after(Cursor::new(cursor)),
            None => page,
        })
    }

    fn statuses(&self) -> ApiResult<Vec<Status>> {
        let words = self.status.iter().flat_map(|words| words.split(','));
        let status = |word: &str| {
            let expected = || {
                format!(
                    "has {word:?}, {} are allowed",
                    Status::ALL.map(Status::as_str).join(", ")
                )
            };
            Status::from_word(word).ok_or_else(|| refused("/status", &expected()))
        };
        words.map(status).collect()
    }
}

fn refused(pointer: &str, detail: &str) -> ApiError {
    ApiError::invalid_request(vec![Problem::new(pointer, detail)])
}
