//! A version that can't be contained is kept out of this process: found, recorded, shown, released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::executor::{
    CancelToken, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, FnExecutor,
    Inspection, Invocation, Outcome,
};
use automation_core::storage::{
    Applied, ExecutionQuery, Record, RecordKind, StorageCapabilities, StorageError, Write,
    WriteError,
};
use automation_core::{
    Automation, AutomationBuilder, BuildError, Classification, Concern, Consequence, ErrorKind,
    Event, Execution, ExecutionId, InstanceId, Isolation, Listing, ManualRequest, MemoryStorage,
    Page, Reason, Script, ScriptRegistry, SqliteStorage, Stats, StatsQuery, Status, Storage,
    TenantId, Ticket, Trigger,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::support::*;

/// An executor each of whose runs shows this concern.
fn concerning(concern: Concern, count: &Arc<AtomicUsize>) -> FnExecutor {
    let count = Arc::clone(count);
    FnExecutor::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut outcome = printing("{}");
        outcome.concern = Some(concern);
        async { outcome }
    })
}

async fn run(automation: &Automation, script: &str) -> Execution {
    automation.manual(ManualRequest::new(script)).await.unwrap()
}

/// Both executors, their counts, and a handle.
struct TwoPlaces {
    inside: Arc<AtomicUsize>,
    outside: Arc<AtomicUsize>,
}

impl TwoPlaces {
    fn new() -> Self {
        Self {
            inside: Arc::default(),
            outside: Arc::default(),
        }
    }

    fn builder(&self, storage: &Arc<dyn Storage>, concern: Concern) -> AutomationBuilder {
        builder(concerning(concern, &self.inside), storage)
            .isolated_executor(counting(&self.outside))
    }

    fn counts(&self) -> (usize, usize) {
        let count = |of: &AtomicUsize| of.load(Ordering::SeqCst);
        (count(&self.inside), count(&self.outside))
    }
}

#[tokio::test]
async fn a_concern_routes_the_version_to_the_isolated_executor_from_then_on() {
    for concern in Concern::ALL {
        let (storage, places) = (memory(), TwoPlaces::new());
        let automation = places.builder(&storage, *concern).build().unwrap();
        assert_eq!(automation.quarantined().await.unwrap(), []);
        let first = run(&automation, "plain.py").await;
        assert_eq!(
            (first.isolation, first.concern),
            (Isolation::InProcess, Some(*concern))
        );
        let second = run(&automation, "plain.py").await;
        assert_eq!(
            (second.isolation, second.concern),
            (Isolation::Process, None)
        );
        assert_eq!(places.counts(), (1, 1));
        assert_eq!(
            automation.get(second.id).await.unwrap(),
            second,
            "the answer is the row"
        );

        let [known] = &automation.quarantined().await.unwrap()[..] else {
            panic!("one version is in quarantine")
        };
        let version = automation.script("plain.py").unwrap().version().to_string();
        assert_eq!(
            (known.script_name.as_str(), &known.script_version),
            ("plain.py", &version)
        );
        assert_eq!((known.concern, known.execution_id), (*concern, first.id));
        assert_eq!(known.consequence, Consequence::Isolated);
        assert_eq!(
            automation.health().await.quarantined,
            std::slice::from_ref(known)
        );

        let routed = || {
            let route = automation.route(&Ticket::new("T-1"), &Classification::new("Device Slow"));
            route.unwrap().concern
        };
        assert_eq!(routed(), None);
        let other = automation.execute(ticket_request()).await.unwrap();
        assert_eq!(
            other.isolation,
            Isolation::InProcess,
            "others are not affected"
        );
        assert_eq!(routed(), Some(*concern));
    }
}

#[tokio::test]
async fn a_quarantine_survives_a_restart_and_ends_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let open = async || Arc::new(SqliteStorage::open(&file).await.unwrap()) as Arc<dyn Storage>;
    let places = TwoPlaces::new();
    let storage = open().await;
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .build()
        .unwrap();
    run(&automation, "plain.py").await;
    let known = automation.quarantined().await.unwrap();
    automation.shutdown(Duration::ZERO).await.unwrap();
    drop(automation);

    let storage = open().await;
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .build()
        .unwrap();
    let again = run(&automation, "plain.py").await;
    assert_eq!(
        (again.isolation, places.counts()),
        (Isolation::Process, (1, 1))
    );
    assert_eq!(automation.quarantined().await.unwrap(), known);

    let changed = Script::parse("plain.py", b"# another version\n").unwrap();
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .scripts(ScriptRegistry::from_scripts([changed]))
        .build()
        .unwrap();
    let changed = run(&automation, "plain.py").await;
    assert_eq!(changed.isolation, Isolation::InProcess);
}

