//! One database, one ledger and all that happens to them; afterwards an engine recovers what is left, and the checker
//! looks.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::storage::{ExecutionQuery, StorageError};
use automation_core::{
    Automation, Clock, Durability, Execution, ExecutionId, Page, PostgresStorage, Reason,
    SqliteStorage, StatsQuery, Storage, SystemClock, TenantId,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::checker::{Evidence, Violation, check};
use crate::ledger::{self, Answer, Ledger, Line, Phase};
use crate::load;

/// Longest time after a start in which something may be open whose holder is gone.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// Where runs are recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Place {
    Sqlite { file: PathBuf, is_full: bool },
    Postgres { url: String },
}

impl Place {
    /// Opens it, when whoever had it before is gone.
    pub(crate) async fn open(&self) -> Arc<dyn Storage> {
        patiently(|| self.try_open()).await
    }

    async fn try_open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(match self {
            Self::Sqlite { file, is_full } => {
                let durability = if *is_full {
                    Durability::Full
                } else {
                    Durability::Normal
                };
                let builder = SqliteStorage::builder(file).durability(durability);
                Arc::new(builder.open().await?)
            }
            Self::Postgres { url } => Arc::new(PostgresStorage::connect(url).await?),
        })
    }
}

/// Tries for a while: a program that another test starts just now holds this process's locks until it is that program.
pub(crate) async fn patiently<T, E: Debug, F>(attempt: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(made) => return made,
            Err(error) => assert!(begun.elapsed() < RECOVERY_MAX, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A clock that shows what it will be in an hour, when every lease of today is over.
#[derive(Debug)]
pub(crate) struct InAnHour;

impl Clock for InAnHour {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + Duration::from_secs(3600)
    }
}

/// What a campaign counts.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) rows: usize,
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) began: usize,
    pub(crate) orphaned: usize,
    pub(crate) looks: usize,
    pub(crate) violations: Vec<Violation>,
}

impl Sums {
    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.began += other.began;
        self.orphaned += other.orphaned;
        self.looks += other.looks;
        self.violations.extend(other.violations);
    }

    /// Counts what happened in a scene; once, at its end.
    pub(crate) fn count(&mut self, rows: &[Execution], scene: &Scene) {
        let is_orphan = |row: &&Execution| row.reason == Some(Reason::Orphaned);
        self.rows += rows.len();
        self.orphaned += rows.iter().filter(is_orphan).count();
        for line in ledger::read(&load::ledger_in(&scene.folder)) {
            match line {
                Line::Answered { .. } => self.acknowledged += 1,
                Line::Refused { .. } => self.refused += 1,
                Line::Effect { phase, .. } => self.began += usize::from(phase == Phase::Began),
            }
        }
    }

    /// Says what was counted, and fails if anything was found.
    pub(crate) fn report(&self, what: &str) {
        println!(
            "{what}: {} rows, {} scripts begun, {} acknowledged, {} refused, {} orphaned, {} looks, {} violations",
            self.rows,
            self.began,
            self.acknowledged,
            self.refused,
            self.orphaned,
            self.looks,
            self.violations.len()
        );
        assert_eq!(self.violations, [], "{what}");
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) folder: PathBuf,
    pub(crate) spool: PathBuf,
    /// Whether what is found is expected, and needs no explanation.
    pub(crate) is_expected: bool,
    earlier: BTreeMap<ExecutionId, Answer>,
}

impl Scene {
    /// A scene whose ledger is in the folder; the spool is beside the database where that is a file.
    pub(crate) fn new(place: Place, folder: &Path) -> Self {
        let spool = match &place {
            Place::Sqlite { file, .. } => file.with_added_extension("spool"),
            Place::Postgres { .. } => folder.join("spool"),
        };
        Self {
            place,
            folder: folder.to_owned(),
            spool,
            is_expected: false,
            earlier: BTreeMap::new(),
        }
    }

    /// A scene on a SQLite file in the folder.
    pub(crate) fn sqlite(folder: &Path, is_full: bool) -> Self {
        let file = folder.join("a.db");
        Self::new(Place::Sqlite { file, is_full }, folder)
    }

