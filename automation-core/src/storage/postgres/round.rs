//! One round of the writer: calls in one transaction, what happens when it fails, and how it becomes known whether a
//! commit was applied whose answer was lost.
//!
//! Each writer has a row in `automation_writers` with the number of its last round, changed by the first statement of
//! each transaction. Who locks that row waits for a commit of ours that the server still has in hand, and reads its
//! outcome, on the primary of the moment; a transaction of an earlier connection can't begin any more.

use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool};
use tokio_postgres::Row;
use uuid::Uuid;

use super::changes::{Answers, Changes, Rows};
use super::claims;
use super::error::Failure;
use super::lookup::Lookup;
use super::pipeline::Pipeline;
use super::resolution::{self, Resolutions};
use super::row::get;
use super::{apply, prune, session};
use crate::storage::{Applied, StorageError, Write, WriteError, write};

/// How long a lost connection is tried to be replaced until it is known whether its last commit was applied.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// Pause between tries.
const RESOLVE_PAUSE: Duration = Duration::from_millis(100);
/// How often a round may collide with other servers' transactions, and be tried again at once.
const COLLISIONS_MAX: usize = 10;
/// How often a connection may be lost under a round, and the round be tried again on another one.
const LOSSES_MAX: usize = 1;
/// For how long nobody tries to reach a server that could not be reached: callers are told so at once.
const AWAY: Duration = Duration::from_millis(200);

/// Commits rounds of calls.
#[derive(Debug)]
pub(super) struct Rounds {
    pool: Pool,
    writer: Uuid,
    session: Option<Session>,
    /// When the server could not be reached the last time, and why.
    away: Option<(Instant, Failure)>,
}

/// One connection that writes.
#[derive(Debug)]
struct Session {
    client: Object,
    resolutions: Resolutions,
    /// The last round that was committed.
    round: i64,
}

/// Why a round was not committed.
#[derive(Debug)]
enum Stop {
    /// Nothing of it is in the database.
    Failed(Failure),
    /// A resolution may be why; nothing of it is in the database.
    Resolution(Failure),
    /// The connection was lost; nothing of it is in the database.
    Lost(Failure),
    /// The connection was lost during the commit of round `round`; the answers hold if it was applied.
    Unknown {
        failure: Failure,
        round: i64,
        answers: Vec<Answers>,
    },
}

/// How to record the resolutions of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// All with one statement, sent with all others.
    Together,
    /// One by one, each with a way back.
    Apart,
}

const JOIN_SQL: &str = "\
INSERT INTO automation_writers (id, round) VALUES ($1, 0) ON CONFLICT DO NOTHING";
const ROUND_SQL: &str = "SELECT round FROM automation_writers WHERE id = $1 FOR UPDATE";
const NEXT_SQL: &str = "\
UPDATE automation_writers SET round = $2 + 1, seen_at = now() WHERE id = $1 AND round = $2 RETURNING round";
const LEAVE_SQL: &str =
    "DELETE FROM automation_writers WHERE id = $1 OR seen_at < now() - interval '30 days'";