#[tokio::test]
async fn a_release_is_durable_and_the_next_concern_counts_anew() {
    let (storage, places) = (memory(), TwoPlaces::new());
    let automation = places
        .builder(&storage, Concern::Contaminated)
        .build()
        .unwrap();
    let version = automation.script("plain.py").unwrap().version().to_string();
    for by in ["plain.py", version.as_str()] {
        let cause = run(&automation, "plain.py").await;
        let released = automation.release(by, Some("ana")).await.unwrap();
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].execution_id, cause.id);
        assert_eq!(automation.quarantined().await.unwrap(), []);
        let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
        assert_eq!(storage.record(&tenant, kind, &version).await.unwrap(), None);
    }
    assert_eq!(
        run(&automation, "plain.py").await.isolation,
        Isolation::InProcess
    );
    assert_eq!(
        run(&automation, "plain.py").await.isolation,
        Isolation::Process
    );
}

#[tokio::test]
async fn a_release_that_means_nothing_is_refused() {
    let (storage, places) = (memory(), TwoPlaces::new());
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .build()
        .unwrap();
    let kind = async |script: &str, actor: Option<&str>| {
        automation.release(script, actor).await.unwrap_err().kind()
    };
    assert_eq!(kind("absent.py", None).await, ErrorKind::ScriptNotFound);
    assert_eq!(kind("plain.py", None).await, ErrorKind::Conflict);
    assert_eq!(kind("plain.py", Some("")).await, ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn without_an_isolated_executor_only_crashes_are_refused() {
    for concern in Concern::ALL {
        let (storage, count) = (memory(), Arc::default());
        let automation = builder(concerning(*concern, &count), &storage)
            .build()
            .unwrap();
        run(&automation, "plain.py").await;
        let consequence = automation.quarantined().await.unwrap()[0].consequence;
        let second = automation.manual(ManualRequest::new("plain.py")).await;
        if *concern == Concern::Crashed {
            assert_eq!(consequence, Consequence::Refused);
            let error = second.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(
                text.contains("plain.py") && text.contains("crashed") && text.contains("release"),
                "{text}"
            );
            assert_eq!(count.load(Ordering::SeqCst), 1);
            automation.release("plain.py", None).await.unwrap();
            assert_eq!(run(&automation, "plain.py").await.status, Status::Completed);
        } else {
            assert_eq!(consequence, Consequence::Tolerated);
            assert_eq!(second.unwrap().isolation, Isolation::InProcess);
            assert_eq!(count.load(Ordering::SeqCst), 2);
        }
    }
}

#[tokio::test]
async fn a_run_that_waits_goes_where_its_version_belongs_when_it_is_dispatched() {
    let (storage, release, outside) = (memory(), Arc::new(Notify::new()), Arc::default());
    let gate = Arc::clone(&release);
    let executor = FnExecutor::new(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            let mut outcome = printing("{}");
            outcome.concern = Some(Concern::Abandoned);
            outcome
        }
    });
    let automation = builder(executor, &storage)
        .isolated_executor(counting(&outside))
        .executions_max(1)
        .build()
        .unwrap();
    let start = || {
        let automation = automation.clone();
        tokio::spawn(async move { run(&automation, "plain.py").await })
    };
    let first = start();
    until(async || (all(&storage).await.len() == 1).then_some(())).await;
    let waiting = start();
    let waits = until(async || {
        let rows = all(&storage).await;
        rows.into_iter().find(|row| row.status == Status::Starting)
    });
    assert_eq!(
        waits.await.isolation,
        Isolation::InProcess,
        "where it would run then"
    );
    release.notify_one();
    assert_eq!(first.await.unwrap().isolation, Isolation::InProcess);
    // Were it in this process after all, it would not have to wait.
    release.notify_one();
    let waited = waiting.await.unwrap();
    assert_eq!(
        (waited.isolation, outside.load(Ordering::SeqCst)),
        (Isolation::Process, 1)
    );
    assert_eq!(automation.get(waited.id).await.unwrap(), waited);
}

/// An executor of a process whose predecessor died.
#[derive(Debug)]
struct AfterCrash {
    inner: FnExecutor,
    crashed: Arc<Mutex<Vec<ExecutionId>>>,
}

