//! The rows of the memory backend and what the writes do to them. Knows neither locks nor tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};

use crate::execution::{Event, Execution, ExecutionId, InstanceId, TenantId};
use crate::stats::ScriptStats;
use crate::status::Status;
use crate::storage::cursor::{Place, place};
use crate::storage::write::{self, Found};
use crate::storage::{
    Applied, Change, Claim, Record, RecordKind, Transition, Write, WriteError, held,
};

/// Executions in the order of lists, oldest first.
pub(super) type Index = BTreeSet<Place>;
pub(super) type RecordKey = (TenantId, RecordKind, String);

/// All rows, their indexes and the sums over them.
#[derive(Default)]
pub(super) struct State {
    pub(super) executions: HashMap<ExecutionId, Arc<Execution>>,
    pub(super) all: Index,
    pub(super) open: Index,
    pub(super) by_tenant: HashMap<TenantId, Index>,
    pub(super) by_ticket: HashMap<(TenantId, String), Index>,
    /// Each holds one place.
    pub(super) by_key: HashMap<(TenantId, String), Index>,
    pub(super) events: HashMap<ExecutionId, BTreeMap<u32, Event>>,
    pub(super) records: BTreeMap<RecordKey, Record>,
    pub(super) days: BTreeMap<(TenantId, NaiveDate, String), ScriptStats>,
}

/// What the writes of one call did so far.
pub(super) struct Call {
    /// How to take it back; left empty when there is only one write, which does all or nothing by itself.
    undo: Vec<Undo>,
    undoable: bool,
    /// The executions that it ended, to be counted once all went well.
    ended: Vec<Arc<Execution>>,
}

/// How to take one write back.
pub(super) enum Undo {
    Insert(ExecutionId),
    Change(Arc<Execution>),
    Append(ExecutionId, u32),
    Record(RecordKey, Option<Record>),
    Prune(Arc<Execution>, BTreeMap<u32, Event>),
}

impl Call {
    fn of(writes: usize) -> Self {
        Self {
            undo: Vec::new(),
            undoable: writes > 1,
            ended: Vec::new(),
        }
    }

    pub(super) fn did(&mut self, undo: impl FnOnce() -> Undo) {
        if self.undoable {
            self.undo.push(undo());
        }
    }
}

impl State {
    /// Applies the writes of one call, all or none.
    pub(super) fn commit(&mut self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        let count = writes.len();
        let mut call = Call::of(count);
        let mut answers = Vec::with_capacity(count);
        for write in writes {
            match self.apply(write, &mut call) {
                Ok(applied) => answers.push(Ok(applied)),
                Err(error) => {
                    for undo in call.undo.into_iter().rev() {
                        self.undo(undo);
                    }
                    return write::none_applied(count, answers.len(), error);
                }
            }
        }
        self.count(&call.ended);
        answers
    }

    fn apply(&mut self, write: Write, call: &mut Call) -> Result<Applied, WriteError> {
        match write {
            Write::Insert(execution) => self.insert(*execution, call),
            Write::Transition(transition) => self.transition(*transition, call),
            Write::Claim(claim) => Ok(self.claim(&claim, call)),
            Write::Renew {
                instance,
                lease_until,
            } => Ok(self.renew(&instance, held::time(lease_until), call)),
            Write::Append(event) => self.append(event, call),
            Write::Put { record, expected } => self.put(record, expected, call),
            Write::Delete { record } => self.delete(&record, call),
            Write::Prune(prune) => self.prune(&prune, call),
        }
    }

    fn insert(&mut self, mut execution: Execution, call: &mut Call) -> Result<Applied, WriteError> {
        write::check_first_status(&execution)?;
        if self.executions.contains_key(&execution.id) {
            return Err(write::existing_execution(execution.id));
        }
        if let Some(key) = &execution.idempotency_key
            && self
                .by_key
                .contains_key(&(execution.tenant_id.clone(), key.clone()))
        {
            return Err(write::existing_key(key));
        }
        held::execution(&mut execution);
        call.did(|| Undo::Insert(execution.id));
        self.index(&execution);
        self.executions.insert(execution.id, Arc::new(execution));
        Ok(Applied::Inserted)
    }

    pub(super) fn index(&mut self, execution: &Execution) {
        let (place, tenant) = (place(execution), &execution.tenant_id);
        let ticket = (tenant.clone(), execution.ticket_id.clone());
        self.all.insert(place);
        self.open.insert(place);
        self.by_tenant
            .entry(tenant.clone())
            .or_default()
            .insert(place);
        self.by_ticket.entry(ticket).or_default().insert(place);
        if let Some(key) = execution.idempotency_key.clone() {
            let index = Index::from([place]);
            self.by_key.insert((tenant.clone(), key), index);
        }
    }

    fn transition(
        &mut self,
        transition: Transition,
        call: &mut Call,
    ) -> Result<Applied, WriteError> {
        let row = self
            .executions
            .get_mut(&transition.id)
            .filter(|row| row.tenant_id == transition.tenant_id)
            .ok_or_else(|| transition.missing())?;
        transition.check(Found {
            epoch: row.epoch,
            status: row.status,
        })?;
        call.did(|| Undo::Change(Arc::clone(row)));
        let changed = Arc::make_mut(row);
        match transition.change {
            Change::Run {
                claimed_by,
                lease_until,
                isolation,
            } => {
                changed.status = Status::Running;
                changed.reason = None;
                changed.isolation = isolation;
                changed.claimed_by = Some(claimed_by);
                changed.lease_until = Some(held::time(lease_until));
            }
            Change::Wait { reason, run_at } => {
                changed.reason = reason;
                changed.run_at = run_at.map(held::time);
                (changed.claimed_by, changed.lease_until) = (None, None);
                changed.epoch += 1;
            }
            Change::End(mut completion) => {
                held::completion(&mut completion);
                changed.end(completion);
                let place = place(changed);
                call.ended.push(Arc::clone(row));
                self.open.remove(&place);
            }
        }
        Ok(Applied::Transitioned)
    }

