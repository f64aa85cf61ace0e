//! A small file system that is filled and freed again and again under load, with database and spool on it.

use std::time::Duration;

use automation_core::Automation;

use crate::load::Callers;
use crate::scene::{Scene, Sums};
use crate::times;
use crate::tmpfs::Tmpfs;

/// Cycles on one file system, which is then put away.
const CYCLES_A_SCENE: u64 = 10;
/// More than the database becomes in a scene.
const KIB: usize = 96 * 1024;
/// Time in which runs are accepted again when there is space.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filled_and_freed() {
    let cycles = times("CAMPAIGN_DISK_CYCLES", 4);
    let mut sums = Sums::default();
    let mut done = 0;
    while done < cycles {
        let Some(disk) = Tmpfs::mount(KIB) else {
            return;
        };
        let ledger = tempfile::tempdir().unwrap();
        let mut scene = Scene::sqlite(disk.path(), done % 2 == 0).with_ledger_in(ledger.path());
        let automation = scene.engine().await;
        let callers = Callers::start(&automation, &scene.ledger(), "f", 16);
        let count = CYCLES_A_SCENE.min(cycles - done);
        for _ in 0..count {
            callers.wait_for(30).await;
            disk.fill();
            until_ready(&automation, false).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            std::fs::remove_file(disk.path().join("ballast")).unwrap();
            let opens = until_ready(&automation, true);
            let in_time = tokio::time::timeout(OPENS_WITHIN, opens).await;
            in_time.expect("runs are accepted again");
        }
        callers.stop().await;
        automation.shutdown(Duration::from_secs(5)).await.unwrap();
        scene.look(&mut sums).await;
        scene.add_to(&mut sums).await;
        done += count;
    }
    sums.report(&format!("{cycles} full disks"));
    assert!(sums.refused > 0, "the disk was never full");
}

async fn until_ready(automation: &Automation, is_ready: bool) {
    while automation.health().await.is_ready() != is_ready {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