#[async_trait]
impl Executor for AfterCrash {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }

    async fn execute(
        &self,
        invocation: Invocation,
        cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError> {
        self.inner.execute(invocation, cancel).await
    }

    fn inspect(&self, script: &Script) -> Result<Inspection, ExecutorError> {
        self.inner.inspect(script)
    }

    fn crashed_runs(&self) -> Vec<ExecutionId> {
        self.crashed.lock().clone()
    }

    fn forget_crashes(&self, runs: &[ExecutionId]) {
        self.crashed
            .lock()
            .retain(|crashed| !runs.contains(crashed));
    }

    async fn health(&self) -> ExecutorHealth {
        self.inner.health().await
    }

    async fn shutdown(&self, grace: Duration) -> Result<(), ExecutorError> {
        self.inner.shutdown(grace).await
    }
}

/// Records a run of `plain.py` that the process before left open, of another tenant; returns it.
async fn left_open(storage: &Arc<dyn Storage>) -> Execution {
    let version = Script::parse("plain.py", b"")
        .unwrap()
        .version()
        .to_string();
    let id = ExecutionId::from_uuid(Uuid::now_v7());
    let long_ago = chrono::DateTime::UNIX_EPOCH;
    let mut row = Execution::new(id, "plain.py", version, Trigger::Manual, long_ago);
    row.tenant_id = TenantId::new("other");
    row.status = Status::Running;
    row.claimed_by = Some(InstanceId::new("before"));
    row.lease_until = Some(long_ago);
    let answers = storage
        .commit(vec![Write::Insert(Box::new(row.clone()))])
        .await;
    assert!(answers[0].is_ok(), "{answers:?}");
    row
}

fn after_crash(storage: &Arc<dyn Storage>, crashed: Vec<ExecutionId>) -> AutomationBuilder {
    after_crashes(storage, &Arc::new(Mutex::new(crashed)))
}

/// `crashed` is what the executor reports, and what is left of it.
fn after_crashes(
    storage: &Arc<dyn Storage>,
    crashed: &Arc<Mutex<Vec<ExecutionId>>>,
) -> AutomationBuilder {
    let executor = AfterCrash {
        inner: counting(&Arc::default()),
        crashed: Arc::clone(crashed),
    };
    Automation::builder()
        .scripts(scripts())
        .executor(executor)
        .shared_storage(Arc::clone(storage))
}

#[tokio::test]
async fn the_version_during_whose_run_a_process_died_is_kept_out_before_anything_runs() {
    let storage = memory();
    let row = left_open(&storage).await;
    let unknown = ExecutionId::from_uuid(Uuid::now_v7());
    let automation = after_crash(&storage, vec![unknown, row.id])
        .build()
        .unwrap();
    let error = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let known = automation.quarantined().await.unwrap();
    assert_eq!(
        (known.len(), known[0].concern, known[0].execution_id),
        (1, Concern::Crashed, row.id)
    );
    let ended = until(async || {
        let found = storage.get(&row.tenant_id, row.id).await.unwrap();
        found.status.is_terminal().then_some(found)
    });
    let ended = ended.await;
    assert_eq!(
        (ended.reason, ended.concern),
        (Some(Reason::Orphaned), Some(Concern::Crashed))
    );
}

/// The storage is away, and the process ends again: its successor still learns of the crash.
#[tokio::test]
async fn a_crash_is_reported_until_it_is_recorded() {
    let inner = memory();
    let row = left_open(&inner).await;
    let unknown = ExecutionId::from_uuid(Uuid::now_v7());
    let crashed = Arc::new(Mutex::new(vec![unknown, row.id]));
    for fails_at in 1..8 {
        let away = FaultyStorage::new(Arc::clone(&inner), fails_at, Fault::Refused);
        let away: Arc<dyn Storage> = Arc::new(away.for_calls(usize::MAX - 8));
        let automation = after_crashes(&away, &crashed).build().unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(automation);
        let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
        let record = inner.record(&tenant, kind, &row.script_version).await;
        let is_reported = crashed.lock().contains(&row.id);
        assert!(is_reported || record.unwrap().is_some(), "{fails_at}");
    }
    let automation = after_crashes(&inner, &crashed).build().unwrap();
    until(async || crashed.lock().is_empty().then_some(())).await;
    let known = automation.quarantined().await.unwrap();
    assert_eq!((known.len(), known[0].concern), (1, Concern::Crashed));
}

