//! Lists of executions, and the back-up: what is recorded, read as it is.

use std::path::PathBuf;

use super::Engine;
use crate::error::{Error, Result};
use crate::execution::{Execution, TenantId};
use crate::request::{
    ExecutionsQuery, Listing, LogsQuery, Page, check_only_actor, validate_ticket_id,
};
use crate::storage::{ExecutionQuery, StorageError};

impl Engine {
    pub(crate) async fn logs(
        &self,
        tenant: &TenantId,
        query: LogsQuery,
        page: Page,
    ) -> Result<Listing<Execution>> {
        validate_ticket_id(&query.ticket_id)
            .map_err(|detail| Error::invalid_request("/ticket_id", detail))?;
        let unfiltered =
            query.statuses.is_empty() && query.script_name.is_none() && page.after.is_none();
        let wanted = ExecutionQuery {
            ticket_id: Some(query.ticket_id.clone()),
            script_name: query.script_name,
            statuses: query.statuses,
            ..ExecutionQuery::of(tenant.clone())
        };
        let rows = self.list(&wanted, &page).await?;
        if rows.items.is_empty() {
            let known = !unfiltered && self.ticket_is_known(tenant, &query.ticket_id).await?;
            if !known {
                return Err(Error::TicketNotFound {
                    ticket_id: query.ticket_id,
                });
            }
        }
        Ok(rows)
    }

    async fn ticket_is_known(&self, tenant: &TenantId, ticket_id: &str) -> Result<bool> {
        let any = ExecutionQuery {
            ticket_id: Some(ticket_id.to_owned()),
            without_output: true,
            ..ExecutionQuery::of(tenant.clone())
        };
        Ok(!self.list(&any, &Page::first(1)).await?.items.is_empty())
    }

    async fn list(&self, query: &ExecutionQuery, page: &Page) -> Result<Listing<Execution>> {
        self.parts
            .storage
            .list(query, page)
            .await
            .map_err(|error| match error {
                StorageError::InvalidCursor { .. } => {
                    Error::invalid_request("/cursor", error.to_string())
                }
                other => other.into(),
            })
    }

    pub(crate) async fn executions(
        &self,
        tenant: &TenantId,
        query: ExecutionsQuery,
        page: &Page,
    ) -> Result<Listing<Execution>> {
        if let Some(ticket_id) = &query.ticket_id {
            validate_ticket_id(ticket_id)
                .map_err(|detail| Error::invalid_request("/ticket_id", detail))?;
        }
        check_only_actor(query.actor.as_deref())?;
        let wanted = ExecutionQuery {
            ticket_id: query.ticket_id,
            script_name: query.script_name,
            statuses: query.statuses,
            actor: query.actor,
            since: query.since,
            until: query.until,
            without_output: !query.with_output,
            ..ExecutionQuery::of(tenant.clone())
        };
        self.list(&wanted, page).await
    }

    pub(crate) async fn back_up(&self, to: PathBuf) -> Result<u64> {
        self.parts
            .storage
            .back_up(&to)
            .await
            .map_err(|error| match error {
                StorageError::Unsupported { what } => Error::Unsupported {
                    what: what.to_owned(),
                },
                StorageError::Unusable { detail, .. } => Error::invalid_request("/path", detail),
                other => other.into(),
            })
    }
}
