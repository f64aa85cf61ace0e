//! Where a run stands, as worker and watchdog agree on it: one atomic word that each moves by compare-and-set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::ffi::blocking::CUT;

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const TIMED_OUT: u8 = CUT | 2;
const CANCELLED: u8 = CUT | 3;
const CPU_LIMIT: u8 = CUT | 4;
const MEMORY_LIMIT: u8 = CUT | 5;
/// Comes to the others, so that threads that a cut run left behind still count as cut.
const ENDED: u8 = 0x40;

/// What cuts a run short. Decided here, never by the exception that surfaces in the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its deadline passed.
    TimedOut,
    /// It used more processor time than it may.
    CpuLimit,
    /// It took more memory than it may, in blocks that it could not be refused.
    MemoryLimit,
    /// It was asked to end.
    Cancelled,
}

/// Where a run stands.
#[derive(Debug, Default)]
pub(super) struct Phase {
    word: AtomicU8,
    started: OnceLock<Duration>,
}

impl Phase {
    /// From waiting to running, `after` the hand-over; `false` when it was withdrawn.
    pub(super) fn start(&self, after: Duration) -> bool {
        let started = self.leave_waiting(RUNNING);
        if started {
            let _ = self.started.set(after);
        }
        started
    }

    /// From waiting to ended; `false` when it runs already.
    pub(super) fn withdraw(&self) -> bool {
        self.leave_waiting(ENDED)
    }

    fn leave_waiting(&self, word: u8) -> bool {
        self.word
            .compare_exchange(WAITING, word, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Returns the time from the hand-over to the start.
    pub(super) fn started(&self) -> Option<Duration> {
        self.started.get().copied()
    }

    /// From running to cut short; `false` in every other phase.
    pub(super) fn cut(&self, cut: Cut) -> bool {
        let word = match cut {
            Cut::TimedOut => TIMED_OUT,
            Cut::CpuLimit => CPU_LIMIT,
            Cut::MemoryLimit => MEMORY_LIMIT,
            Cut::Cancelled => CANCELLED,
        };
        self.word
            .compare_exchange(RUNNING, word, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// To ended. Returns what cut it short.
    pub(super) fn end(&self) -> Option<Cut> {
        match self.word.fetch_or(ENDED, Ordering::AcqRel) {
            TIMED_OUT => Some(Cut::TimedOut),
            CPU_LIMIT => Some(Cut::CpuLimit),
            MEMORY_LIMIT => Some(Cut::MemoryLimit),
            CANCELLED => Some(Cut::Cancelled),
            _ => None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.word.load(Ordering::Acquire) & ENDED != 0
    }

    pub(super) fn is_cut(&self) -> bool {
        self.word.load(Ordering::Acquire) & CUT != 0
    }

    /// Returns the word, which carries `CUT` from the cut on.
    pub(super) fn word(&self) -> &AtomicU8 {
        &self.word
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cut, Phase};

    #[test]
    fn the_first_cut_counts_and_none_after_the_end() {
        let phase = Phase::default();
        assert!(!phase.cut(Cut::TimedOut), "it does not run yet");
        assert!(phase.start(Duration::from_micros(5)));
        assert!(!phase.withdraw());
        assert_eq!(phase.started(), Some(Duration::from_micros(5)));
        assert!(phase.cut(Cut::Cancelled));
        assert!(!phase.cut(Cut::TimedOut));
        assert!(!phase.has_ended());
        assert_eq!(phase.end(), Some(Cut::Cancelled));
        assert!(phase.has_ended());
        assert!(!phase.cut(Cut::TimedOut));
        assert_eq!(phase.end(), None);
        assert!(phase.has_ended() && phase.is_cut());
    }

    #[test]
    fn what_is_withdrawn_never_starts() {
        let phase = Phase::default();
        assert!(phase.withdraw());
        assert!(!phase.start(Duration::ZERO));
        assert_eq!(phase.started(), None);
        assert!(phase.has_ended());
    }
}
