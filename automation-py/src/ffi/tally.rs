//! How much memory is charged to whom: a counted record that outlives its run for as long as blocks are charged to it,
//! and the record that the calling thread's allocations are charged to. Knows nothing of Python and of runs.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Blocks up to this size are small. What makes a script big is large blocks, and those it may be refused: CPython does
/// not survive that each of its own small allocations may fail, and PyO3 ends the process then.
const SMALL_BYTES: usize = 4096;
/// What small blocks may take beyond the limit.
const RESERVE_BYTES: u64 = 8 << 20;
/// What they take at most, until somebody has stopped who took more than the reserve.
const LAST_RESERVE_BYTES: u64 = 32 << 20;
/// How much larger the objects are that a traceback keeps of frames.
const FRAME_OBJECTS_FACTOR: usize = 4;
/// Where the bytes begin in [`Tally::word`]; the holders are below.
const BYTES_SHIFT: u32 = 16;
const HOLDER: u64 = 1;

#[cfg(test)]
pub(super) static LIVING: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// One count of bytes with its limit.
pub(super) struct Tally {
    /// Bytes that are charged, and handles and threads that hold it, in one word: it ends when both are 0.
    word: AtomicU64,
    limit: AtomicU64,
    peak: AtomicU64,
    /// Those bytes among the charged ones that frames of Python functions take.
    frames: AtomicU64,
    refused: AtomicBool,
    /// Whether small blocks took more than the reserve.
    overrun: AtomicBool,
}

impl Tally {
    fn bytes(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> BYTES_SHIFT
    }

    /// Returns whether `extra` bytes, for a block of `block` bytes, may be charged. Notes it when somebody asked for
    /// too much.
    #[inline]
    pub(super) fn admits(&self, extra: usize, block: usize) -> bool {
        self.has_room(extra) || self.admits_beyond_limit(extra, block)
    }

    /// Returns whether `extra` bytes are within the limit.
    #[inline]
    pub(super) fn has_room(&self, extra: usize) -> bool {
        self.bytes().saturating_add(extra as u64) <= self.limit.load(Ordering::Relaxed)
    }

    #[cold]
    fn admits_beyond_limit(&self, extra: usize, block: usize) -> bool {
        if block > SMALL_BYTES {
            self.refuse();
            return false;
        }
        let limit = self.limit.load(Ordering::Relaxed);
        let beyond = self
            .bytes()
            .saturating_add(extra as u64)
            .saturating_sub(limit);
        if beyond > RESERVE_BYTES {
            self.overrun.store(true, Ordering::Release);
            self.refuse();
        }
        beyond <= LAST_RESERVE_BYTES
    }

    /// Notes that somebody asked for too much.
    #[cold]
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// Charges bytes, which keep it alive until they are credited.
    #[inline]
    pub(super) fn charge(&self, bytes: usize) {
        let added = (bytes as u64) << BYTES_SHIFT;
        let now = (self.word.fetch_add(added, Ordering::Relaxed) + added) >> BYTES_SHIFT;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Returns whether `bytes` more of frames are within the limit. An exception that ends them all makes a larger
    /// object of each.
    pub(super) fn has_room_for_frames(&self, bytes: usize) -> bool {
        let frames = self.frames.load(Ordering::Relaxed) as usize;
        self.has_room(bytes + FRAME_OBJECTS_FACTOR * frames)
    }

    /// Charges bytes of frames.
    pub(super) fn charge_frames(&self, bytes: usize) {
        self.frames.fetch_add(bytes as u64, Ordering::Relaxed);
        self.charge(bytes);
    }

    /// Takes bytes of frames back.
    ///
    /// # Safety
    /// As for [`credit`](Self::credit).
    pub(super) unsafe fn credit_frames(tally: NonNull<Self>, bytes: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let frames = &tally.as_ref().frames;
            frames.fetch_sub(bytes as u64, Ordering::Relaxed);
            Self::credit(tally, bytes);
        }
    }

    /// Takes bytes back.
    ///
    /// # Safety
    /// They were charged to `tally`, which the caller does not use afterwards.
    #[inline]
    pub(super) unsafe fn credit(tally: NonNull<Self>, bytes: usize) {
        // SAFETY: as the caller says.
        unsafe { Self::release(tally, (bytes as u64) << BYTES_SHIFT) };
    }

    /// Charges `bytes` instead of `former`.
    ///
    /// # Safety
    /// As for [`credit`](Self::credit), unless `bytes` is more than 0.
    #[inline]
    pub(super) unsafe fn recharge(tally: NonNull<Self>, former: usize, bytes: usize) {
        // SAFETY: as the caller says; alive, since `former` is charged to it.
        unsafe {
            match bytes.checked_sub(former) {
                Some(more) => tally.as_ref().charge(more),
                None => Self::credit(tally, former - bytes),
            }
        }
    }

    /// Takes part of the word away, and ends the tally with the last part.
    ///
    /// # Safety
    /// The part is the caller's, who does not use `tally` afterwards.
    #[inline]
    unsafe fn release(tally: NonNull<Self>, part: u64) {
        // SAFETY: alive, since the caller's part of the word is not 0.
        let former = unsafe { tally.as_ref() }
            .word
            .fetch_sub(part, Ordering::Release);
        if former == part {
            fence(Ordering::Acquire);
            #[cfg(test)]
            LIVING.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: made by `Box`, and nobody holds a part of it any more.
            drop(unsafe { Box::from_raw(tally.as_ptr()) });
        }
    }
}

