//! Hooks in CPython's raw allocator, where every block over 512 bytes comes from: they charge the calling thread's
//! [`Tally`]. Smaller blocks are cut from arenas, which `arenas` hooks.
//!
//! They may be installed while the interpreter runs. A charged block has a trailer that names its owner; a block
//! without one is freed as before. On threads that charge nobody they pass everything through. Once installed they
//! stay: blocks with trailers may live until the process ends.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::raw::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use parking_lot::Mutex;
use pyo3::ffi::{PyMem_GetAllocator, PyMem_SetAllocator, PyMemAllocatorDomain, PyMemAllocatorEx};
use pyo3::prelude::*;

use super::arenas;
use super::tally::{Tally, charged};

/// What was there before. The context is not given to the raw functions: it is null, or we would not be here.
struct Previous {
    malloc: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: extern "C" fn(*mut c_void, *mut c_void),
    /// Marks our trailers; other blocks hold it by a chance of 1 in 2^64.
    mark: u64,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();
/// Installs the hooks, once.
///
/// # Errors
/// Another allocator than CPython's own is in place, whose blocks have no room for a trailer: that of
/// `python -X dev`, of `tracemalloc` or of a memory profiler.
pub(crate) fn install(py: Python<'_>) -> Result<(), String> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if !*installed {
        let raw = raw_allocator();
        keep(&raw)
            .ok_or("another allocator is in place (python -X dev, tracemalloc, a profiler)")?;
        arenas::install(py).ok_or("the allocator of arenas is unknown")?;
        set_hooks(raw);
        *installed = true;
    }
    Ok(())
}

fn raw_allocator() -> PyMemAllocatorEx {
    let mut raw = PyMemAllocatorEx {
        ctx: null_mut(),
        malloc: None,
        calloc: None,
        realloc: None,
        free: None,
    };
    // SAFETY: attached, as `install` shows; writes the struct.
    unsafe { PyMem_GetAllocator(PyMemAllocatorDomain::PYMEM_DOMAIN_RAW, &raw mut raw) };
    raw
}

/// Keeps what the hooks call. `None` when the raw allocator is not CPython's own, which alone has no context.
fn keep(raw: &PyMemAllocatorEx) -> Option<()> {
    if !raw.ctx.is_null() {
        return None;
    }
    let previous = Previous {
        malloc: raw.malloc?,
        calloc: raw.calloc?,
        realloc: raw.realloc?,
        free: raw.free?,
        mark: RandomState::new().build_hasher().finish(),
    };
    let _ = PREVIOUS.set(previous);
    Some(())
}

/// Puts the hooks in. A thread that allocates without the GIL meanwhile meets old and new functions mixed; both
/// ignore the context, so that any mixture works.
fn set_hooks(raw: PyMemAllocatorEx) {
    let mut hooks = PyMemAllocatorEx {
        ctx: raw.ctx,
        malloc: Some(raw_malloc),
        calloc: Some(raw_calloc),
        realloc: Some(raw_realloc),
        free: Some(raw_free),
    };
    // SAFETY: attached, as `install` shows; the functions keep CPython's contract for allocators.
    unsafe { PyMem_SetAllocator(PyMemAllocatorDomain::PYMEM_DOMAIN_RAW, &raw mut hooks) };
}

/// The end of a charged block: the mark combined with the block's address, and the owner.
const TRAILER_BYTES: usize = 16;
/// The largest request that can still get a trailer.
const REQUEST_BYTES_MAX: usize = isize::MAX as usize - TRAILER_BYTES;

/// Returns how many bytes a block really has.
///
/// # Safety
/// `block` comes from the C library.
unsafe fn usable_bytes(block: *mut c_void) -> usize {
    #[cfg(target_os = "macos")]
    // SAFETY: as the caller says.
    let bytes = unsafe { libc::malloc_size(block) };
    #[cfg(not(target_os = "macos"))]
    // SAFETY: as the caller says.
    let bytes = unsafe { libc::malloc_usable_size(block) };
    bytes
}

impl Previous {
    #[inline]
    fn get() -> &'static Self {
        PREVIOUS.get().expect("kept before the hooks are put in")
    }

    fn mark_of(&self, block: *mut c_void) -> u64 {
        self.mark ^ block as u64
    }

    /// Returns the owner of a block and the bytes that it was charged.
    ///
    /// # Safety
    /// `block` is a living block of the C library.
    #[inline]
    unsafe fn owner(&self, block: *mut c_void) -> Option<(NonNull<Tally>, usize)> {
        // SAFETY: as the caller says; the trailer is inside the block.
        unsafe {
            let bytes = usable_bytes(block);
            let trailer = block
                .byte_add(bytes.checked_sub(TRAILER_BYTES)?)
                .cast::<u64>();
            if trailer.read_unaligned() != self.mark_of(block) {
                return None;
            }
            let owner = trailer.add(1).cast::<*mut Tally>().read_unaligned();
            NonNull::new(owner).map(|owner| (owner, bytes))
        }
    }

    /// Writes a block's trailer. Returns the bytes that the block has.
    ///
    /// # Safety
    /// `block` is a living block of the C library of which the last bytes are nobody's.
    #[inline]
    unsafe fn sign(&self, block: *mut c_void, owner: NonNull<Tally>) -> usize {
        // SAFETY: as the caller says.
        unsafe {
            let bytes = usable_bytes(block);
            let trailer = block.byte_add(bytes - TRAILER_BYTES).cast::<u64>();
            trailer.write_unaligned(self.mark_of(block));
            let place = trailer.add(1).cast::<*mut Tally>();
            place.write_unaligned(owner.as_ptr());
            bytes
        }
    }

    /// Writes a block's trailer, and charges the owner.
    ///
    /// # Safety
    /// As for [`sign`](Self::sign); `owner` lives.
    #[inline]
    unsafe fn own(&self, block: *mut c_void, owner: NonNull<Tally>) {
        // SAFETY: as the caller says.
        unsafe { owner.as_ref().charge(self.sign(block, owner)) };
    }

    /// Takes the mark off a block of `bytes` bytes, so that no later block at its place seems to have an owner.
    ///
    /// # Safety
    /// [`owner`](Self::owner) has found one.
    #[inline]
    unsafe fn disown(block: *mut c_void, bytes: usize) {
        // SAFETY: as the caller says.
        unsafe {
            block
                .byte_add(bytes - TRAILER_BYTES)
                .cast::<u64>()
                .write_unaligned(0)
        };
    }
}

