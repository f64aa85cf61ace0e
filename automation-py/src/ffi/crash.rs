//! What a fatal signal leaves behind: the id of the run whose thread it struck, written to a file that is open
//! already. Everything that the handler does may be done in a signal handler.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// A run's id.
pub(crate) type RunId = [u8; 16];

/// The id on a thread without a run.
const NO_RUN: RunId = [0; 16];

/// The signals that end a process for what it did itself.
const FATAL: [c_int; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
];

thread_local! {
    // Without a destructor and initialised by a constant: readable in a signal handler.
    static RUN: Cell<RunId> = const { Cell::new(NO_RUN) };
}

/// The file; -1 for none. It stays open: a handler may be about to write to it.
static FILE: AtomicI32 = AtomicI32::new(-1);
/// What each signal did before.
static FORMER: [OnceLock<libc::sigaction>; FATAL.len()] = [const { OnceLock::new() }; FATAL.len()];

/// Says which run the calling thread belongs to from now on; `None` for none.
pub(crate) fn note_run(id: Option<RunId>) {
    RUN.set(id.unwrap_or(NO_RUN));
}

/// Writes the ids of runs that a fatal signal strikes to `file` from now on.
pub(crate) fn write_to(file: File) {
    FILE.store(file.into_raw_fd(), Ordering::Release);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(install);
}

/// Writes nothing from now on: a forked copy's crash is not the host's.
pub(crate) fn write_nothing() {
    FILE.store(-1, Ordering::Release);
}

fn install() {
    for (signal, former) in FATAL.into_iter().zip(&FORMER) {
        let mut present = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: reads the present action into a place that is large enough.
        if unsafe { libc::sigaction(signal, std::ptr::null(), present.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: filled by the call.
        let present = unsafe { present.assume_init() };
        // Before the handler is there, which reads it.
        let _ = former.set(present);
        let mut ours = present;
        ours.sa_sigaction = on_fatal as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (present.sa_flags & libc::SA_NODEFER);
        // SAFETY: the handler has the three arguments that SA_SIGINFO promises, and does only what it may.
        unsafe { libc::sigaction(signal, &raw const ours, std::ptr::null_mut()) };
    }
}

/// # Safety
/// Called by the kernel as a handler with SA_SIGINFO.
unsafe extern "C" fn on_fatal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    write_id();
    let place = FATAL.iter().position(|fatal| *fatal == signal);
    let former = place.and_then(|place| FORMER[place].get());
    // SAFETY: the arguments are the kernel's own.
    unsafe { pass_on(signal, info, context, former) };
}

fn write_id() {
    let (file, id) = (FILE.load(Ordering::Acquire), RUN.get());
    if file >= 0 && id != NO_RUN {
        // SAFETY: `write` may be called here; the descriptor is never closed. What it can't write, nobody can.
        unsafe { libc::write(file, id.as_ptr().cast(), id.len()) };
    }
}

/// Does what the signal did before.
///
/// # Safety
/// The arguments are those of a handler that is being called.
unsafe fn pass_on(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    former: Option<&libc::sigaction>,
) {
    let action = former.map_or(libc::SIG_DFL, |former| former.sa_sigaction);
    let flags = former.map_or(0, |former| former.sa_flags);
    if action == libc::SIG_DFL || action == libc::SIG_IGN {
        // SAFETY: the signal's own default, which ends the process: at once, or when the fault repeats. Raised
        // as well, since one that another process sent does not repeat.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    } else if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: a handler that was installed with SA_SIGINFO takes these arguments.
        unsafe {
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                std::mem::transmute(action);
            handler(signal, info, context);
        }
    } else {
        // SAFETY: a handler that was installed without SA_SIGINFO takes the signal alone.
        unsafe {
            let handler: extern "C" fn(c_int) = std::mem::transmute(action);
            handler(signal);
        }
    }
}
