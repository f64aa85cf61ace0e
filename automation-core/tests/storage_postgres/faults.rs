//! Crashes, cut connections, locks of others and broken calls: what was acknowledged stays, nothing happens twice, the
//! rest goes on.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use automation_core::storage::{
    Applied, Claim, Record, RecordKind, StorageError, Write, WriteError,
};
use automation_core::{
    ExecutionId, InstanceId, PostgresStorage, StatsQuery, Status, Storage, TenantId,
};
use chrono::TimeDelta;

use crate::cluster::{Cluster, SUPERUSER, USER, shared};
use crate::proxy::{Cut, Proxy};
use crate::rows::{
    append, differences, end, insert, is_unavailable, noon, one, open, record, ticket_run, value,
};

/// What callers were told.
#[derive(Debug, Default)]
struct Told {
    open: Mutex<HashSet<ExecutionId>>,
    done: Mutex<HashSet<ExecutionId>>,
    refused: AtomicUsize,
}

async fn commit_until(storage: Arc<PostgresStorage>, told: Arc<Told>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Acquire) {
        let run = ticket_run(&uuid::Uuid::now_v7().to_string());
        let answers = storage.commit(vec![insert(&run), append(&run)]).await;
        if answers.iter().all(Result::is_ok) {
            told.open.lock().unwrap().insert(run.id);
        } else {
            assert!(answers.iter().all(is_unavailable), "{answers:?}");
            told.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        // As the engine does: until it stands. A second try of ours may find that the first one was applied.
        loop {
            match one(&storage, end(&run, Status::Completed)).await {
                Ok(_) | Err(WriteError::Mismatch { .. }) => break,
                answer => assert!(is_unavailable(&answer), "{answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told.done.lock().unwrap().insert(run.id);
    }
}

/// How often a fault is made: a few times, or as often as the environment says.
#[expect(clippy::disallowed_methods, reason = "a test is no library")]
fn times(name: &str, few: usize) -> usize {
    std::env::var(name).map_or(few, |text| text.parse().unwrap())
}

async fn grows_by(told: &Told, count: usize) {
    let (begin, before) = (Instant::now(), told.done.lock().unwrap().len());
    while told.done.lock().unwrap().len() < before + count {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "nothing is recorded any more"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_killed_server() {
    let cluster = Cluster::start(&[]);
    let database = cluster.empty();
    let storage = Arc::new(
        PostgresStorage::connect(cluster.url(&database))
            .await
            .unwrap(),
    );
    let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        callers.spawn(commit_until(
            Arc::clone(&storage),
            Arc::clone(&told),
            Arc::clone(&stop),
        ));
    }
    for kill in 0..times("STORAGE_KILLS", 4) {
        grows_by(&told, 40 + 60 * (kill % 5)).await;
        cluster.kill();
        cluster.run();
    }
    grows_by(&told, 50).await;
    stop.store(true, Ordering::Release);
    callers.join_all().await;
    storage.close().await.unwrap();

    let client = cluster.client(&database, SUPERUSER).await;
    check(&client, &told).await;
}

async fn check(client: &tokio_postgres::Client, told: &Told) {
    let rows = client
        .query("SELECT id, status FROM automation_logs", &[])
        .await
        .unwrap();
    let found = |status: Option<&str>| -> HashSet<_> {
        let rows = rows
            .iter()
            .filter(|row| status.is_none_or(|status| status == row.get::<_, &str>(1)));
        rows.map(|row| ExecutionId::from_uuid(row.get(0))).collect()
    };
    let (open, done) = (
        told.open.lock().unwrap().clone(),
        told.done.lock().unwrap().clone(),
    );
    assert!(open.is_subset(&found(None)), "an accepted run is lost");
    assert!(done.is_subset(&found(Some("completed"))), "an end is lost");
    let torn = "SELECT count(*) FROM automation_logs AS log LEFT JOIN automation_events AS event
        ON event.execution_id = log.id WHERE event.seq IS NULL";
    assert_eq!(
        value::<i64>(client, torn).await,
        0,
        "a call is applied as a whole"
    );
    let resolved = "SELECT count(*) FROM automation_logs AS log WHERE status = 'completed' AND 1 <>
        (SELECT count(*) FROM resolutions WHERE resolutions.automation_log_id = log.id)";
    assert_eq!(
        value::<i64>(client, resolved).await,
        0,
        "each ticket is resolved once"
    );
    assert_eq!(differences(client).await, 0, "the statistics are a recount");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_anywhere_lose_nothing_and_do_nothing_twice() {
    let database = shared().database();
    let proxy = Proxy::cutting_all(&shared().folder, 7).await;
    let url = format!(
        "postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable",
        proxy.port
    );
    let storage = Arc::new(PostgresStorage::connect(url).await.unwrap());
    let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        callers.spawn(commit_until(
            Arc::clone(&storage),
            Arc::clone(&told),
            Arc::clone(&stop),
        ));
    }
    while proxy.cuts() < times("STORAGE_CUTS", 15) {
        grows_by(&told, 1).await;
    }
    stop.store(true, Ordering::Release);
    callers.join_all().await;
    let client = shared().client(&database, SUPERUSER).await;
    check(&client, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_calls_say_so_and_go_on_afterwards() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    let storage = PostgresStorage::connect(cluster.url(&database))
        .await
        .unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    cluster.kill();
    let begin = Instant::now();
    for _ in 0..20 {
        let answer = one(&storage, insert(&ticket_run("T-2"))).await;
        assert!(is_unavailable(&answer), "{answer:?}");
        let stats = storage.stats(&StatsQuery::default()).await;
        assert!(
            matches!(stats, Err(StorageError::Unavailable { .. })),
            "{stats:?}"
        );
        assert!(storage.health().await.is_err());
    }
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    cluster.run();
    let begin = Instant::now();
    while one(&storage, insert(&ticket_run("T-3"))).await.is_err() {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "it does not come back"
        );
    }
    assert_eq!(storage.stats(&StatsQuery::default()).await.unwrap().open, 1);
    let answer = PostgresStorage::connect("postgres://me@127.0.0.1:1/x").await;
    assert!(
        matches!(answer, Err(StorageError::Unavailable { .. })),
        "{answer:?}"
    );
}

/// Records a run over a connection that is cut when the round with its script's name is sent.
async fn recorded_over(cut: Cut) {
    let database = shared().database();
    let proxy = Proxy::start(&shared().folder, "cut_here.py", 0, cut).await;
    let url = format!(
        "postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable",
        proxy.port
    );
    let storage = PostgresStorage::connect(url).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;

    let mut run = ticket_run("T-2");
    run.script_name = "cut_here.py".to_owned();
    let ended = ticket_run("T-3");
    one(&storage, insert(&ended)).await.unwrap();
    let writes = vec![insert(&run), append(&run), end(&ended, Status::Completed)];
    let answers = storage.commit(writes).await;
    assert!(answers.iter().all(Result::is_ok), "{cut:?}: {answers:?}");
    assert_eq!(proxy.cuts(), 1, "{cut:?}");
    one(&storage, end(&run, Status::Completed)).await.unwrap();

    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    assert_eq!((stats.all.total, stats.open), (3, 0), "{cut:?}");
    let client = shared().client(&database, SUPERUSER).await;
    assert_eq!(differences(&client).await, 0);
    let resolutions: i64 = value(&client, "SELECT count(*) FROM resolutions").await;
    let rounds: i64 = value(&client, "SELECT round FROM automation_writers").await;
    assert_eq!(
        (resolutions, rounds),
        (3, 5),
        "{cut:?}: each round is applied once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_before_the_commit_is_tried_again() {
    recorded_over(Cut::Before).await;
    recorded_over(Cut::Half).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_counts_once() {
    recorded_over(Cut::After).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_answer_is_lost_is_made_once() {
    let cuts = [Cut::Before, Cut::Half, Cut::After];
    // While it is made, and while it is committed, which is the journey behind.
    for (later, cut) in [0, 1]
        .into_iter()
        .flat_map(|later| cuts.map(|cut| (later, cut)))
    {
        let database = shared().database();
        let proxy = Proxy::start(&shared().folder, "cut-here", later, cut).await;
        let url = format!(
            "postgres://{USER}@127.0.0.1:{}/{database}?sslmode=disable",
            proxy.port
        );
        let storage = PostgresStorage::connect(url).await.unwrap();
        let mut run = ticket_run("T-1");
        run.status = Status::Starting;
        run.run_at = Some(noon());
        one(&storage, insert(&run)).await.unwrap();
        let claim = Claim {
            tenant_id: TenantId::default(),
            instance: InstanceId::new("cut-here"),
            now: noon(),
            lease_until: noon() + TimeDelta::minutes(1),
            rows_max: 5,
        };
        let answer = one(&storage, Write::Claim(claim)).await.unwrap();
        let Applied::Claimed(taken) = answer else {
            panic!("{answer:?}")
        };
        let epochs: Vec<_> = taken.iter().map(|run| run.epoch).collect();
        assert_eq!((epochs, proxy.cuts()), (vec![2], 1), "{later} {cut:?}");
        let kept = storage.get(&run.tenant_id, run.id).await.unwrap();
        assert_eq!(kept.epoch, 2, "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ends_are_replaced() {
    let database = shared().database();
    let storage = open(&database).await;
    let client = shared().client(&database, SUPERUSER).await;
    for n in 0..5 {
        record(&storage, &ticket_run(&format!("T-{n}")), Status::Completed).await;
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(value::<i64>(&client, ended).await >= 1);
    }
    let begin = Instant::now();
    let stats = loop {
        match storage.stats(&StatsQuery::default()).await {
            Ok(stats) => break stats,
            Err(error) => assert!(
                error.is_retryable() && begin.elapsed().as_secs() < 10,
                "{error}"
            ),
        }
    };
    assert_eq!(stats.all.total, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_somebody_holds_too_long_is_told_and_harms_nothing() {
    let database = shared().database();
    let storage = open(&database).await;
    let tool = shared().client(&database, SUPERUSER).await;
    tool.batch_execute("BEGIN; LOCK TABLE automation_logs IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let answer = one(&storage, insert(&ticket_run("T-1"))).await;
    assert!(is_unavailable(&answer), "{answer:?}");
    storage
        .stats(&StatsQuery::default())
        .await
        .expect("readers do not wait");
    tool.batch_execute("COMMIT").await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_are_committed_together() {
    let storage = Arc::new(open(&shared().database()).await);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..64 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move {
            record(&storage, &ticket_run(&format!("T-{n}")), Status::Completed).await;
        });
    }
    callers.join_all().await;
    let (calls, rounds) = storage.commit_counts();
    assert_eq!(calls, 128);
    assert!(rounds <= 64, "{rounds} rounds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_places_are_all_answered() {
    let storage = Arc::new(open(&shared().database()).await);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..3_000 {
        let storage = Arc::clone(&storage);
        let run = ticket_run(&format!("T-{n}"));
        callers.spawn(async move { one(&storage, insert(&run)).await.is_ok() });
    }
    let answers = callers.join_all().await;
    assert!(answers.len() == 3_000 && answers.into_iter().all(|applied| applied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_breaks_the_transaction_is_told_apart() {
    let database = shared().database();
    shared().sql(
        &database,
        "CREATE FUNCTION bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'bad'; END $$;
         CREATE TRIGGER guard BEFORE INSERT ON automation_logs FOR EACH ROW
         WHEN (NEW.script_name = 'bad.py') EXECUTE FUNCTION bad()",
    );
    let storage = Arc::new(open(&database).await);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..40 {
        let storage = Arc::clone(&storage);
        callers.spawn(async move {
            let mut run = ticket_run(&format!("T-{n}"));
            let bad = n % 8 == 0;
            if bad {
                run.script_name = "bad.py".to_owned();
            }
            let answers = storage.commit(vec![insert(&run), append(&run)]).await;
            let broken = answers
                .iter()
                .all(|answer| matches!(answer, Err(WriteError::Storage(_))));
            assert_eq!(
                (broken, answers.iter().all(Result::is_ok)),
                (bad, !bad),
                "{n}: {answers:?}"
            );
            let there = storage.get(&run.tenant_id, run.id).await.is_ok();
            assert_eq!(there, !bad, "{n}");
        });
    }
    callers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_share_a_database_count_right_and_never_wait_for_each_other_for_ever() {
    let database = shared().database();
    let (first, second) = (
        Arc::new(open(&database).await),
        Arc::new(open(&database).await),
    );
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..200_usize {
        let storage = Arc::clone(if n % 2 == 0 { &first } else { &second });
        callers.spawn(async move {
            let runs = [0, 1].map(|k| {
                let mut run = ticket_run(&format!("T-{}", n % 7));
                run.script_name = format!("script_{}.py", (n + k) % 3);
                run
            });
            let inserts = runs.iter().map(insert).collect();
            storage
                .commit(inserts)
                .await
                .into_iter()
                .for_each(|answer| drop(answer.unwrap()));
            let ends = runs.iter().map(|run| end(run, Status::Completed)).collect();
            storage
                .commit(ends)
                .await
                .into_iter()
                .for_each(|answer| drop(answer.unwrap()));
        });
    }
    callers.join_all().await;
    let client = shared().client(&database, SUPERUSER).await;
    assert_eq!(differences(&client).await, 0);
    assert_eq!(
        second
            .stats(&StatsQuery::default())
            .await
            .unwrap()
            .all
            .total,
        400
    );
}

/// Two servers ask for the same, at the same time.
async fn both(servers: &[PostgresStorage; 2], writes: [Write; 2]) -> usize {
    let [first, second] = writes;
    let (first, second) = tokio::join!(one(&servers[0], first), one(&servers[1], second));
    usize::from(first.is_ok()) + usize::from(second.is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_that_want_the_same_one_gets_it() {
    let database = shared().database();
    let servers = [open(&database).await, open(&database).await];
    for n in 0..40 {
        let (mut run, mut twin) = (ticket_run(&format!("T-{n}")), ticket_run("T"));
        run.idempotency_key = Some(format!("key {n}"));
        twin.idempotency_key.clone_from(&run.idempotency_key);
        let ended = ticket_run("T-ended");
        one(&servers[0], insert(&ended)).await.unwrap();
        let record = Record {
            tenant_id: TenantId::default(),
            kind: RecordKind::ScriptVersion,
            key: n.to_string(),
            value: serde_json::json!(n),
            revision: 0,
        };
        let put = |expected| Write::Put {
            record: record.clone(),
            expected,
        };
        for writes in [
            [insert(&run), insert(&twin)],
            [end(&ended, Status::Completed), end(&ended, Status::Failed)],
            [put(None), put(None)],
            [put(Some(1)), put(Some(1))],
        ] {
            let case = format!("{n}: {writes:?}");
            assert_eq!(both(&servers, writes).await, 1, "{case}");
        }
    }
    let client = shared().client(&database, SUPERUSER).await;
    assert_eq!(differences(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_the_database_can_not_hold_does_not_keep_a_run_from_its_end() {
    let storage = open(&shared().database()).await;
    let mut run = ticket_run("T-1");
    run.output = "a\0b".to_owned();
    run.parameters = serde_json::json!({"x": "\0"});
    record(&storage, &run, Status::Failed).await;
    let mut second = ticket_run("T-2\0");
    second.output = "a\0b".to_owned();
    one(&storage, insert(&second)).await.unwrap();
    let kept = storage.get(&second.tenant_id, second.id).await.unwrap();
    assert_eq!(
        (&*kept.output, &*kept.ticket_id),
        ("a\u{fffd}b", "T-2\u{fffd}")
    );
}
