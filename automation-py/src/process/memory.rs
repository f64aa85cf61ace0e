//! How much memory a run uses, of all its processes together. Knows nothing of what follows from it.

use std::time::{Duration, Instant};

use super::tree::{Process, Usage};

/// The exact look walks through all pages of a process, 30 ms a GiB: it gets a twentieth of the time.
const LOOK_SHARE: u32 = 20;

/// What a run was seen to use.
#[derive(Debug)]
pub(super) struct Memory {
    /// Resident memory that its process began with, in bytes: not the run's own.
    inherited: u64,
    /// The most that was seen, in bytes.
    pub(super) peak: u64,
    next_look: Instant,
}

impl Memory {
    pub(super) const fn new(inherited: u64, now: Instant) -> Self {
        Self {
            inherited,
            peak: 0,
            next_look: now,
        }
    }

    /// Returns what is the run's own of what its process was seen to hold.
    pub(super) const fn own(&self, resident: u64) -> u64 {
        resident.saturating_sub(self.inherited)
    }

    /// Takes down what the processes use, the run's own first. Their sum counts shared pages once for each, so that
    /// it is looked at more closely where it would be news. Returns what they use.
    pub(super) fn look(&mut self, processes: &[Process], sum: Usage) -> u64 {
        let most = self.own(sum.resident);
        let used = match processes {
            [process, _, ..] if most > self.peak => {
                let alone = self.own(process.resident());
                alone.max(self.exact(processes).unwrap_or_default())
            }
            _ => most,
        };
        self.peak = self.peak.max(used);
        used
    }

    /// Returns what they use together, a shared page as one; `None` when the latest look was too close.
    fn exact(&mut self, processes: &[Process]) -> Option<u64> {
        let begin = Instant::now();
        if begin < self.next_look {
            return None;
        }
        let shares = processes.iter().map(|process| process.share());
        let used = self.own(shares.sum());
        let took: Duration = begin.elapsed();
        self.next_look = begin + took * LOOK_SHARE;
        Some(used)
    }
}
