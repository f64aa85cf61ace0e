//! One round of the writer: the calls that wait, in one transaction, and what happens when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Statement};

use super::apply::{Refusal, Writes};
use super::error::Failure;
use super::place::Place;
use super::tally::TallyStatements;
use super::writer::{Answers, Call, Counts};
use crate::storage::tally::{Ended, Tally};
use crate::storage::{Write, WriteError, write};

/// Commits rounds of calls.
#[derive(Debug)]
pub(super) struct Rounds<'c> {
    connection: &'c Connection,
    writes: Writes<'c>,
    tally: TallyStatements<'c>,
    control: Control<'c>,
    place: Arc<Place>,
    counts: Arc<Counts>,
}

/// Why a round failed.
enum Stop {
    /// While a call was applied: it may be the call's own fault.
    Call(Failure),
    /// At the beginning or the end of the transaction.
    Transaction(Failure),
}

impl<'c> Rounds<'c> {
    /// Prepares all statements.
    pub(super) fn prepare(
        connection: &'c Connection,
        place: Arc<Place>,
        counts: Arc<Counts>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            connection,
            writes: Writes::prepare(connection)?,
            tally: TallyStatements::prepare(connection)?,
            control: Control::prepare(connection)?,
            place,
            counts,
        })
    }

    /// Commits the calls together; a call that breaks the transaction is told apart from the others.
    pub(super) fn commit(&mut self, calls: &[Call]) -> Vec<Answers> {
        self.counts
            .calls
            .fetch_add(calls.len() as u64, Ordering::Relaxed);
        match self.attempt_twice(calls) {
            Ok(answers) => answers,
            Err(Stop::Call(_)) if calls.len() > 1 => calls
                .chunks(1)
                .flat_map(|call| match self.attempt_twice(call) {
                    Ok(answers) => answers,
                    Err(stop) => self.failed(call, &stop),
                })
                .collect(),
            Err(stop) => self.failed(calls, &stop),
        }
    }

    /// Answers every write of the calls with the failure.
    fn failed(&self, calls: &[Call], stop: &Stop) -> Vec<Answers> {
        let error = || Err(WriteError::Storage(self.place.told(stop.failure().clone())));
        calls
            .iter()
            .map(|call| call.writes.iter().map(|_| error()).collect())
            .collect()
    }

    /// Tries again without resolutions when the customer's table broke the transaction.
    fn attempt_twice(&mut self, calls: &[Call]) -> Result<Vec<Answers>, Stop> {
        self.attempt(calls).or_else(|stop| {
            if self.writes.resolutions.give_up(stop.failure()) {
                self.attempt(calls)
            } else {
                Err(stop)
            }
        })
    }

    fn attempt(&mut self, calls: &[Call]) -> Result<Vec<Answers>, Stop> {
        self.place.check().map_err(Stop::Transaction)?;
        self.control.begin.execute([]).map_err(Stop::transaction)?;
        self.writes.resolutions.begin();
        let answers = self.apply_all(calls).and_then(|answers| {
            self.control.commit.execute([]).map_err(Stop::transaction)?;
            Ok(answers)
        });
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        if answers.is_err() && !self.connection.is_autocommit() {
            self.control.roll_back();
        }
        answers
    }

    fn apply_all(&mut self, calls: &[Call]) -> Result<Vec<Answers>, Stop> {
        let mut tally = Tally::default();
        let mut ended = Vec::new();
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            let answer = self.apply(&call.writes, &mut ended);
            answers.push(answer.map_err(Stop::Call)?);
            ended.drain(..).for_each(|ended| tally.add(ended));
        }
        self.tally.write(&tally).map_err(Stop::Transaction)?;
        Ok(answers)
    }

    /// Applies the writes of one call, all or none. One write that fails changes nothing by itself; several
    /// need a savepoint.
    fn apply(&mut self, writes: &[Write], ended: &mut Vec<Ended>) -> Result<Answers, Failure> {
        let several = writes.len() > 1;
        if several {
            self.control.save.execute([])?;
        }
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            match self.writes.apply(write, ended) {
                Ok(applied) => answers.push(Ok(applied)),
                Err(Refusal::Failure(failure)) => return Err(failure),
                Err(Refusal::Condition(error)) => {
                    if several {
                        self.control.take_back()?;
                    }
                    ended.clear();
                    self.writes.resolutions.forget();
                    return Ok(write::none_applied(writes.len(), answers.len(), error));
                }
            }
        }
        self.writes.resolutions.tell()?;
        if several {
            self.control.release.execute([])?;
        }
        Ok(answers)
    }
}

impl Stop {
    fn transaction(error: rusqlite::Error) -> Self {
        Self::Transaction(error.into())
    }

    const fn failure(&self) -> &Failure {
        match self {
            Self::Call(failure) | Self::Transaction(failure) => failure,
        }
    }
}

/// The statements around the writes.
#[derive(Debug)]
struct Control<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    save: Statement<'c>,
    release: Statement<'c>,
    back: Statement<'c>,
}

impl<'c> Control<'c> {
    fn prepare(connection: &'c Connection) -> Result<Self, Failure> {
        Ok(Self {
            // A deferred transaction that turns to writing fails at once, whatever the busy timeout.
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            save: connection.prepare("SAVEPOINT call")?,
            release: connection.prepare("RELEASE call")?,
            back: connection.prepare("ROLLBACK TO call")?,
        })
    }

    /// Takes back what the call did so far.
    fn take_back(&mut self) -> Result<(), Failure> {
        self.back.execute([])?;
        self.release.execute([])?;
        Ok(())
    }

    /// Takes back the round. SQLite has often done so already when it reports an error.
    fn roll_back(&mut self) {
        if let Err(error) = self.rollback.execute([]) {
            tracing::error!(%error, "a failed transaction can't be rolled back");
        }
    }
}
