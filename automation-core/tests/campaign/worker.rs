//! An engine in a process of its own, under load until it dies: killed by whoever started it, or at a named point.

use std::future::ready;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use automation_core::conformance::fault::FaultyStorage;
use automation_core::storage::{
    Applied, Change, ExecutionQuery, Record, RecordKind, StorageCapabilities, StorageError, Write,
    WriteError,
};
use automation_core::{
    Event, Execution, ExecutionId, Listing, Page, Stats, StatsQuery, Storage, TenantId,
};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use crate::load::{self, Callers};
use crate::scene::{Place, Scene, patiently};

/// Names the order that a worker gets.
const ORDER: &str = "CAMPAIGN_ORDER";
/// Callers of a worker. As many as are dispatched at once, so that the spool can be written to by many.
pub(crate) const CALLERS: u64 = 16;
/// Time in which a worker comes to its point, or is killed all the same.
const POINT_MAX: Duration = Duration::from_secs(3);

/// Where a worker kills itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Point {
    /// Before the row of a run is committed.
    BeforeRow,
    /// When it is, before the engine is told; so before the script.
    AfterRow,
    /// In a script.
    InScript,
    /// After the end of a script, before it is committed.
    BeforeEnd,
    /// When the end is committed, before the engine is told.
    AfterEnd,
    /// Before an end is committed that an earlier process left open, or left in the spool.
    BeforeRecovery,
    /// When such an end is committed, before the engine is told.
    AfterRecovery,
    /// In the middle of a write to the spool, while the storage is away.
    InSpool,
}

impl Point {
    pub(crate) const ALL: [Self; 8] = [
        Self::BeforeRow,
        Self::AfterRow,
        Self::InScript,
        Self::BeforeEnd,
        Self::AfterEnd,
        Self::BeforeRecovery,
        Self::AfterRecovery,
        Self::InSpool,
    ];

    /// Whether it is met without any run.
    const fn is_in_recovery(self) -> bool {
        matches!(self, Self::BeforeRecovery | Self::AfterRecovery)
    }
}

/// What a worker does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) place: Place,
    pub(crate) folder: PathBuf,
    pub(crate) spool: PathBuf,
    /// The name of its requests, which no other worker of the scene has.
    pub(crate) name: String,
    /// Where it dies by itself, and at the how-manieth time, from 1; for the spool, at which byte of a place.
    pub(crate) death: Option<(Point, u64)>,
}

impl Order {
    pub(crate) fn of(scene: &Scene, name: impl Into<String>) -> Self {
        Self {
            place: scene.place.clone(),
            folder: scene.folder.clone(),
            spool: scene.spool.clone(),
            name: name.into(),
            death: None,
        }
    }

    /// Starts the worker.
    pub(crate) fn start(&self) -> Worker {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "worker::works_until_it_dies",
                "--ignored",
                "--nocapture",
            ])
            .env(ORDER, serde_json::to_string(self).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Worker(command.spawn().unwrap())
    }
}

/// The process; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Worker(Child);