#[tokio::test]
async fn a_crash_weighs_more_than_what_is_known() {
    let (storage, count) = (memory(), Arc::default());
    let before = builder(concerning(Concern::Abandoned, &count), &storage)
        .build()
        .unwrap();
    run(&before, "plain.py").await;
    let row = left_open(&storage).await;
    let automation = after_crash(&storage, vec![row.id]).build().unwrap();
    let known = automation.quarantined().await.unwrap();
    assert_eq!(
        (known.len(), known[0].concern, known[0].execution_id),
        (1, Concern::Crashed, row.id)
    );
    let restarted = after_crash(&storage, Vec::new()).build().unwrap();
    assert_eq!(
        restarted.quarantined().await.unwrap(),
        known,
        "it is recorded"
    );
}

#[tokio::test]
async fn a_crash_that_was_released_is_not_found_again() {
    let storage = memory();
    let row = left_open(&storage).await;
    let automation = after_crash(&storage, vec![row.id])
        .lease(Duration::from_secs(1))
        .build()
        .unwrap();
    automation.release("plain.py", None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        automation.quarantined().await.unwrap(),
        [],
        "leases were renewed twice"
    );
    run(&automation, "plain.py").await;
}

/// Fails each call of the storage in turn: a crash is never forgotten, and nothing runs before it is known.
#[tokio::test]
async fn a_storage_that_fails_at_start_forgets_no_crash() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for n in 1..12 {
            let inner = memory();
            let row = left_open(&inner).await;
            let faulty: Arc<dyn Storage> =
                Arc::new(FaultyStorage::new(Arc::clone(&inner), n, fault));
            let automation = after_crash(&faulty, vec![row.id]).build().unwrap();
            let error = automation
                .manual(ManualRequest::new("plain.py"))
                .await
                .unwrap_err();
            let refused = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Storage);
            assert!(refused, "{fault:?} {n}: {error}");
            let known = until(async || automation.quarantined().await.ok()).await;
            assert_eq!(
                (known.len(), known[0].execution_id),
                (1, row.id),
                "{fault:?} {n}"
            );
            let recorded = async || {
                let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
                inner
                    .record(&tenant, kind, &row.script_version)
                    .await
                    .unwrap()
            };
            until(recorded).await;
        }
    }
}

#[tokio::test]
async fn a_quarantine_that_could_not_be_recorded_holds_and_is_recorded_later() {
    let (inner, places) = (memory(), TwoPlaces::new());
    // The start, the version and the row pass; what follows is refused for a while.
    let away = FaultyStorage::new(Arc::clone(&inner), 6, Fault::Refused).for_calls(3);
    let storage: Arc<dyn Storage> = Arc::new(away);
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .lease(Duration::from_secs(1))
        .build()
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    run(&automation, "plain.py").await;
    until(async || automation.health().await.is_ready().then_some(())).await;
    assert_eq!(
        run(&automation, "plain.py").await.isolation,
        Isolation::Process
    );
    let version = automation.script("plain.py").unwrap().version().to_string();
    let recorded = async || {
        let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
        inner.record(&tenant, kind, &version).await.unwrap()
    };
    until(recorded).await;
}

#[tokio::test]
async fn instances_on_one_storage_learn_of_each_other() {
    let (storage, first, second) = (memory(), TwoPlaces::new(), TwoPlaces::new());
    let lease = Duration::from_secs(1);
    let build = |places: &TwoPlaces| {
        let builder = places.builder(&storage, Concern::Abandoned);
        builder.lease(lease).build().unwrap()
    };
    let (one, other) = (build(&first), build(&second));
    assert_eq!(other.quarantined().await.unwrap(), []);
    run(&one, "plain.py").await;
    let known = one.quarantined().await.unwrap();
    let knows = async |expected: &[_]| {
        until(async || (other.quarantined().await.unwrap() == expected).then_some(())).await;
    };
    knows(&known).await;
    one.release("plain.py", None).await.unwrap();
    knows(&[]).await;
}

/// A storage whose records can't be read before they may be, and in which another instance is faster.
#[derive(Debug)]
struct Records {
    inner: MemoryStorage,
    /// As often as records may be read.
    may_read: Semaphore,
    /// What another instance writes just before the next write of this kind of ours.
    faster: Mutex<Option<Write>>,
}

impl Records {
    fn new(inner: MemoryStorage, may_read: usize) -> Self {
        Self {
            inner,
            may_read: Semaphore::new(may_read),
            faster: Mutex::default(),
        }
    }
}

