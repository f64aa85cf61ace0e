//! What ends a run that has to end, step by step: an exception on the script's main thread, a request to what it
//! started and to itself, and at last what nothing survives.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::tree::Process;

/// Raises the interruption in the child: see `INTERRUPT` in `_child.py`.
const INTERRUPT: Signal = Signal::POWER;
/// Time from one interruption to the next: a script that catches the first meets another.
const REPEAT: Duration = Duration::from_millis(50);
/// Time for the kernel to end what was killed.
const KILL_MAX: Duration = Duration::from_secs(1);

/// The steps, and where they stand.
#[derive(Debug)]
pub(super) struct Ladder {
    process: Process,
    since: Instant,
    grace: Duration,
    asked_descendants: bool,
    asked: bool,
}

impl Ladder {
    pub(super) const fn new(process: Process, since: Instant, grace: Duration) -> Self {
        Self {
            process,
            since,
            grace,
            asked_descendants: false,
            asked: false,
        }
    }

    /// Does what is due. Returns when to act again, or `None` when the process can't be ended.
    pub(super) fn act(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.since);
        if passed >= self.grace + KILL_MAX {
            return None;
        }
        if passed >= self.grace {
            self.process.kill_tree();
            return Some(now + REPEAT);
        }
        self.process.signal(INTERRUPT);
        // What the script waits for first: it may still end by itself then.
        if passed >= self.grace / 2 && !self.asked_descendants {
            self.asked_descendants = true;
            self.process.signal_descendants(Signal::TERM);
        }
        if passed >= self.grace * 3 / 4 && !self.asked {
            self.asked = true;
            self.process.signal(Signal::TERM);
        }
        Some((now + REPEAT).min(self.since + self.grace))
    }
}
