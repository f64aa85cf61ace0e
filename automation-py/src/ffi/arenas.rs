//! Hooks in the allocator of arenas, which small objects are cut from, and of the chunks that frames of Python functions
//! lie in: they charge the calling thread's [`Tally`]. All of them are called with the GIL held.

use std::collections::HashMap;
use std::os::raw::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use parking_lot::Mutex;
use pyo3::ffi::{
    PyExc_MemoryError, PyObject_GetArenaAllocator, PyObject_SetArenaAllocator,
    PyObjectArenaAllocator, PyThread_get_thread_ident, PyThreadState_SetAsyncExc,
};
use pyo3::prelude::*;

use super::tally::{Tally, charged};

struct Previous {
    context: *mut c_void,
    alloc: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: extern "C" fn(*mut c_void, *mut c_void, usize),
}

// SAFETY: the context is CPython's or another hook's to guard, and is used with the GIL held as they expect.
unsafe impl Send for Previous {}
// SAFETY: as above.
unsafe impl Sync for Previous {}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();
/// The owners of charged arenas. Used with the GIL held, so that no fork finds it locked.
static ARENAS: Mutex<Option<HashMap<usize, Owner>>> = Mutex::new(None);

/// A tally, kept alive by what is charged to it.
#[derive(Clone, Copy)]
struct Owner(NonNull<Tally>);

// SAFETY: a tally is atomics only.
unsafe impl Send for Owner {}

/// Puts the hooks in. `None` when there is nothing that they could call.
pub(super) fn install(_py: Python<'_>) -> Option<()> {
    let mut arena = PyObjectArenaAllocator {
        ctx: null_mut(),
        alloc: None,
        free: None,
    };
    // SAFETY: attached, as the token shows; writes the struct.
    unsafe { PyObject_GetArenaAllocator(&raw mut arena) };
    let _ = PREVIOUS.set(Previous {
        context: arena.ctx,
        alloc: arena.alloc?,
        free: arena.free?,
    });
    let mut hooks = PyObjectArenaAllocator {
        ctx: null_mut(),
        alloc: Some(arena_alloc),
        free: Some(arena_free),
    };
    // SAFETY: attached; the functions keep CPython's contract for allocators.
    unsafe { PyObject_SetArenaAllocator(&raw mut hooks) };
    Some(())
}

extern "C" fn arena_alloc(_context: *mut c_void, bytes: usize) -> *mut c_void {
    let previous = PREVIOUS.get().expect("kept before the hooks are put in");
    let alloc = || (previous.alloc)(previous.context, bytes);
    let Some(owner) = charged() else {
        return alloc();
    };
    // SAFETY: a thread's tally lives while it is charged.
    let tally = unsafe { owner.as_ref() };
    let frames = !ARENA_BYTES.contains(&bytes);
    if frames && !tally.has_room_for_frames(bytes) {
        tally.refuse();
        raise_memory_error();
    } else if !frames && !tally.has_room(bytes) {
        // Small objects become raw blocks then, which the reserve is for.
        return null_mut();
    }
    let arena = alloc();
    if !arena.is_null() {
        if frames {
            tally.charge_frames(bytes);
        } else {
            tally.charge(bytes);
        }
        let mut arenas = ARENAS.lock();
        arenas
            .get_or_insert_default()
            .insert(arena as usize, Owner(owner));
    }
    arena
}

/// The sizes of arenas for objects, before Python 3.10 and since. What else comes from here are chunks of the stack of
/// Python frames.
const ARENA_BYTES: [usize; 2] = [256 * 1024, 1024 * 1024];

/// Raises `MemoryError` at the start of the function that this thread is about to call: CPython 3.11 counts its
/// references wrongly when there is no memory for a function's frame.
fn raise_memory_error() {
    // SAFETY: CPython calls for a chunk with the GIL held; the exception's class is immortal.
    unsafe {
        let thread = PyThread_get_thread_ident();
        PyThreadState_SetAsyncExc(thread.cast_signed(), PyExc_MemoryError);
    }
}

extern "C" fn arena_free(_context: *mut c_void, arena: *mut c_void, bytes: usize) {
    let previous = PREVIOUS.get().expect("kept before the hooks are put in");
    let owner = ARENAS
        .lock()
        .as_mut()
        .and_then(|arenas| arenas.remove(&(arena as usize)));
    (previous.free)(previous.context, arena, bytes);
    if let Some(Owner(owner)) = owner {
        // SAFETY: charged when it was allocated.
        unsafe {
            if ARENA_BYTES.contains(&bytes) {
                Tally::credit(owner, bytes);
            } else {
                Tally::credit_frames(owner, bytes);
            }
        }
    }
}
