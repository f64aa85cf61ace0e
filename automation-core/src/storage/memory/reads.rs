//! The reads of the memory backend. Rows leave it as `Arc`, so that they are copied outside the lock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::state::{Index, State};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::request::StatsQuery;
use crate::stats::ScriptStats;
use crate::storage::cursor::Place;
use crate::storage::{ExecutionQuery, Record, RecordKind};

impl State {
    /// Returns an execution of a tenant.
    pub(super) fn execution(&self, tenant: &TenantId, id: ExecutionId) -> Option<&Arc<Execution>> {
        self.executions
            .get(&id)
            .filter(|row| row.tenant_id == *tenant)
    }

    /// Returns up to `rows` executions that fit, newest first, from the one behind `after` on.
    pub(super) fn list(
        &self,
        query: &ExecutionQuery,
        after: Option<Place>,
        rows: usize,
    ) -> Vec<Arc<Execution>> {
        let Some(index) = self.narrowest(query) else {
            return Vec::new();
        };
        let until = query
            .until
            .map(|until| (until, ExecutionId::from_uuid(Uuid::nil())));
        let end = after.into_iter().chain(until).min();
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        index
            .range((Bound::Unbounded, end))
            .rev()
            .take_while(|(at, _)| query.since.is_none_or(|since| since <= *at))
            .map(|(_, id)| &self.executions[id])
            .filter(|row| fits(row, query))
            .take(rows)
            .cloned()
            .collect()
    }

    /// Returns the smallest index that holds all executions that may fit; `None` when none can.
    fn narrowest(&self, query: &ExecutionQuery) -> Option<&Index> {
        let only_open =
            !query.statuses.is_empty() && !query.statuses.iter().any(|status| status.is_terminal());
        if let (Some(tenant), Some(key)) = (&query.tenant_id, &query.idempotency_key) {
            return self.by_key.get(&(tenant.clone(), key.clone()));
        }
        match (&query.tenant_id, &query.ticket_id) {
            (Some(tenant), Some(ticket)) => self.by_ticket.get(&(tenant.clone(), ticket.clone())),
            _ if only_open => Some(&self.open),
            (Some(tenant), None) => self.by_tenant.get(tenant),
            (None, _) => Some(&self.all),
        }
    }

    /// Returns up to `rows` events of an execution, oldest first, from the one behind `after` on.
    pub(super) fn events(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        after: Option<u32>,
        rows: usize,
    ) -> Vec<Event> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.execution(tenant, id)
            .and_then(|_| self.events.get(&id))
            .into_iter()
            .flat_map(|events| events.range((start, Bound::Unbounded)))
            .take(rows)
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// Returns a keyed record.
    pub(super) fn record(&self, tenant: &TenantId, kind: RecordKind, key: &str) -> Option<Record> {
        self.records
            .get(&(tenant.clone(), kind, key.to_owned()))
            .cloned()
    }

    /// Returns up to `rows` records of a kind, by key, from the one behind `after` on.
    pub(super) fn records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        after: Option<String>,
        rows: usize,
    ) -> Vec<Record> {
        let start = match after {
            Some(key) => Bound::Excluded((tenant.clone(), kind, key)),
            None => Bound::Included((tenant.clone(), kind, String::new())),
        };
        self.records
            .range((start, Bound::Unbounded))
            .take_while(|((owner, of_kind, _), _)| owner == tenant && *of_kind == kind)
            .take(rows)
            .map(|(_, record)| record.clone())
            .collect()
    }

    /// Returns the sums of each script.
    pub(super) fn by_script(&self, query: &StatsQuery) -> BTreeMap<String, ScriptStats> {
        let mut sums = BTreeMap::<String, ScriptStats>::new();
        let days = self.days.iter().filter(|((tenant, day, script), _)| {
            *tenant == query.tenant_id
                && query.since.is_none_or(|since| since <= *day)
                && is_asked(script, query)
        });
        for ((.., script), day) in days {
            sums.entry(script.clone()).or_default().merge(day);
        }
        sums
    }

    /// Returns how many counted executions are open.
    pub(super) fn open(&self, query: &StatsQuery) -> u64 {
        let open = self.open.iter().filter(|(_, id)| {
            let row = &self.executions[id];
            counts(row, query)
        });
        open.count() as u64
    }

    /// Returns the newest counted executions that ended.
    pub(super) fn recent(&self, query: &StatsQuery, rows: usize) -> Vec<Arc<Execution>> {
        let since = |row: &Execution| query.since.is_none_or(|since| ended_since(row, since));
        self.by_tenant
            .get(&query.tenant_id)
            .into_iter()
            .flat_map(|index| index.iter().rev())
            .map(|(_, id)| &self.executions[id])
            .filter(|row| row.status.is_terminal() && counts(row, query) && since(row))
            .take(rows)
            .cloned()
            .collect()
    }
}

fn ended_since(row: &Execution, since: chrono::NaiveDate) -> bool {
    row.completed_at.is_some_and(|at| since <= at.date_naive())
}

fn counts(row: &Execution, query: &StatsQuery) -> bool {
    row.tenant_id == query.tenant_id
        && row.trigger.is_counted()
        && is_asked(&row.script_name, query)
}

fn is_asked(script: &str, query: &StatsQuery) -> bool {
    query
        .script_name
        .as_ref()
        .is_none_or(|asked| asked == script)
}

/// Checks what the order of the index does not.
fn fits(row: &Execution, query: &ExecutionQuery) -> bool {
    let same =
        |asked: &Option<String>, found: &str| asked.as_ref().is_none_or(|asked| asked == found);
    query
        .tenant_id
        .as_ref()
        .is_none_or(|id| *id == row.tenant_id)
        && query.id.is_none_or(|id| id == row.id)
        && same(&query.ticket_id, &row.ticket_id)
        && same(&query.script_name, &row.script_name)
        && (query.actor.is_none() || query.actor == row.actor)
        && (query.statuses.is_empty() || query.statuses.contains(&row.status))
        && (query.idempotency_key.is_none() || query.idempotency_key == row.idempotency_key)
        && query
            .lease_before
            .is_none_or(|before| row.lease_until.is_some_and(|until| until < before))
}