impl Rounds {
    /// Begins on the connections of a pool.
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            writer: Uuid::now_v7(),
            session: None,
            away: None,
        }
    }

    /// Connects, and checks the tables.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        let session = self.session().await?;
        session::check_tables(&session.client).await
    }

    /// Commits the calls together; a call that breaks the transaction is told apart from the others.
    pub(super) async fn commit(&mut self, calls: &[&[Write]]) -> Vec<Answers> {
        match self.until_known(calls).await {
            Ok(answers) => answers,
            Err(failure) if calls.len() > 1 && failure.is_of_what_was_asked() => {
                let mut answers = Vec::with_capacity(calls.len());
                for call in calls.chunks(1) {
                    let known = self.until_known(call).await;
                    answers.extend(known.unwrap_or_else(|failure| failed(call, &failure)));
                }
                answers
            }
            Err(failure) => failed(calls, &failure),
        }
    }

    /// Gives the writer's row back.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        if let Some(session) = self.session.take() {
            session.client.execute(LEAVE_SQL, &[&self.writer]).await?;
        }
        Ok(())
    }

    /// Tries until the round is committed, or is known not to be.
    async fn until_known(&mut self, calls: &[&[Write]]) -> Result<Vec<Answers>, Failure> {
        let (mut manner, mut collisions, mut losses) = (Manner::Together, 0, 0);
        loop {
            let stop = match self.attempt(calls, manner).await {
                Ok(answers) => return Ok(answers),
                Err(stop) => stop,
            };
            match stop {
                Stop::Failed(failure) if failure.is_collision() && collisions < COLLISIONS_MAX => {
                    collisions += 1;
                }
                Stop::Resolution(failure) if manner == Manner::Together => {
                    tracing::warn!(%failure, "resolutions are recorded one by one: the table refused one");
                    manner = Manner::Apart;
                }
                Stop::Failed(failure) | Stop::Resolution(failure) => return Err(failure),
                // A connection that the server has closed meanwhile is replaced at once.
                Stop::Lost(_) if losses < LOSSES_MAX => losses += 1,
                Stop::Lost(failure) => return Err(failure),
                Stop::Unknown {
                    failure,
                    round,
                    answers,
                } => match self.resolve(round).await {
                    Some(true) => return Ok(answers),
                    // What breaks the server each time must not do so for ever.
                    Some(false) if losses < LOSSES_MAX => losses += 1,
                    Some(false) => return Err(failure),
                    None => return Err(unknown(&failure)),
                },
            }
        }
    }

    /// Returns whether a round was applied; `None` when the server does not come back in time.
    async fn resolve(&mut self, round: i64) -> Option<bool> {
        let begin = Instant::now();
        loop {
            match self.session().await {
                Ok(session) => return Some(session.round >= round),
                Err(failure) => {
                    tracing::warn!(%failure, "whether a commit was applied is not known yet");
                    if begin.elapsed() > RESOLVE_MAX {
                        return None;
                    }
                }
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
        }
    }

    /// Returns the session, a new one where there is none. A new one knows the last round that was applied.
    async fn session(&mut self) -> Result<&mut Session, Failure> {
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.client.is_closed())
        {
            self.session = None;
        }
        if self.session.is_none() {
            self.session = Some(self.connect().await?);
        }
        Ok(self
            .session
            .as_mut()
            .expect("it was set where it was missing"))
    }

    async fn connect(&mut self) -> Result<Session, Failure> {
        if let Some((at, failure)) = &self.away
            && at.elapsed() < AWAY
        {
            return Err(failure.clone());
        }
        let connected = match self.pool.get().await {
            Ok(client) => Session::begin(client, self.writer).await,
            Err(error) => Err(error.into()),
        };
        let away = connected.as_ref().err().cloned();
        self.away = away.map(|failure| (Instant::now(), failure));
        connected
    }

    async fn attempt(&mut self, calls: &[&[Write]], manner: Manner) -> Result<Vec<Answers>, Stop> {
        let writer = self.writer;
        let session = self.session().await.map_err(before)?;
        let attempt = session.attempt(writer, calls, manner).await;
        if let Err(Stop::Lost(_) | Stop::Unknown { .. }) = &attempt
            && let Some(session) = self.session.take()
        {
            // Not back into the pool: the server may still work on what was sent.
            drop(Object::take(session.client));
        }
        attempt
    }
}

/// Answers every write of the calls with the failure.
fn failed(calls: &[&[Write]], failure: &Failure) -> Vec<Answers> {
    let error = || Err(WriteError::Storage(StorageError::from(failure.clone())));
    calls
        .iter()
        .map(|writes| writes.iter().map(|_| error()).collect())
        .collect()
}

fn unknown(failure: &Failure) -> Failure {
    Failure::Away(format!(
        "the connection was lost during a commit, and whether it was applied is not known yet: {failure}"
    ))
}

impl Session {
    async fn begin(client: Object, writer: Uuid) -> Result<Self, Failure> {
        Ok(Self {
            round: last_round(&client, writer).await?,
            resolutions: Resolutions::describe(&client).await?,
            client,
        })
    }

