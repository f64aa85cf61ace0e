//! What the writes of a transaction do, decided here: against the rows that were read and locked for it, and against
//! each other. Pure; knows no SQL.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::value::text;
use crate::execution::{
    Completion, Event, Execution, ExecutionId, InstanceId, Isolation, Reason, TenantId, Trigger,
};
use crate::status::Status;
use crate::storage::tally::{Ended, Tally};
use crate::storage::write::{self, Found};
use crate::storage::{Applied, Change, Record, RecordKind, Transition, Write, WriteError};

/// Which record.
pub(super) type RecordKey = (TenantId, RecordKind, String);

/// What is known of an execution that writes are about.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) tenant_id: TenantId,
    pub(super) found: Found,
    pub(super) trigger: Trigger,
    pub(super) dry_run: bool,
    pub(super) ticket_id: String,
    pub(super) script_name: String,
    /// Whether it is a ticket run, or repeats one.
    pub(super) of_ticket: bool,
}

/// The rows that writes are about: those that are there.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) executions: HashMap<ExecutionId, Known>,
    pub(super) keys: HashSet<(TenantId, String)>,
    pub(super) events: HashSet<(ExecutionId, u32)>,
    pub(super) records: HashMap<RecordKey, u64>,
}

/// A dispatch.
#[derive(Debug)]
pub(super) struct Run<'w> {
    pub(super) id: ExecutionId,
    pub(super) claimed_by: &'w InstanceId,
    pub(super) lease_until: DateTime<Utc>,
    pub(super) isolation: Isolation,
}

/// A change of what an execution waits for.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) id: ExecutionId,
    pub(super) reason: Option<Reason>,
    pub(super) run_at: Option<DateTime<Utc>>,
    /// The epoch that it gets.
    pub(super) epoch: i64,
}

/// A ticket run that completed.
#[derive(Debug)]
pub(super) struct Resolution<'w> {
    pub(super) execution_id: ExecutionId,
    pub(super) tenant_id: TenantId,
    pub(super) ticket_id: String,
    pub(super) script_name: String,
    pub(super) output: Option<&'w serde_json::Value>,
    pub(super) at: DateTime<Utc>,
}

/// What becomes of a record: its value and revision, or nothing where it is deleted.
pub(super) type Stored<'w> = Option<(&'w serde_json::Value, u64)>;

/// What is to be written, each list in the order of the writes.
#[derive(Debug, Default)]
pub(super) struct Changes<'w> {
    pub(super) inserts: Vec<&'w Execution>,
    /// The last one of each execution, before whatever else happened to it.
    pub(super) waits: BTreeMap<ExecutionId, Wait>,
    pub(super) runs: Vec<Run<'w>>,
    pub(super) ends: Vec<(ExecutionId, &'w Completion)>,
    pub(super) events: Vec<&'w Event>,
    /// In one order for all, and whether the record was there before.
    pub(super) records: BTreeMap<RecordKey, (Stored<'w>, bool)>,
    pub(super) tally: Tally,
    pub(super) resolutions: Vec<Resolution<'w>>,
}

impl Changes<'_> {
    /// Returns whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.inserts.is_empty()
            && self.waits.is_empty()
            && self.runs.is_empty()
            && self.ends.is_empty()
            && self.events.is_empty()
            && self.records.is_empty()
    }
}

/// How to take back what a write did to the rows.
enum Undo {
    Execution(ExecutionId, Option<Known>),
    Key((TenantId, String)),
    Event((ExecutionId, u32)),
    Record(RecordKey, Option<u64>),
}

