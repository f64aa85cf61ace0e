//! Pruning in memory.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::state::{Call, State, Undo, key_of};
use crate::execution::{Event, Execution, ExecutionId, TenantId};
use crate::stats::ScriptStats;
use crate::storage::cursor::{Place, place};
use crate::storage::prune::{self, Stretch};
use crate::storage::tally::{Day, Tally};
use crate::storage::{Applied, Prune, Record, RecordKind, StorageError, WriteError};

impl State {
    /// Deletes executions that fit, and counts them as pruned.
    pub(super) fn prune(&mut self, prune: &Prune, call: &mut Call) -> Result<Applied, WriteError> {
        let begin = prune
            .begin()?
            .or_else(|| self.next_tenant(None).map(Stretch::of));
        let Some(stretch) = begin else {
            return Ok(Applied::Pruned {
                rows: 0,
                next: None,
            });
        };
        let looked_at = self.oldest_ended(&stretch, prune);
        let kept = self.named_by_open(&stretch.tenant);
        let rows: Vec<_> = looked_at
            .iter()
            .filter(|(_, id)| !kept.contains(id) && prune.takes(&self.executions[id]))
            .map(|(_, id)| Arc::clone(&self.executions[id]))
            .collect();
        self.add_totals(&prune::counted(rows.iter().map(AsRef::as_ref)), call)?;
        for row in &rows {
            self.forget(row, call);
        }
        let next = match prune.goes_on(&stretch, &looked_at) {
            None if prune.tenant_id.is_none() => self
                .next_tenant(Some(&stretch.tenant))
                .map(Stretch::cursor_of),
            next => next,
        };
        Ok(Applied::Pruned {
            rows: rows.len(),
            next,
        })
    }

    /// Returns the first tenant with executions behind another.
    fn next_tenant(&self, behind: Option<&TenantId>) -> Option<TenantId> {
        let with_rows = self.by_tenant.iter().filter(|(_, index)| !index.is_empty());
        with_rows
            .map(|(tenant, _)| tenant)
            .filter(|tenant| behind.is_none_or(|behind| behind < tenant))
            .min()
            .cloned()
    }

    fn oldest_ended(&self, stretch: &Stretch, prune: &Prune) -> Vec<Place> {
        let begin = stretch.after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = (prune.until(), ExecutionId::from_uuid(Uuid::nil()));
        // A range that ends before it begins is none.
        let is_empty = stretch.after.is_some_and(|after| after >= end);
        let index = self.by_tenant.get(&stretch.tenant).filter(|_| !is_empty);
        index
            .into_iter()
            .flat_map(|index| index.range((begin, Bound::Excluded(end))))
            .filter(|(_, id)| self.executions[id].status.is_terminal())
            .take(prune.rows_max())
            .copied()
            .collect()
    }

    /// Returns the executions that open ones name as root or parent.
    fn named_by_open(&self, tenant: &TenantId) -> HashSet<ExecutionId> {
        let open = self.open.iter().map(|(_, id)| &self.executions[id]);
        open.filter(|row| row.tenant_id == *tenant)
            .flat_map(|row| row.root_id.into_iter().chain(row.parent_id))
            .collect()
    }

    /// Stores all totals, or none.
    fn add_totals(&mut self, counted: &Tally, call: &mut Call) -> Result<(), WriteError> {
        let totals = counted.days().map(|(day, sums)| self.total(day, sums));
        let totals = totals.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
        for record in totals {
            let key = key_of(&record);
            let old = self.records.insert(key.clone(), record);
            call.did(|| Undo::Record(key, old));
        }
        Ok(())
    }

    fn total(&self, day: &Day, sums: &ScriptStats) -> Result<Record, String> {
        let (tenant_id, kind, key) = (day.0.clone(), RecordKind::Pruned, prune::key(day));
        let old = self.record(&tenant_id, kind, &key);
        Ok(Record {
            value: prune::add(old.as_ref().map(|old| &old.value), sums)?,
            revision: old.map_or(0, |old| old.revision) + 1,
            tenant_id,
            kind,
            key,
        })
    }

    fn forget(&mut self, row: &Arc<Execution>, call: &mut Call) {
        let (first, behind) = prune::own_keys(row.id);
        for kind in RecordKind::ALL {
            let bound = |key: &String| (row.tenant_id.clone(), *kind, key.clone());
            let own = self.records.range(bound(&first)..bound(&behind));
            let own: Vec<_> = own.map(|(key, _)| key.clone()).collect();
            for key in own {
                let old = self.records.remove(&key);
                call.did(|| Undo::Record(key, old));
            }
        }
        let events = self.events.remove(&row.id).unwrap_or_default();
        self.remove(row.id);
        call.did(|| Undo::Prune(Arc::clone(row), events));
    }

    /// Takes back that an execution was deleted.
    pub(super) fn put_back(&mut self, row: Arc<Execution>, events: BTreeMap<u32, Event>) {
        self.index(&row);
        self.open.remove(&place(&row));
        if !events.is_empty() {
            self.events.insert(row.id, events);
        }
        self.executions.insert(row.id, row);
    }
}

fn unusable(detail: String) -> WriteError {
    let backend = "memory";
    StorageError::Unusable { backend, detail }.into()
}