    /// Has the ledger elsewhere than the database.
    pub(crate) fn with_ledger_in(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::new(Ledger::open(&load::ledger_in(&self.folder)))
    }

    /// Starts an engine in this process.
    pub(crate) async fn engine(&self) -> Automation {
        let storage = self.place.open().await;
        patiently(|| {
            let engine = load::engine(Arc::clone(&storage), &self.ledger(), || {});
            ready(engine.spool(&self.spool).build())
        })
        .await
    }

    /// Recovers what is left, and adds what the checker finds to the sums. Nobody else may be at work.
    pub(crate) async fn look(&mut self, sums: &mut Sums) {
        let storage = self.place.open().await;
        let automation = patiently(|| {
            let engine = load::engine(Arc::clone(&storage), &self.ledger(), || {});
            let engine = engine.clock(Arc::new(InAnHour));
            ready(engine.spool(&self.spool).build())
        })
        .await;
        let rows = recovered_rows(&storage).await;
        self.judge(&storage, rows, sums).await;
        automation.shutdown(Duration::ZERO).await.unwrap();
    }

    /// Adds what the checker finds to the sums.
    pub(crate) async fn judge(
        &mut self,
        storage: &Arc<dyn Storage>,
        rows: Vec<Execution>,
        sums: &mut Sums,
    ) {
        let evidence = Evidence {
            lines: ledger::read(&load::ledger_in(&self.folder)),
            earlier: std::mem::take(&mut self.earlier),
            rows,
            stats: storage.stats(&StatsQuery::default()).await.unwrap(),
        };
        let found = check(&evidence);
        if !found.is_empty() && !self.is_expected {
            self.explain(&evidence, &found);
        }
        sums.violations.extend(found);
        sums.looks += 1;
        let ended = evidence.rows.iter().filter(|row| row.status.is_terminal());
        self.earlier = ended.map(|row| (row.id, Answer::of(row))).collect();
    }

    /// Adds what happened in this scene to the sums; once, at its end.
    pub(crate) async fn add_to(&self, sums: &mut Sums) {
        let storage = self.place.open().await;
        let rows = all(&storage).await;
        storage.close().await.unwrap();
        sums.count(&rows, self);
    }

    /// Says all that is known of the runs that something is wrong with.
    fn explain(&self, evidence: &Evidence, found: &[Violation]) {
        for violation in found.iter().take(5) {
            println!("{violation:?} in {:?}", self.place);
            let name = format!("{violation:?}");
            for line in &evidence.lines {
                if line
                    .concerns()
                    .is_some_and(|id| name.contains(&id.to_string()))
                {
                    println!("  {line:?}");
                }
            }
            for row in &evidence.rows {
                if name.contains(&row.id.to_string()) {
                    let output = row.output.len();
                    let mut row = row.clone();
                    row.output = format!("{output} bytes");
                    println!("  {row:?}");
                }
            }
        }
    }
}

impl Line {
    fn concerns(&self) -> Option<ExecutionId> {
        match self {
            Self::Effect { id, .. } => Some(*id),
            Self::Answered { answer, .. } => Some(answer.id),
            Self::Refused { .. } => None,
        }
    }
}

/// Waits until nothing is open, as long as that may take, and returns all rows, newest first.
pub(crate) async fn recovered_rows(storage: &Arc<dyn Storage>) -> Vec<Execution> {
    let begun = Instant::now();
    while storage.stats(&StatsQuery::default()).await.unwrap().open > 0
        && begun.elapsed() < RECOVERY_MAX
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    all(storage).await
}

/// Returns all rows, newest first.
pub(crate) async fn all(storage: &Arc<dyn Storage>) -> Vec<Execution> {
    let query = ExecutionQuery::of(TenantId::default());
    let (mut page, mut rows) = (Page::first(500), Vec::new());
    loop {
        let some = storage.list(&query, &page).await.unwrap();
        rows.extend(some.items);
        let Some(next) = some.next else {
            return rows;
        };
        page = Page::first(500).after(next);
    }
}
