//! `kill -9`, at moments that nobody chose and at the points where it could hurt most.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::shared;
use crate::scene::{Place, Scene, Sums};
use crate::worker::{Order, Point};
use crate::{Dice, times};

/// Deaths on one database, which is then put away.
const DEATHS_A_SCENE: u64 = 12;
/// Longest time from the start of a process to its death: starting it takes a part of that.
const AGE_MAX: u64 = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_sqlite() {
    die(times("CAMPAIGN_KILLS", 20), "SQLite", |folder, scene| {
        Scene::sqlite(folder, scene % 2 == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_postgresql() {
    let kills = times("CAMPAIGN_KILLS_POSTGRES", 10);
    die(kills, "PostgreSQL", |folder, _| {
        let url = shared().url(&shared().database());
        Scene::new(Place::Postgres { url }, folder)
    })
    .await;
}

/// Half of the deaths are at random, half at points; then, or after a few more, everything is looked at.
async fn die(kills: u64, what: &str, scene: impl Fn(&std::path::Path, u64) -> Scene) {
    let (mut dice, mut sums, mut met) = (Dice::new(), Sums::default(), BTreeMap::new());
    let mut done = 0;
    for number in 0.. {
        if done == kills {
            break;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut scene = scene(folder.path(), number);
        let count = DEATHS_A_SCENE.min(kills - done);
        for death in 0..count {
            let order = Order::of(&scene, format!("d{death}"));
            match death % 2 {
                0 => kill_at_random(&order, &mut dice),
                _ => {
                    let point = Point::ALL[usize::try_from((done + death) / 2 % 8).unwrap()];
                    if dies_at(order, point, &mut dice) {
                        *met.entry(point).or_insert(0_u64) += 1;
                    }
                }
            }
            // Not before a point of recovery is to be met.
            if death + 1 == count || death % 2 == 1 && dice.below(3) > 0 {
                scene.look(&mut sums).await;
            }
        }
        done += count;
        scene.add_to(&mut sums).await;
    }
    println!("{what}, points at which it died: {met:?}");
    sums.report(&format!("{what}, {kills} kills"));
    assert!(sums.orphaned > 0, "the kills met no runs");
    assert!(met.len() > 1, "the points were not met");
}

fn kill_at_random(order: &Order, dice: &mut Dice) {
    let mut worker = order.start();
    std::thread::sleep(Duration::from_millis(dice.below(AGE_MAX)));
    worker.kill();
}

fn dies_at(mut order: Order, point: Point, dice: &mut Dice) -> bool {
    let when = match point {
        Point::InSpool => dice.below(u64::MAX),
        Point::BeforeRecovery | Point::AfterRecovery => 1 + dice.below(4),
        _ => 1 + dice.below(60),
    };
    order.death = Some((point, when));
    order.start().dies()
}
