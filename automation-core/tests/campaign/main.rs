//! Fault campaigns: whatever happens to the process, the database or the disk, no run is lost, none runs twice, none
//! stays open, and the statistics are a recount.
//!
//! Scripts note what they do in a ledger outside the engine, callers note what they are told, and after each fault the
//! checker holds both against the rows. A few faults of each kind by default; `make campaign` has the long form.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper of a test fails as the test does, and a campaign says what it counted"
)]

mod checker;
#[expect(dead_code, reason = "the storage's own tests need more of it")]
#[path = "../storage_postgres/cluster.rs"]
mod cluster;
mod deaths;
mod disk;
mod ledger;
mod load;
mod nth;
mod pauses;
mod planted;
mod power;
#[expect(dead_code, reason = "the storage's own tests need more of it")]
#[path = "../storage_postgres/proxy.rs"]
mod proxy;
mod scene;
mod server;
#[path = "../support/tmpfs.rs"]
mod tmpfs;
mod worker;

/// How often a fault is made: a few times, or as often as the environment says.
#[expect(clippy::disallowed_methods, reason = "a test is no library")]
pub(crate) fn times(name: &str, few: u64) -> u64 {
    std::env::var(name).map_or(few, |text| text.parse().unwrap())
}

/// Numbers that look random, the same ones for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Begins with `CAMPAIGN_SEED`, so that a campaign can be had again and another one had.
    pub(crate) fn new() -> Self {
        Self(times("CAMPAIGN_SEED", 1))
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
