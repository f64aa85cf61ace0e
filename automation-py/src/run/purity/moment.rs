//! Which runs there are at a moment, so that it can be told whether one was alone since. Changed and read with the
//! GIL held.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Runs that have started and of which something still executes.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// Runs that have ever started.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Counts a run while it, or a thread that it has left, is there.
#[derive(Debug)]
pub(in crate::run) struct Active(());

impl Active {
    /// Counts one more.
    pub(super) fn new() -> Self {
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        STARTED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether no run is there.
pub(super) fn is_empty() -> bool {
    ACTIVE.load(Ordering::Relaxed) == 0
}

/// A moment in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    started: u64,
    alone: bool,
}

impl Moment {
    /// Returns this one.
    pub(super) fn now() -> Self {
        Self {
            started: STARTED.load(Ordering::Relaxed),
            alone: ACTIVE.load(Ordering::Relaxed) <= 1,
        }
    }

    /// Returns whether there was no other run then, and none has started since.
    pub(super) fn alone_since(self) -> bool {
        self.alone && self.started == STARTED.load(Ordering::Relaxed)
    }
}