/// Returns whether `owner` may get `extra` bytes for a block of `bytes`.
///
/// # Safety
/// `owner` lives.
#[inline]
unsafe fn admitted(owner: NonNull<Tally>, extra: usize, bytes: usize) -> bool {
    // SAFETY: as the caller says.
    let tally = unsafe { owner.as_ref() };
    // No block has as many bytes, and what the interpreter makes of that is not this limit's doing.
    bytes <= REQUEST_BYTES_MAX && tally.admits(extra, bytes)
}

extern "C" fn raw_malloc(context: *mut c_void, bytes: usize) -> *mut c_void {
    let previous = Previous::get();
    let Some(owner) = charged() else {
        return (previous.malloc)(context, bytes);
    };
    // SAFETY: a thread's tally lives while it is charged, and the block is new and has room for the trailer.
    unsafe {
        if !admitted(owner, bytes, bytes) {
            return null_mut();
        }
        let block = (previous.malloc)(context, bytes + TRAILER_BYTES);
        if !block.is_null() {
            previous.own(block, owner);
        }
        block
    }
}

extern "C" fn raw_calloc(context: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let previous = Previous::get();
    let Some(owner) = charged() else {
        return (previous.calloc)(context, count, size);
    };
    let bytes = count.saturating_mul(size);
    // SAFETY: as in `raw_malloc`.
    unsafe {
        if !admitted(owner, bytes, bytes) {
            return null_mut();
        }
        let block = (previous.calloc)(context, 1, bytes + TRAILER_BYTES);
        if !block.is_null() {
            previous.own(block, owner);
        }
        block
    }
}

extern "C" fn raw_realloc(context: *mut c_void, block: *mut c_void, bytes: usize) -> *mut c_void {
    if block.is_null() {
        return raw_malloc(context, bytes);
    }
    let previous = Previous::get();
    // SAFETY: CPython gives back what it got from us or from what was there before; its owner lives, and so does the
    // tally that this thread charges.
    unsafe {
        let former = previous.owner(block);
        let grows = bytes > usable_bytes(block) - former.map_or(0, |_| TRAILER_BYTES);
        // What shrinks stays with its owner: nobody expects that to fail.
        let limited = charged().filter(|_| grows);
        let Some(owner) = limited.or(former.map(|(owner, _)| owner)) else {
            return (previous.realloc)(context, block, bytes);
        };
        if bytes > REQUEST_BYTES_MAX {
            return null_mut();
        }
        let own_bytes = former.map_or(0, |(former, own)| if former == owner { own } else { 0 });
        let extra = bytes.saturating_sub(own_bytes);
        if limited.is_some() && !admitted(owner, extra, bytes) {
            return null_mut();
        }
        move_block(previous, context, block, bytes, former, owner)
    }
}

/// Resizes a block and passes it on from its former owner to `owner`.
///
/// # Safety
/// `block` is alive, `former` is what owns it, and `owner` lives.
unsafe fn move_block(
    previous: &Previous,
    context: *mut c_void,
    block: *mut c_void,
    bytes: usize,
    former: Option<(NonNull<Tally>, usize)>,
    owner: NonNull<Tally>,
) -> *mut c_void {
    // SAFETY: as the caller says; after a failure the old block is as it was, but for its mark.
    unsafe {
        if let Some((_, charged)) = former {
            Previous::disown(block, charged);
        }
        let moved = (previous.realloc)(context, block, bytes + TRAILER_BYTES);
        if moved.is_null() {
            if let Some((_, charged)) = former {
                let trailer = block.byte_add(charged - TRAILER_BYTES).cast::<u64>();
                trailer.write_unaligned(previous.mark_of(block));
            }
            return moved;
        }
        match former {
            Some((former, charged)) if former == owner => {
                Tally::recharge(owner, charged, previous.sign(moved, owner));
            }
            Some((former, charged)) => {
                previous.own(moved, owner);
                Tally::credit(former, charged);
            }
            None => previous.own(moved, owner),
        }
        moved
    }
}

extern "C" fn raw_free(context: *mut c_void, block: *mut c_void) {
    let previous = Previous::get();
    if block.is_null() {
        return (previous.free)(context, block);
    }
    // SAFETY: CPython gives back what it got from us or from what was there before; its bytes are credited once.
    unsafe {
        let former = previous.owner(block);
        if let Some((_, bytes)) = former {
            Previous::disown(block, bytes);
        }
        (previous.free)(context, block);
        if let Some((owner, bytes)) = former {
            Tally::credit(owner, bytes);
        }
    }
}

#[cfg(test)]
#[path = "allocators_tests.rs"]
mod tests;