    /// Tries to commit the calls.
    async fn attempt(
        &mut self,
        writer: Uuid,
        calls: &[&[Write]],
        manner: Manner,
    ) -> Result<Vec<Answers>, Stop> {
        let round = self.round + 1;
        let attempt = Attempt {
            session: self,
            writer,
            manner,
        };
        let ended = match calls {
            [call] if call.iter().any(is_about_unknown_rows) => attempt.one_by_one(call).await,
            calls => attempt.together(calls).await,
        };
        match ended {
            Ok((answers, true)) => {
                self.round = round;
                Ok(answers)
            }
            Ok((answers, false)) => Ok(answers),
            Err(stop) => {
                if !matches!(stop, Stop::Lost(_) | Stop::Unknown { .. }) {
                    self.roll_back().await.map_err(Stop::Lost)?;
                }
                Err(stop)
            }
        }
    }

    async fn roll_back(&self) -> Result<(), Failure> {
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }
}

/// Returns the last round that was applied; waits for one that the server still has in hand.
async fn last_round(client: &Object, writer: Uuid) -> Result<i64, Failure> {
    let mut pipeline = Pipeline::new(client);
    pipeline.add(JOIN_SQL, vec![Box::new(writer)]).await?;
    let place = pipeline.add(ROUND_SQL, vec![Box::new(writer)]).await?;
    let answers = pipeline.send().await.map_err(|failed| failed.failure)?;
    match &answers[place][..] {
        [row] => get(row, "round"),
        _ => Err(Failure::Away("the row of this writer is gone".to_owned())),
    }
}

/// Returns whether a write is about rows that only the database knows, and so can't be decided here.
pub(super) fn is_about_unknown_rows(write: &Write) -> bool {
    matches!(
        write,
        Write::Claim(_) | Write::Renew { .. } | Write::Prune(_)
    )
}

/// A try to commit a round.
struct Attempt<'s> {
    session: &'s Session,
    writer: Uuid,
    manner: Manner,
}

/// Answers, and whether anything was committed.
type Ended = (Vec<Answers>, bool);

