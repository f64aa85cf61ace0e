//! For each n: the n-th call of the storage fails, is applied without an answer, or hangs for longer than a lease while
//! another engine takes over what it finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::{MemoryStorage, Storage};
use tokio::task::JoinSet;

use crate::load::{self, Callers};
use crate::scene::{InAnHour, Scene, Sums, recovered_rows};
use crate::times;

/// Callers; together they make the calls whose n-th one fails.
const CALLERS: u64 = 3;
/// Answers after the fault.
const FURTHER: u64 = 4;
/// Cases at the same time.
const TOGETHER: u64 = 8;
/// Time in which callers come to the call that fails.
const FAILS_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_a_storage_in_memory_fails_once() {
    sweep("memory", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_sqlite_fails_once() {
    sweep("SQLite", true).await;
}

async fn sweep(what: &str, on_disk: bool) {
    let calls = times("CAMPAIGN_CALLS", 16);
    let mut sums = Sums::default();
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::Late] {
        for first in (1..=calls).step_by(usize::try_from(TOGETHER).unwrap()) {
            let last = calls.min(first + TOGETHER - 1);
            let cases: JoinSet<_> = (first..=last).map(|n| case(n, fault, on_disk)).collect();
            for found in cases.join_all().await {
                sums.add(found);
            }
        }
    }
    sums.report(&format!(
        "{what}, each of the first {calls} calls, in 3 ways"
    ));
}

async fn case(n: u64, fault: Fault, on_disk: bool) -> Sums {
    let (folder, mut sums) = (tempfile::tempdir().unwrap(), Sums::default());
    let mut scene = Scene::sqlite(folder.path(), false);
    let inner: Arc<dyn Storage> = if on_disk {
        scene.place.open().await
    } else {
        Arc::new(MemoryStorage::default())
    };
    let fails_at = usize::try_from(n).unwrap();
    let faulty = Arc::new(FaultyStorage::new(Arc::clone(&inner), fails_at, fault));
    let ledger = scene.ledger();
    let shared: Arc<dyn Storage> = Arc::<FaultyStorage>::clone(&faulty);
    let engine = load::engine(shared, &ledger, || {}).spool(&scene.spool);
    let automation = engine.build().unwrap();
    let callers = Callers::start(&automation, &ledger, "n", CALLERS);
    let begun = Instant::now();
    while !faulty.has_failed() {
        assert!(begun.elapsed() < FAILS_WITHIN, "call {n} is never made");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Takes over whatever is open, while the one that hangs knows nothing of it.
    let other = (fault == Fault::Late).then(|| {
        let engine = load::engine(Arc::clone(&inner), &ledger, || {});
        engine.clock(Arc::new(InAnHour)).build().unwrap()
    });
    callers.wait_for(FURTHER).await;
    callers.stop().await;
    let rows = recovered_rows(&inner).await;
    sums.count(&rows, &scene);
    scene.judge(&inner, rows, &mut sums).await;
    drop((automation, other));
    sums
}