impl Worker {
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }

    /// Stops it; returns when none of its threads does anything any more.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.0.id());
        let begun = Instant::now();
        while !std::fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        }) {
            assert!(begun.elapsed() < POINT_MAX, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for it to die at its point; returns whether it did.
    pub(crate) fn dies(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < POINT_MAX {
            if let Some(status) = self.0.try_wait().unwrap() {
                let signal = status.signal();
                let by = [Signal::KILL, Signal::XFSZ].map(|signal| Some(signal.as_raw()));
                assert!(by.contains(&signal), "a worker ended by itself: {status}");
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        false
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of other tests"]
#[expect(clippy::disallowed_methods, reason = "a test is no library")]
async fn works_until_it_dies() {
    let order: Order = serde_json::from_str(&std::env::var(ORDER).unwrap()).unwrap();
    let mut scene = Scene::new(order.place.clone(), &order.folder);
    scene.spool.clone_from(&order.spool);
    let death = Arc::new(Death::new(order.death));
    let storage = scene.place.open().await;
    let dying: Arc<dyn Storage> = Arc::new(Dying {
        inner: storage,
        death: Arc::clone(&death),
    });
    let away = Arc::new(FaultyStorage::switched(dying));
    let ledger = scene.ledger();
    let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&away);
    let automation = patiently(|| {
        let in_script = Arc::clone(&death);
        let in_script = move || in_script.meets(Point::InScript);
        let engine = load::engine(Arc::clone(&shared), &ledger, in_script);
        ready(engine.spool(&scene.spool).build())
    })
    .await;
    if order.death.is_some_and(|(point, _)| point.is_in_recovery()) {
        std::future::pending::<()>().await;
    }
    let callers = Callers::start(&automation, &ledger, &order.name, CALLERS);
    if let Some((Point::InSpool, bytes)) = order.death {
        callers.wait_for(20).await;
        limit_files(scene.spool_byte(bytes));
        away.set_away(true);
    }
    std::future::pending::<()>().await;
}

/// Lets the process be killed by a write behind this byte of any file; what is before it is written.
fn limit_files(bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        ..getrlimit(Resource::Fsize)
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

impl Scene {
    /// Returns where in the spool a byte of one of its first places is.
    fn spool_byte(&self, byte: u64) -> u64 {
        const PLACES: u64 = 8;
        let length = std::fs::metadata(&self.spool).unwrap().len();
        let place = length / u64::try_from(load::EXECUTIONS_MAX).unwrap();
        byte % (PLACES * place)
    }
}

/// The point at which the process dies.
#[derive(Debug)]
struct Death {
    point: Option<Point>,
    left: AtomicU64,
}

impl Death {
    fn new(death: Option<(Point, u64)>) -> Self {
        Self {
            point: death.map(|(point, _)| point),
            left: AtomicU64::new(death.map_or(0, |(_, times)| times)),
        }
    }

    /// Dies, if this is the point and the time.
    fn meets(&self, point: Point) {
        if self.point == Some(point) && self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            kill_process(getpid(), Signal::KILL).unwrap();
            loop {
                std::thread::park();
            }
        }
    }
}

/// A storage in which the process dies.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn Storage>,
    death: Arc<Death>,
}

impl Dying {
    /// Returns the points around a commit. Without callers every end is one of recovery.
    fn points(&self, writes: &[Write]) -> Option<[Point; 2]> {
        let in_recovery = self.death.point.is_some_and(Point::is_in_recovery);
        writes.iter().find_map(|write| match write {
            Write::Insert(_) => Some([Point::BeforeRow, Point::AfterRow]),
            Write::Transition(moved) if matches!(moved.change, Change::End(_)) => {
                Some(if in_recovery {
                    [Point::BeforeRecovery, Point::AfterRecovery]
                } else {
                    [Point::BeforeEnd, Point::AfterEnd]
                })
            }
            _ => None,
        })
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Storage for Dying {
    fn capabilities(&self) -> StorageCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        let points = self.points(&writes);
        if let Some([before, _]) = points {
            self.death.meets(before);
        }
        let answers = self.inner.commit(writes).await;
        if let Some([_, after]) = points {
            self.death.meets(after);
        }
        answers
    }

    async fn get(&self, tenant: &TenantId, id: ExecutionId) -> Result<Execution, StorageError> {
        self.inner.get(tenant, id).await
    }

    async fn list(
        &self,
        query: &ExecutionQuery,
        page: &Page,
    ) -> Result<Listing<Execution>, StorageError> {
        self.inner.list(query, page).await
    }

    async fn events(
        &self,
        tenant: &TenantId,
        id: ExecutionId,
        page: &Page,
    ) -> Result<Listing<Event>, StorageError> {
        self.inner.events(tenant, id, page).await
    }

    async fn record(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<Record>, StorageError> {
        self.inner.record(tenant, kind, key).await
    }

    async fn records(
        &self,
        tenant: &TenantId,
        kind: RecordKind,
        page: &Page,
    ) -> Result<Listing<Record>, StorageError> {
        self.inner.records(tenant, kind, page).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        self.inner.stats(query).await
    }

    async fn health(&self) -> Result<String, StorageError> {
        self.inner.health().await
    }

    async fn back_up(&self, to: &Path) -> Result<u64, StorageError> {
        self.inner.back_up(to).await
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.inner.close().await
    }
}
