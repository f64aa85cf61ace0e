//! The signals that a thread does not take.

use std::fmt;
use std::mem::MaybeUninit;

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Returns the calling thread's.
    pub(crate) fn of_thread() -> Self {
        let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: changes nothing, and fills a place that is large enough.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: filled by the call, and zeroed before, which is a valid set.
        Self(unsafe { mask.assume_init() })
    }

    /// Makes it the calling thread's.
    pub(crate) fn set(&self) {
        // SAFETY: a valid set; the former one is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalMask").finish_non_exhaustive()
    }
}
