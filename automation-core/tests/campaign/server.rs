//! A PostgreSQL server that is killed and started again, and one whose connections are cut, under an engine that works.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, USER, shared};
use crate::load::Callers;
use crate::proxy::Proxy;
use crate::scene::{Place, Scene, Sums};
use crate::{Dice, times};

const CALLERS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again() {
    let restarts = times("CAMPAIGN_RESTARTS", 2);
    let cluster = Cluster::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let url = cluster.url(&cluster.empty());
    let mut scene = Scene::new(Place::Postgres { url }, folder.path());
    let (mut dice, mut sums) = (Dice::new(), Sums::default());
    let automation = scene.engine().await;
    let callers = Callers::start(&automation, &scene.ledger(), "k", CALLERS);
    for _ in 0..restarts {
        callers.wait_for(20).await;
        tokio::time::sleep(Duration::from_millis(dice.below(100))).await;
        cluster.kill();
        cluster.run();
    }
    callers.wait_for(20).await;
    callers.stop().await;
    automation.shutdown(Duration::from_secs(5)).await.unwrap();
    scene.look(&mut sums).await;
    scene.add_to(&mut sums).await;
    sums.report(&format!("PostgreSQL, {restarts} kills of the server"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off() {
    let cuts = usize::try_from(times("CAMPAIGN_CUTS", 10)).unwrap();
    let (database, folder) = (shared().database(), tempfile::tempdir().unwrap());
    let proxy = Proxy::cutting_all(&shared().folder, times("CAMPAIGN_SEED", 1)).await;
    let port = proxy.port;
    let url = format!("postgres://{USER}@127.0.0.1:{port}/{database}?sslmode=disable");
    let mut scene = Scene::new(Place::Postgres { url }, folder.path());
    let mut sums = Sums::default();
    let automation = scene.engine().await;
    let callers = Callers::start(&automation, &scene.ledger(), "c", CALLERS);
    let begun = Instant::now();
    while proxy.cuts() < cuts {
        assert!(
            begun.elapsed() < Duration::from_secs(600),
            "no connection is cut"
        );
        callers.wait_for(1).await;
    }
    callers.stop().await;
    automation.shutdown(Duration::from_secs(5)).await.unwrap();
    let url = shared().url(&database);
    scene.place = Place::Postgres { url };
    scene.look(&mut sums).await;
    scene.add_to(&mut sums).await;
    sums.report(&format!("PostgreSQL, {cuts} cut connections"));
}
