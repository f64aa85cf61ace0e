//! Power cuts: a file system on a disk that is a file. What the system has not brought to that disk is not in a copy of
//! the file, so each copy is what a cut of the power would have left. Each is mounted, recovered and looked at.
//!
//! A process that is stopped hands nothing to the disk any more, so a copy that is made then is of one moment. With
//! `normal` the same copies must show loss, which proves that they would show it with `full`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::checker::Violation;
use crate::load::ledger_in;
use crate::scene::{Scene, Sums};
use crate::worker::Order;
use crate::{Dice, times};

/// Copies of one disk, while one process works on it.
const CUTS_A_DISK: u64 = 10;
/// Enough for what a process records meanwhile.
const BYTES: u64 = 48 << 20;

/// Bytes in the ledger of a process that has answered some callers.
const AT_WORK: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_full_durability_a_power_cut_loses_nothing_and_with_normal_the_same_cuts_show_loss() {
    let cuts = times("CAMPAIGN_POWER_CUTS", 4);
    let Some(full) = cut(true, cuts).await else {
        return;
    };
    full.report(&format!("SQLite, full durability, {cuts} power cuts"));
    let normal = cut(false, CUTS_A_DISK.min(cuts)).await.unwrap();
    let is_loss = |violation: &&Violation| matches!(violation, Violation::Lost(_));
    let lost = normal.violations.iter().filter(is_loss).count();
    println!(
        "SQLite, normal durability: {lost} acknowledged runs are lost in power cuts, as documented"
    );
    assert!(lost > 0, "the copies do not show what a power cut loses");
}

/// Makes so many copies of disks at work, and looks at each; `None` where none may be mounted.
async fn cut(is_full: bool, cuts: u64) -> Option<Sums> {
    let (mut dice, mut sums, mut done) = (Dice::new(), Sums::default(), 0);
    while done < cuts {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path()).mounted()?;
        let scene = Scene::sqlite(disk.path(), is_full).with_ledger_in(folder.path());
        let mut worker = Order::of(&scene, "w").start();
        until_at_work(&scene);
        let count = CUTS_A_DISK.min(cuts - done);
        for _ in 0..count {
            std::thread::sleep(Duration::from_millis(40 + dice.below(120)));
            worker.stop();
            let kept = tempfile::tempdir().unwrap();
            std::fs::copy(ledger_in(folder.path()), ledger_in(kept.path())).unwrap();
            let copy = disk.copy(kept.path());
            let copy = copy.mounted().unwrap();
            let mut copied = Scene::sqlite(copy.path(), is_full).with_ledger_in(kept.path());
            copied.is_expected = !is_full;
            copied.look(&mut sums).await;
            copied.add_to(&mut sums).await;
            // Only now: a slow look must not let the disk become full.
            worker.signal(Signal::CONT);
        }
        worker.kill();
        drop(disk);
        done += count;
    }
    Some(sums)
}

fn until_at_work(scene: &Scene) {
    let (ledger, begun) = (ledger_in(&scene.folder), Instant::now());
    while std::fs::metadata(&ledger).map_or(0, |file| file.len()) < AT_WORK {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing runs");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A file that is a disk, with a file system on it; unmounted when it is dropped.
#[derive(Debug)]
struct Disk {
    image: PathBuf,
    place: PathBuf,
}

impl Disk {
    /// Makes the file in a folder.
    fn new(folder: &Path) -> Self {
        let disk = Self::in_folder(folder);
        let image = std::fs::File::create(&disk.image).unwrap();
        image.set_len(BYTES).unwrap();
        let made = Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&disk.image)
            .status();
        assert!(made.unwrap().success());
        disk
    }

    fn in_folder(folder: &Path) -> Self {
        let (image, place) = (folder.join("disk"), folder.join("mounted"));
        std::fs::create_dir(&place).unwrap();
        Self { image, place }
    }

    /// Mounts it; `None`, and says so, where that is not allowed. Nothing reaches the file unless it is asked for.
    fn mounted(self) -> Option<Self> {
        let made = Command::new("mount")
            .args(["-o", "loop,commit=600"])
            .args([&self.image, &self.place])
            .output();
        if made.is_ok_and(|made| made.status.success()) {
            return Some(self);
        }
        println!("not tested: only root may mount a file system");
        None
    }

    /// Copies what has reached the file.
    fn copy(&self, folder: &Path) -> Self {
        let copy = Self::in_folder(folder);
        std::fs::copy(&self.image, &copy.image).unwrap();
        copy
    }

    fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}