thread_local! {
    static CHARGED: Cell<*const Tally> = const { Cell::new(ptr::null()) };
}

/// Returns what the calling thread's allocations are charged to.
#[inline]
pub(super) fn charged() -> Option<NonNull<Tally>> {
    // A thread that ends frees its last blocks when its own state may be gone.
    let charged = CHARGED.try_with(Cell::get).unwrap_or(ptr::null());
    NonNull::new(charged.cast_mut())
}

/// Memory that is counted together.
pub(crate) struct Memory(NonNull<Tally>);

// SAFETY: a tally is atomics only, and is counted across threads.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Creates a count without a byte.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        #[cfg(test)]
        LIVING.fetch_add(1, Ordering::Relaxed);
        let tally = Box::new(Tally {
            word: AtomicU64::new(HOLDER),
            limit: AtomicU64::new(limit_bytes),
            peak: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            overrun: AtomicBool::new(false),
        });
        Self(NonNull::from(Box::leak(tally)))
    }

    fn tally(&self) -> &Tally {
        // SAFETY: alive, since this handle is one of its holders.
        unsafe { self.0.as_ref() }
    }

    /// Returns the bytes that are charged now.
    pub(crate) fn bytes(&self) -> u64 {
        self.tally().bytes()
    }

    /// Returns the largest number of bytes that was charged at a time.
    pub(crate) fn peak(&self) -> u64 {
        self.tally().peak.load(Ordering::Relaxed)
    }

    /// Returns whether small blocks, which are not refused, took more than their reserve: somebody has to stop it.
    pub(crate) fn is_overrun(&self) -> bool {
        self.tally().overrun.load(Ordering::Acquire)
    }

    /// Returns whether more was asked for than the limit allows.
    pub(crate) fn was_refused(&self) -> bool {
        self.tally().refused.load(Ordering::Acquire)
    }

    /// Notes that more was asked for than the limit allows.
    pub(crate) fn refuse(&self) {
        self.tally().refuse();
    }

    /// Allows `bytes` more than are charged now, where the limit allows less.
    pub(crate) fn allow_more(&self, bytes: u64) {
        let limit = self.bytes().saturating_add(bytes);
        self.tally().limit.fetch_max(limit, Ordering::Relaxed);
    }

    /// Charges this thread's allocations to it until the guard is dropped.
    pub(crate) fn charge(&self) -> Charging {
        self.tally().word.fetch_add(HOLDER, Ordering::Relaxed);
        Charging::start(self.0.as_ptr())
    }

    /// Returns whether this thread's allocations are charged to it.
    pub(crate) fn is_charged(&self) -> bool {
        charged() == Some(self.0)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the handle's own part.
        unsafe { Tally::release(self.0, HOLDER) };
    }
}

/// Charges nobody for this thread's allocations until the guard is dropped, and refuses none.
pub(crate) fn charge_nobody() -> Charging {
    Charging::start(ptr::null())
}

/// Keeps what this thread's allocations are charged to; what it was before comes back when dropped.
#[must_use = "it ends when dropped"]
pub(crate) struct Charging {
    former: *const Tally,
    /// It is about one thread.
    not_send: PhantomData<*const ()>,
}

impl Charging {
    fn start(tally: *const Tally) -> Self {
        Self {
            former: CHARGED.replace(tally),
            not_send: PhantomData,
        }
    }
}

impl Drop for Charging {
    fn drop(&mut self) {
        let ended = CHARGED.replace(self.former);
        if let Some(ended) = NonNull::new(ended.cast_mut()) {
            // SAFETY: the part that `Memory::charge` added for this guard: guards end in the reverse order.
            unsafe { Tally::release(ended, HOLDER) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, charge_nobody, charged};

    #[test]
    fn small_blocks_have_a_reserve_and_large_ones_have_none() {
        let memory = Memory::new(1000);
        let tally = memory.tally();
        assert!(tally.admits(1000, 1000) && tally.has_room(1000) && !tally.has_room(1001));
        tally.charge(1000);
        assert!(tally.admits(4096, 4096) && !memory.was_refused());
        assert!(!tally.admits(4097, 4097) && memory.was_refused());
        tally.charge(8 << 20);
        assert!(!memory.is_overrun());
        assert!(tally.admits(1, 1) && memory.is_overrun());
        tally.charge(24 << 20);
        assert!(!tally.admits(1, 1));
        memory.allow_more(10_000);
        assert!(tally.admits(10_000, 10_000) && !tally.admits(10_001, 10_001));
        // SAFETY: charged above.
        unsafe { super::Tally::credit(memory.0, 1000 + (32 << 20)) };
        assert_eq!((memory.bytes(), memory.peak()), (0, 1000 + (32 << 20)));
    }

    #[test]
    fn no_limit_is_no_limit() {
        let memory = Memory::new(u64::MAX);
        assert!(
            memory
                .tally()
                .admits(isize::MAX as usize, isize::MAX as usize)
        );
    }

    #[test]
    fn guards_nest() {
        let (outer, inner) = (Memory::new(1), Memory::new(1));
        let charging = outer.charge();
        {
            let _inner = inner.charge();
            assert!(inner.is_charged() && !outer.is_charged());
            let _nobody = charge_nobody();
            assert!(charged().is_none());
        }
        drop(inner);
        assert!(outer.is_charged());
        drop(outer);
        assert!(charged().is_some(), "the thread holds it");
        drop(charging);
        assert!(charged().is_none());
    }
}