    fn claim(&mut self, claim: &Claim, call: &mut Call) -> Applied {
        let now = held::time(claim.now);
        let mut due: Vec<_> = self
            .open
            .iter()
            .map(|(_, id)| &self.executions[id])
            .filter(|row| row.tenant_id == claim.tenant_id && is_due(row, now))
            .map(|row| (std::cmp::Reverse(row.priority), row.run_at, row.id))
            .collect();
        due.sort_unstable();
        due.truncate(claim.rows_max);
        let taken = due.into_iter().map(|(.., id)| {
            self.change(id, call, |row| {
                row.claimed_by = Some(claim.instance.clone());
                row.lease_until = Some(held::time(claim.lease_until));
                row.epoch += 1;
            })
        });
        Applied::Claimed(taken.collect())
    }

    fn renew(
        &mut self,
        instance: &InstanceId,
        lease_until: DateTime<Utc>,
        call: &mut Call,
    ) -> Applied {
        let shorter = |row: &Execution| row.lease_until.is_some_and(|until| until < lease_until);
        let held: Vec<_> = self
            .open
            .iter()
            .map(|(_, id)| &self.executions[id])
            .filter(|row| row.claimed_by.as_ref() == Some(instance) && shorter(row))
            .map(|row| row.id)
            .collect();
        for id in &held {
            self.change(*id, call, |row| row.lease_until = Some(lease_until));
        }
        Applied::Renewed(held.len())
    }

    /// Changes an open row that stays open.
    fn change(
        &mut self,
        id: ExecutionId,
        call: &mut Call,
        change: impl FnOnce(&mut Execution),
    ) -> Execution {
        let row = self
            .executions
            .get_mut(&id)
            .expect("every indexed execution is there");
        call.did(|| Undo::Change(Arc::clone(row)));
        change(Arc::make_mut(row));
        row.as_ref().clone()
    }

    fn append(&mut self, mut event: Event, call: &mut Call) -> Result<Applied, WriteError> {
        let id = event.execution_id;
        if self.execution(&event.tenant_id, id).is_none() {
            return Err(write::missing_execution(id));
        }
        let events = self.events.entry(id).or_default();
        if events.contains_key(&event.seq) {
            return Err(write::existing_event(&event));
        }
        held::event(&mut event);
        call.did(|| Undo::Append(id, event.seq));
        events.insert(event.seq, event);
        Ok(Applied::Appended)
    }

    fn put(
        &mut self,
        mut record: Record,
        expected: Option<u64>,
        call: &mut Call,
    ) -> Result<Applied, WriteError> {
        let key = key_of(&record);
        record.check_revision(self.records.get(&key).map(|old| old.revision), expected)?;
        record.revision = expected.unwrap_or(0) + 1;
        let revision = record.revision;
        let old = self.records.insert(key.clone(), record);
        call.did(|| Undo::Record(key, old));
        Ok(Applied::Stored { revision })
    }

    fn delete(&mut self, record: &Record, call: &mut Call) -> Result<Applied, WriteError> {
        let key = key_of(record);
        let found = self.records.get(&key).map(|old| old.revision);
        record.check_revision(found, Some(record.revision))?;
        let old = self.records.remove(&key);
        call.did(|| Undo::Record(key, old));
        Ok(Applied::Deleted)
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Insert(id) => {
                self.remove(id);
            }
            Undo::Change(old) => {
                self.open.insert(place(&old));
                self.executions.insert(old.id, old);
            }
            Undo::Append(id, seq) => {
                self.events.entry(id).or_default().remove(&seq);
            }
            Undo::Record(key, Some(old)) => {
                self.records.insert(key, old);
            }
            Undo::Record(key, None) => {
                self.records.remove(&key);
            }
            Undo::Prune(row, events) => self.put_back(row, events),
        }
    }

    /// Takes an execution out of the rows and their indexes.
    pub(super) fn remove(&mut self, id: ExecutionId) -> Arc<Execution> {
        let row = self
            .executions
            .remove(&id)
            .expect("every execution that is removed is there");
        let place = place(&row);
        self.all.remove(&place);
        self.open.remove(&place);
        self.by_tenant
            .entry(row.tenant_id.clone())
            .or_default()
            .remove(&place);
        let ticket = (row.tenant_id.clone(), row.ticket_id.clone());
        self.by_ticket.entry(ticket).or_default().remove(&place);
        if let Some(key) = row.idempotency_key.clone() {
            self.by_key.remove(&(row.tenant_id.clone(), key));
        }
        row
    }

    fn count(&mut self, ended: &[Arc<Execution>]) {
        for row in ended {
            let day = row
                .completed_at
                .expect("an ended execution has its end")
                .date_naive();
            let key = (row.tenant_id.clone(), day, row.script_name.clone());
            if row.trigger.is_counted() {
                self.days.entry(key).or_default().add(row);
            }
        }
    }
}

pub(super) fn key_of(record: &Record) -> RecordKey {
    (record.tenant_id.clone(), record.kind, record.key.clone())
}

fn is_due(row: &Execution, now: DateTime<Utc>) -> bool {
    row.status == Status::Starting
        && row.run_at.is_some_and(|at| at <= now)
        && row.lease_until.is_none_or(|until| until <= now)
}
