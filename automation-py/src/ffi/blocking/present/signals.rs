//! The signal that interrupts calls into the kernel, and the signals that end child processes.
//!
//! The signal is a real-time one that nobody uses, and its handler does nothing: a blocked call fails with `EINTR`.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr;
use std::sync::OnceLock;

use super::waits;

/// Which signal it is; `None` when every one is taken.
static SIGNAL: OnceLock<Option<c_int>> = OnceLock::new();
/// Lower real-time signals are used by debuggers and run-times.
const FIRST: c_int = 8;

extern "C" fn nothing(_: c_int) {}

/// Takes a signal that nobody uses. Returns whether there was one.
pub(super) fn install() -> bool {
    SIGNAL
        .get_or_init(|| (libc::SIGRTMIN() + FIRST..=libc::SIGRTMAX()).find(|&signal| take(signal)))
        .is_some()
}

fn handler_of(signal: c_int) -> usize {
    // SAFETY: all-zero is a valid value, and null asks without changing.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut action);
        action.sa_sigaction
    }
}

fn take(signal: c_int) -> bool {
    if handler_of(signal) != libc::SIG_DFL {
        return false;
    }
    // SAFETY: all-zero is a valid value; the handler touches nothing. Without SA_RESTART calls are not repeated.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0
    }
}

/// Lets the signal reach the calling thread.
pub(crate) fn unblock() {
    if let Some(Some(signal)) = SIGNAL.get() {
        // SAFETY: `set` is filled in before it is used.
        unsafe {
            let mut set = zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, *signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        }
    }
}

/// Sets a thread's mask; on a thread of a run the signal stays let through.
pub(super) unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    set: *const libc::sigset_t,
    former: *mut libc::sigset_t,
) -> c_int {
    // SAFETY: the arguments are the caller's; the copy is one of a valid set.
    unsafe {
        let (Some(Some(signal)), false, true) = (SIGNAL.get(), set.is_null(), waits::is_bound())
        else {
            return libc::pthread_sigmask(how, set, former);
        };
        let mut set = set.read();
        if how != libc::SIG_UNBLOCK {
            libc::sigdelset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(how, &raw const set, former)
    }
}

/// Interrupts the call into the kernel that a thread of this process is in. Not if somebody else has taken the signal.
pub(crate) fn interrupt(thread: i32) {
    if let Some(Some(signal)) = SIGNAL.get()
        && handler_of(*signal) == nothing as *const () as usize
    {
        // SAFETY: sends a signal whose handler does nothing; a thread that is gone is answered with an error.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, *signal) };
    }
}

/// Sends a process a signal. One that is gone is left alone.
pub(crate) fn signal_process(process: i32, signal: c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(process, signal) };
}

/// Reaps the children of the calling thread that have ended. Returns whether it has others.
pub(crate) fn reap_children() -> bool {
    let options = libc::WNOHANG | libc::__WNOTHREAD;
    loop {
        // SAFETY: null asks for no status.
        match unsafe { libc::waitpid(-1, ptr::null_mut(), options) } {
            0 => return true,
            -1 => return false,
            _ => {}
        }
    }
}

/// Reaps a child of this process, whichever of its threads the kernel counts it to, if it has ended.
pub(crate) fn reap_child(process: i32) {
    // SAFETY: null asks for no status.
    unsafe { libc::waitpid(process, ptr::null_mut(), libc::WNOHANG) };
}

/// Returns the calling thread's number in the kernel.
pub(crate) fn thread_number() -> i32 {
    // SAFETY: may be called on any thread.
    unsafe { libc::gettid() }
}

/// Returns the kernel's clock ticks since the machine started, in which it tells when a process began.
pub(crate) fn ticks_since_boot() -> u64 {
    // SAFETY: `now` is a valid place; the constant is the system's.
    unsafe {
        let mut now: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now);
        let ticks = libc::sysconf(libc::_SC_CLK_TCK).unsigned_abs();
        now.tv_sec.unsigned_abs() * ticks + now.tv_nsec.unsigned_abs() * ticks / 1_000_000_000
    }
}