#[async_trait]
impl Storage for Records {
    fn capabilities(&self) -> StorageCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, writes: Vec<Write>) -> Vec<Result<Applied, WriteError>> {
        if matches!(writes[..], [Write::Put { .. }]) {
            let faster = self.faster.lock().take();
            self.inner.commit(faster.into_iter().collect()).await;
        }
        self.inner.commit(writes).await
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
        self.may_read.acquire().await.unwrap().forget();
        self.inner.records(tenant, kind, page).await
    }

    async fn stats(&self, query: &StatsQuery) -> Result<Stats, StorageError> {
        self.inner.stats(query).await
    }

    async fn health(&self) -> Result<String, StorageError> {
        self.inner.health().await
    }

    async fn close(&self) -> Result<(), StorageError> {
        self.inner.close().await
    }
}

#[tokio::test]
async fn no_run_slips_into_the_process_while_the_records_are_read() {
    let (inner, places) = (MemoryStorage::new(), TwoPlaces::new());
    let before: Arc<dyn Storage> = Arc::new(inner.clone());
    run(
        &places
            .builder(&before, Concern::MemoryLimit)
            .build()
            .unwrap(),
        "plain.py",
    )
    .await;

    let slow = Arc::new(Records::new(inner, 0));
    let storage: Arc<dyn Storage> = Arc::<Records>::clone(&slow);
    let automation = places
        .builder(&storage, Concern::MemoryLimit)
        .build()
        .unwrap();
    let early = tokio::spawn(async move { run(&automation, "plain.py").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(places.counts(), (1, 0), "it waits");
    // The quarantine and the stops.
    slow.may_read.add_permits(2);
    assert_eq!(early.await.unwrap().isolation, Isolation::Process);
    assert_eq!(places.counts(), (1, 1));
}

#[tokio::test]
async fn p5_holds_while_the_records_can_not_be_read() {
    let storage: Arc<dyn Storage> = Arc::new(Records::new(MemoryStorage::new(), 0));
    let row = left_open(&storage).await;
    let _automation = after_crash(&storage, vec![row.id]).build().unwrap();
    let ended = until(async || {
        let found = storage.get(&row.tenant_id, row.id).await.unwrap();
        found.status.is_terminal().then_some(found)
    });
    assert_eq!(ended.await.concern, Some(Concern::Crashed));
}

#[tokio::test]
async fn a_crash_is_recorded_over_what_another_instance_found_at_the_same_time() {
    let inner = MemoryStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(inner.clone());
    let weaker = builder(concerning(Concern::Abandoned, &Arc::default()), &storage);
    let weaker = weaker.build().unwrap();
    run(&weaker, "plain.py").await;
    let row = left_open(&storage).await;
    let (tenant, kind) = (TenantId::default(), RecordKind::Quarantine);
    let record = async || {
        let found = inner.record(&tenant, kind, &row.script_version).await;
        found.unwrap()
    };
    let weak = until(record).await;
    weaker.release("plain.py", None).await.unwrap();

    let records = Records::new(inner.clone(), 1000);
    *records.faster.lock() = Some(Write::Put {
        record: weak,
        expected: None,
    });
    let storage: Arc<dyn Storage> = Arc::new(records);
    let automation = after_crash(&storage, vec![row.id])
        .lease(Duration::from_secs(1))
        .build()
        .unwrap();
    let known = automation.quarantined().await.unwrap();
    assert_eq!((known.len(), known[0].concern), (1, Concern::Crashed));
    until(async || {
        let value = record().await?.value;
        (value["concern"] == "crashed").then_some(())
    })
    .await;
    assert_eq!(automation.quarantined().await.unwrap(), known);
}

#[tokio::test]
async fn metadata_and_the_builder_isolate_without_a_concern() {
    let (storage, places) = (memory(), TwoPlaces::new());
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .isolate_all(true)
        .build()
        .unwrap();
    assert_eq!(
        run(&automation, "plain.py").await.isolation,
        Isolation::Process
    );
    assert_eq!(places.counts(), (0, 1));

    let source = b"# /// script\n# [tool.automation]\n# isolation = \"process\"\n# ///\n";
    let script = Script::parse("apart.py", source).unwrap();
    let automation = places
        .builder(&storage, Concern::Abandoned)
        .scripts(ScriptRegistry::from_scripts([script]))
        .build()
        .unwrap();
    assert_eq!(
        run(&automation, "apart.py").await.isolation,
        Isolation::Process
    );
    assert_eq!(automation.quarantined().await.unwrap(), []);

    let missing = builder(counting(&Arc::default()), &storage)
        .isolate_all(true)
        .build();
    assert!(
        matches!(
            missing,
            Err(BuildError::Missing {
                part: "isolated_executor"
            })
        ),
        "{missing:?}"
    );
}
