//! What ends a run that has to end, step by step: an exception on the script's main thread, a request to what it
//! started and to itself, and at last what nothing survives.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::tree::Process;

/// Raises the interruption in the child: see `INTERRUPT` in `_child.py`.
const INTERRUPT: Signal = Signal::POWER;
/// Time from one interruption to the next: a script that catches the first meets another.
const REPEAT: Duration = Duration::from_millis(50);
/// Time for the kernel to end what was killed: hundreds of processes on a busy machine take a while.
const KILL_MAX: Duration = Duration::from_secs(10);

/// The steps, and where they stand.
#[derive(Debug)]
pub(super) struct Ladder {
    process: Process,
    since: Instant,
    grace: Duration,
    /// What it was seen to have started: it is found no more once the process is gone.
    started: HashSet<Process>,
    asked_started: bool,
    asked: bool,
}

impl Ladder {
    pub(super) fn new(process: Process, since: Instant, grace: Duration) -> Self {
        Self {
            process,
            since,
            grace,
            started: HashSet::new(),
            asked_started: false,
            asked: false,
        }
    }

    /// Does what is due. Returns when to act again, or `None` when the process can't be ended.
    pub(super) fn act(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.since);
        self.started.extend(self.process.descendants());
        if passed >= self.grace + KILL_MAX {
            return None;
        }
        if passed >= self.grace {
            self.process.kill_tree();
            return Some(now + REPEAT);
        }
        self.ask(INTERRUPT);
        // What the script waits for first: it may still end by itself then.
        if passed >= self.grace / 2 && !self.asked_started {
            self.asked_started = true;
            for process in &self.started {
                process.signal(Signal::TERM);
            }
        }
        if passed >= self.grace * 3 / 4 && !self.asked {
            self.asked = true;
            self.ask(Signal::TERM);
        }
        Some((now + REPEAT).min(self.since + self.grace))
    }

    /// Sends a signal that the process handles. One that it does not would end it before what it started.
    fn ask(&self, signal: Signal) {
        if self.process.catches(signal) {
            self.process.signal(signal);
        }
    }

    /// Ends what the process started, when it is gone itself.
    pub(super) fn sweep(&self) {
        for process in &self.started {
            process.kill_tree();
        }
    }
}