impl Attempt<'_> {
    /// Calls about single rows: read what is there, decide, write; two journeys.
    async fn together(self, calls: &[&[Write]]) -> Result<Ended, Stop> {
        let mut pipeline = Pipeline::new(&self.session.client);
        let next = self.begin(&mut pipeline).await.map_err(before)?;
        let mut lookup = Lookup::default();
        calls
            .iter()
            .copied()
            .flatten()
            .for_each(|write| lookup.add(write));
        let places = lookup.ask(&mut pipeline).await.map_err(before)?;
        let found = pipeline
            .send()
            .await
            .map_err(|failed| before(failed.failure))?;
        self.check_next(&found[next])?;

        let mut rows = places.read(&found).map_err(Stop::Failed)?;
        let mut changes = Changes::default();
        let answers: Vec<_> = calls
            .iter()
            .map(|call| rows.apply(call, &mut changes))
            .collect();
        if changes.is_empty() {
            self.session.roll_back().await.map_err(Stop::Lost)?;
            return Ok((answers, false));
        }
        self.finish(&changes, answers).await
    }

    /// One call with claims or renewals: write by write, each of which sees those before it.
    async fn one_by_one(self, writes: &[Write]) -> Result<Ended, Stop> {
        let mut pipeline = Pipeline::new(&self.session.client);
        let next = self.begin(&mut pipeline).await.map_err(before)?;
        let found = pipeline
            .send()
            .await
            .map_err(|failed| before(failed.failure))?;
        self.check_next(&found[next])?;
        let mut answers = Vec::with_capacity(writes.len());
        for write in writes {
            match self.one(write).await? {
                Ok(applied) => answers.push(Ok(applied)),
                Err(error) => {
                    self.session.roll_back().await.map_err(Stop::Lost)?;
                    let answers = write::none_applied(writes.len(), answers.len(), error);
                    return Ok((vec![answers], false));
                }
            }
        }
        self.finish(&Changes::default(), vec![answers]).await
    }

    async fn one(&self, write: &Write) -> Result<Result<Applied, WriteError>, Stop> {
        let mut pipeline = Pipeline::new(&self.session.client);
        match write {
            Write::Claim(claim) => {
                let place = claims::claim(&mut pipeline, claim).await.map_err(before)?;
                let answers = pipeline
                    .send()
                    .await
                    .map_err(|failed| before(failed.failure))?;
                Ok(Ok(claims::claimed(&answers[place]).map_err(Stop::Failed)?))
            }
            Write::Renew {
                instance,
                lease_until,
            } => {
                let place = claims::renew(&mut pipeline, instance, *lease_until);
                let place = place.await.map_err(before)?;
                let answers = pipeline
                    .send()
                    .await
                    .map_err(|failed| before(failed.failure))?;
                Ok(Ok(claims::renewed(&answers[place]).map_err(Stop::Failed)?))
            }
            Write::Prune(write) => prune::prune(&self.session.client, write)
                .await
                .map_err(before),
            write => self.single_row(write, pipeline).await,
        }
    }

    async fn single_row(
        &self,
        write: &Write,
        mut pipeline: Pipeline<'_>,
    ) -> Result<Result<Applied, WriteError>, Stop> {
        let mut lookup = Lookup::default();
        lookup.add(write);
        let places = lookup.ask(&mut pipeline).await.map_err(before)?;
        let found = pipeline
            .send()
            .await
            .map_err(|failed| before(failed.failure))?;
        let mut rows: Rows = places.read(&found).map_err(Stop::Failed)?;
        let mut changes = Changes::default();
        let answer = rows
            .apply(std::slice::from_ref(write), &mut changes)
            .remove(0);
        if answer.is_ok() {
            let client = &self.session.client;
            let mut pipeline = Pipeline::new(client);
            apply::add(&changes, &mut pipeline).await.map_err(before)?;
            pipeline
                .send()
                .await
                .map_err(|failed| before(failed.failure))?;
            let resolutions = &self.session.resolutions;
            let (recorded, mut refused) = resolutions.of(&changes.resolutions);
            let more = resolutions.record_each(&recorded, client).await;
            refused.extend(more.map_err(before)?);
            resolution::tell(&refused, &mut pipeline)
                .await
                .map_err(before)?;
            pipeline
                .send()
                .await
                .map_err(|failed| before(failed.failure))?;
        }
        Ok(answer)
    }

    /// Adds the begin of the transaction, and the number of the round; returns the place of the latter.
    async fn begin(&self, pipeline: &mut Pipeline<'_>) -> Result<usize, Failure> {
        pipeline.add("BEGIN", vec![]).await?;
        let (writer, round) = (self.writer, self.session.round);
        pipeline
            .add(NEXT_SQL, vec![Box::new(writer), Box::new(round)])
            .await
    }

    /// Makes the changes and commits, in one journey where resolutions are recorded together.
    async fn finish(&self, changes: &Changes<'_>, answers: Vec<Answers>) -> Result<Ended, Stop> {
        let session = self.session;
        let (recorded, mut refused) = session.resolutions.of(&changes.resolutions);
        let mut pipeline = Pipeline::new(&session.client);
        apply::add(changes, &mut pipeline).await.map_err(before)?;
        if self.manner == Manner::Together {
            resolution::tell(&refused, &mut pipeline)
                .await
                .map_err(before)?;
        }
        let own_steps = pipeline.len();
        if self.manner == Manner::Together {
            let added = session.resolutions.add(&recorded, &mut pipeline).await;
            added.map_err(Stop::Resolution)?;
        } else {
            pipeline
                .send()
                .await
                .map_err(|failed| before(failed.failure))?;
            let recorded = session
                .resolutions
                .record_each(&recorded, &session.client)
                .await;
            refused.extend(recorded.map_err(before)?);
            resolution::tell(&refused, &mut pipeline)
                .await
                .map_err(before)?;
        }
        pipeline.add("COMMIT", vec![]).await.map_err(before)?;
        let Err(failed) = pipeline.send().await else {
            return Ok((answers, true));
        };
        let is_suspect = self.manner == Manner::Together && !recorded.is_empty();
        Err(match failed.failure {
            failure if failure.is_lost() => Stop::Unknown {
                failure,
                round: session.round + 1,
                answers,
            },
            failure if is_suspect && failed.step >= own_steps => Stop::Resolution(failure),
            failure => Stop::Failed(failure),
        })
    }

    /// Makes sure that no other connection goes on in the name of this writer.
    fn check_next(&self, found: &[Row]) -> Result<(), Stop> {
        if found.len() == 1 {
            return Ok(());
        }
        let sentence = "the row of this writer has changed under it";
        Err(Stop::Lost(Failure::Away(sentence.to_owned())))
    }
}

/// A failure before the commit was sent.
fn before(failure: Failure) -> Stop {
    if failure.is_lost() {
        Stop::Lost(failure)
    } else {
        Stop::Failed(failure)
    }
}
