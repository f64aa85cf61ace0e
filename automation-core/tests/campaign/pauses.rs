//! `SIGSTOP`: a process that is paused for longer than its lease while another takes its runs, wakes up and goes on.

use std::time::Duration;

use automation_core::{EventKind, ExecutionId, Page, Reason, Storage, TenantId};
use rustix::process::Signal;

use crate::cluster::shared;
use crate::scene::{Place, Scene, Sums};
use crate::worker::Order;
use crate::{Dice, times};

/// Pauses of one process, which is then killed.
const PAUSES_A_SCENE: u64 = 5;
/// Time in which a process that woke up tries what it has left.
const AWAKE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_while_another_takes_over() {
    let pauses = times("CAMPAIGN_PAUSES", 3);
    let (mut dice, mut sums) = (Dice::new(), Sums::default());
    let (mut done, mut taken, mut late) = (0, 0, 0);
    while done < pauses {
        let folder = tempfile::tempdir().unwrap();
        let database = shared().database();
        let url = shared().url(&database);
        let mut scene = Scene::new(Place::Postgres { url }, folder.path());
        // The worker has its own spool: it lives while the scene is looked at.
        let mut order = Order::of(&scene, "p");
        order.spool = folder.path().join("worker.spool");
        let mut worker = order.start();
        let count = PAUSES_A_SCENE.min(pauses - done);
        for _ in 0..count {
            std::thread::sleep(Duration::from_millis(150 + dice.below(200)));
            worker.stop();
            end_idle_transactions(&database);
            scene.look(&mut sums).await;
            worker.signal(Signal::CONT);
            std::thread::sleep(AWAKE);
        }
        worker.kill();
        scene.look(&mut sums).await;
        scene.add_to(&mut sums).await;
        let (some_taken, some_late) = taken_and_late(&scene).await;
        (done, taken, late) = (done + count, taken + some_taken, late + some_late);
    }
    println!("{taken} runs were taken over; {late} of them ended later all the same, as an event");
    sums.report(&format!("PostgreSQL, {pauses} pauses"));
    assert!(late > 0, "nobody came late");
}

/// Does at once what the server does after 15 s, which is within every sensible lease: it ends the session of a process
/// that was paused in a transaction and keeps rows locked.
fn end_idle_transactions(database: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = '{database}' AND state LIKE 'idle in transaction%'"
    );
    shared().sql("postgres", &sql);
}

/// Returns how many runs were taken from their holder, and how many of those ended later.
async fn taken_and_late(scene: &Scene) -> (usize, usize) {
    let storage = scene.place.open().await;
    let rows = crate::scene::all(&storage).await;
    let orphans = rows
        .iter()
        .filter(|row| row.reason == Some(Reason::Orphaned));
    let ids: Vec<_> = orphans.map(|row| row.id).collect();
    let mut late = 0;
    for id in &ids {
        late += usize::from(came_late(&*storage, *id).await);
    }
    storage.close().await.unwrap();
    (ids.len(), late)
}

async fn came_late(storage: &dyn Storage, id: ExecutionId) -> bool {
    let events = storage
        .events(&TenantId::default(), id, &Page::default())
        .await;
    let events = events.unwrap().items;
    events.iter().any(|event| event.kind == EventKind::LateEnd)
}