/// What one call did so far.
#[derive(Default)]
struct Call<'w> {
    undo: Vec<Undo>,
    inserts: Vec<&'w Execution>,
    waits: Vec<Wait>,
    runs: Vec<Run<'w>>,
    ends: Vec<(ExecutionId, &'w Completion, Known)>,
    events: Vec<&'w Event>,
    records: Vec<(RecordKey, Stored<'w>)>,
}

/// The answers of one call.
pub(super) type Answers = Vec<Result<Applied, WriteError>>;

impl Rows {
    /// Applies the writes of one call, all or none. Only writes about single rows.
    pub(super) fn apply<'w>(&mut self, writes: &'w [Write], changes: &mut Changes<'w>) -> Answers {
        let mut call = Call::default();
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            match self.apply_one(write, &mut call) {
                Ok(applied) => answers.push(Ok(applied)),
                Err(error) => {
                    call.undo.into_iter().rev().for_each(|undo| self.undo(undo));
                    return write::none_applied(writes.len(), answers.len(), error);
                }
            }
        }
        changes.take(call);
        answers
    }

    fn apply_one<'w>(
        &mut self,
        write: &'w Write,
        call: &mut Call<'w>,
    ) -> Result<Applied, WriteError> {
        match write {
            Write::Insert(execution) => self.insert(execution, call),
            Write::Transition(transition) => self.transition(transition, call),
            Write::Append(event) => self.append(event, call),
            Write::Put { record, expected } => self.put(record, *expected, call),
            Write::Delete { record } => self.delete(record, call),
            Write::Claim(_) | Write::Renew { .. } | Write::Prune(_) => {
                unreachable!("such writes are about rows that only the database knows")
            }
        }
    }

    fn insert<'w>(
        &mut self,
        execution: &'w Execution,
        call: &mut Call<'w>,
    ) -> Result<Applied, WriteError> {
        write::check_first_status(execution)?;
        if self.executions.contains_key(&execution.id) {
            return Err(write::existing_execution(execution.id));
        }
        if let Some(key) = &execution.idempotency_key {
            let taken = (execution.tenant_id.clone(), text(key).into_owned());
            if !self.keys.insert(taken.clone()) {
                return Err(write::existing_key(key));
            }
            call.undo.push(Undo::Key(taken));
        }
        self.know(execution.id, Known::of(execution), call);
        call.inserts.push(execution);
        Ok(Applied::Inserted)
    }

    fn transition<'w>(
        &mut self,
        transition: &'w Transition,
        call: &mut Call<'w>,
    ) -> Result<Applied, WriteError> {
        let (id, tenant) = (transition.id, &transition.tenant_id);
        let mut known = self
            .of_tenant(tenant, id)
            .cloned()
            .ok_or_else(|| transition.missing())?;
        transition.check(known.found)?;
        known.found.status = transition.change.to();
        match &transition.change {
            Change::Run {
                claimed_by,
                lease_until,
                isolation,
            } => call.runs.push(Run {
                id,
                claimed_by,
                lease_until: *lease_until,
                isolation: *isolation,
            }),
            Change::Wait { reason, run_at } => {
                known.found.epoch += 1;
                call.waits.push(Wait {
                    id,
                    reason: *reason,
                    run_at: *run_at,
                    epoch: known.found.epoch,
                });
            }
            Change::End(end) => call.ends.push((id, end, known.clone())),
        }
        self.know(id, known, call);
        Ok(Applied::Transitioned)
    }

    fn append<'w>(&mut self, event: &'w Event, call: &mut Call<'w>) -> Result<Applied, WriteError> {
        let id = event.execution_id;
        if self.of_tenant(&event.tenant_id, id).is_none() {
            return Err(write::missing_execution(id));
        }
        if !self.events.insert((id, event.seq)) {
            return Err(write::existing_event(event));
        }
        call.undo.push(Undo::Event((id, event.seq)));
        call.events.push(event);
        Ok(Applied::Appended)
    }

    fn put<'w>(
        &mut self,
        record: &'w Record,
        expected: Option<u64>,
        call: &mut Call<'w>,
    ) -> Result<Applied, WriteError> {
        let key = record_key(record);
        record.check_revision(self.records.get(&key).copied(), expected)?;
        let revision = expected.unwrap_or(0) + 1;
        let before = self.records.insert(key.clone(), revision);
        call.undo.push(Undo::Record(key.clone(), before));
        call.records.push((key, Some((&record.value, revision))));
        Ok(Applied::Stored { revision })
    }

    fn delete<'w>(
        &mut self,
        record: &'w Record,
        call: &mut Call<'w>,
    ) -> Result<Applied, WriteError> {
        let key = record_key(record);
        record.check_revision(self.records.get(&key).copied(), Some(record.revision))?;
        let before = self.records.remove(&key);
        call.undo.push(Undo::Record(key.clone(), before));
        call.records.push((key, None));
        Ok(Applied::Deleted)
    }

    fn of_tenant(&self, tenant: &TenantId, id: ExecutionId) -> Option<&Known> {
        let known = self.executions.get(&id);
        known.filter(|known| known.tenant_id == *tenant)
    }

    fn know(&mut self, id: ExecutionId, known: Known, call: &mut Call<'_>) {
        let before = self.executions.insert(id, known);
        call.undo.push(Undo::Execution(id, before));
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Execution(id, Some(known)) => {
                self.executions.insert(id, known);
            }
            Undo::Execution(id, None) => {
                self.executions.remove(&id);
            }
            Undo::Key(key) => {
                self.keys.remove(&key);
            }
            Undo::Event(event) => {
                self.events.remove(&event);
            }
            Undo::Record(key, Some(revision)) => {
                self.records.insert(key, revision);
            }
            Undo::Record(key, None) => {
                self.records.remove(&key);
            }
        }
    }
}

impl Known {
    fn of(execution: &Execution) -> Self {
        Self {
            tenant_id: execution.tenant_id.clone(),
            found: Found {
                epoch: execution.epoch,
                status: execution.status,
            },
            trigger: execution.trigger,
            dry_run: execution.dry_run,
            ticket_id: execution.ticket_id.clone(),
            script_name: execution.script_name.clone(),
            of_ticket: execution.is_of_ticket(),
        }
    }

    /// Returns whether such an end resolves the ticket.
    fn resolves(&self, end: &Completion) -> bool {
        self.of_ticket && end.status == Status::Completed && !self.dry_run
    }
}

impl<'w> Changes<'w> {
    /// Adds what a call did.
    fn take(&mut self, call: Call<'w>) {
        // The first change of a record says whether it was there before.
        let mut was_there: HashMap<_, _> = HashMap::new();
        for undo in call.undo {
            if let Undo::Record(key, before) = undo {
                was_there.entry(key).or_insert(before.is_some());
            }
        }
        for (key, stored) in call.records {
            let before = was_there[&key];
            self.records.entry(key).or_insert((None, before)).0 = stored;
        }
        self.inserts.extend(call.inserts);
        let waits = call.waits.into_iter().map(|wait| (wait.id, wait));
        self.waits.extend(waits);
        self.runs.extend(call.runs);
        self.events.extend(call.events);
        for (id, end, known) in call.ends {
            self.ends.push((id, end));
            let counted = Ended::new(
                &known.tenant_id,
                known.script_name.clone(),
                known.trigger,
                end,
            );
            counted.into_iter().for_each(|ended| self.tally.add(ended));
            if known.resolves(end) {
                self.resolutions.push(Resolution {
                    execution_id: id,
                    tenant_id: known.tenant_id,
                    ticket_id: known.ticket_id,
                    script_name: known.script_name,
                    output: end.parsed_output.as_ref(),
                    at: end.completed_at,
                });
            }
        }
    }
}

/// Returns which record it is, as the database knows it.
pub(super) fn record_key(record: &Record) -> RecordKey {
    let key = text(&record.key).into_owned();
    (record.tenant_id.clone(), record.kind, key)
}
