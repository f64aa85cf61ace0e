//! Waits of the C library that end when the run of their thread was cut short.
//!
//! CPython and the libraries around it repeat a call that a signal interrupted. The functions here stand in for the
//! blocking ones (`interpose` puts them there): on a thread of a run that was cut, an interrupted call fails with
//! `ECANCELED`, which nobody repeats. On every other thread they add one read of a thread-local.
//!
//! Knows a run as one atomic word. May run without the GIL, in a child after `vfork`, and in any library.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use libc::{
    epoll_event, fd_set, id_t, idtype_t, iovec, mmsghdr, mode_t, msghdr, nfds_t, off_t, pid_t,
    pollfd, rusage, sem_t, siginfo_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t, timespec,
    timeval,
};

use crate::ffi::blocking::CUT;

/// After an interruption or an ended wait the next ones of that thread are spared for so long: what cleans up takes its
/// locks and writes its last bytes, and what catches everything does not spin.
const SPARED_NS: i64 = 40_000_000;
/// Time for which waits within an import are let be.
const IMPORT_SPARED_NS: i64 = 300_000_000;

/// What a wait for a lock may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LockWait {
    /// Its caller takes no failure for an answer: it goes on.
    Uninterruptible,
    /// Its caller is one of Python's lock methods.
    Interruptible,
    /// It was ended.
    Ended,
}

// Constant and without destructors, so that they can be read on any thread at any time.
thread_local! {
    static WORD: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
    static SPARED_UNTIL: Cell<i64> = const { Cell::new(0) };
    /// When a wait within an import was spared first; 0 is never.
    static IMPORT_SPARED: Cell<i64> = const { Cell::new(0) };
    static LOCK_WAIT: Cell<LockWait> = const { Cell::new(LockWait::Uninterruptible) };
}

/// Is told the processor time of each child that a run's thread has reaped.
pub(crate) type ChildReaped = fn(Duration);

thread_local! {
    /// Whether a call was ended whose failure nobody has looked at yet.
    static CALL_ENDED: Cell<bool> = const { Cell::new(false) };
}

static CHILD_REAPED: OnceLock<ChildReaped> = OnceLock::new();

/// Sets who is told of children, once.
pub(crate) fn on_child_reaped(told: ChildReaped) {
    let _ = CHILD_REAPED.set(told);
}

/// Ties this thread's waits to the word of a run. It has to stay where it is until [`unbind`].
pub(crate) fn bind(word: &AtomicU8) {
    SPARED_UNTIL.set(0);
    IMPORT_SPARED.set(0);
    CALL_ENDED.set(false);
    LOCK_WAIT.set(LockWait::Uninterruptible);
    WORD.set(word);
}

/// Lets this thread's waits be again.
pub(crate) fn unbind() {
    WORD.set(ptr::null());
}

/// Whether this process is a copy that a run forked: all its children are that run's.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// Notes that this process is a copy that a run forked.
pub(crate) fn note_copy() {
    IS_COPY.store(true, Ordering::Relaxed);
}

/// Returns whether this thread shares its process, and so its children, with other runs.
fn has_others() -> bool {
    is_bound() && !IS_COPY.load(Ordering::Relaxed)
}

/// Returns whether this thread belongs to a run.
pub(super) fn is_bound() -> bool {
    !WORD.get().is_null()
}

/// Returns whether this thread belongs to a run that was cut short.
pub(crate) fn is_cut() -> bool {
    let word = WORD.get();
    // SAFETY: `bind` was given a reference that outlives the binding.
    !word.is_null() && unsafe { (*word).load(Ordering::Acquire) } & CUT != 0
}

fn now_ns() -> i64 {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Decides about a wait that a signal interrupted.
fn ends_now() -> bool {
    if !is_cut() {
        return false;
    }
    let now = now_ns();
    if crate::ffi::is_importing() && is_spared_import(now) {
        return false;
    }
    let ends = now >= SPARED_UNTIL.get();
    if ends {
        SPARED_UNTIL.set(now + SPARED_NS);
    }
    ends
}

/// Takes note that an interruption was raised in this thread. If none of its waits was ended yet, the next ones are
/// spared all the same; later interruptions spare none, or those that repeat would end no wait any more.
pub(crate) fn spare() {
    if is_cut() && SPARED_UNTIL.get() == 0 {
        SPARED_UNTIL.set(now_ns() + SPARED_NS);
    }
}

/// Returns whether an import may still go on: one that is broken off may leave a module half imported, for everybody.
fn is_spared_import(now: i64) -> bool {
    if IMPORT_SPARED.get() == 0 {
        IMPORT_SPARED.set(now);
    }
    now - IMPORT_SPARED.get() < IMPORT_SPARED_NS
}

fn errno() -> c_int {
    // SAFETY: the thread's own place.
    unsafe { *libc::__errno_location() }
}

fn set_errno(code: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = code };
}

/// Passes the result of a call on, or says that it was cancelled.
fn judged<T: PartialEq + From<i8>>(result: T) -> T {
    if result == T::from(-1) && is_bound() && errno() == libc::EINTR && ends_now() {
        CALL_ENDED.set(true);
        set_errno(libc::ECANCELED);
    }
    result
}

/// Returns, once, whether the failure that is being reported is that of a call that was ended.
pub(super) fn take_ended_call() -> bool {
    errno() == libc::ECANCELED && CALL_ENDED.take()
}

/// Calls one of Python's lock methods. Returns its result, and whether its wait was ended.
pub(super) fn in_lock_method<R>(call: impl FnOnce() -> R) -> (R, bool) {
    let outer = LOCK_WAIT.replace(LockWait::Interruptible);
    let result = call();
    (result, LOCK_WAIT.replace(outer) == LockWait::Ended)
}

/// Waits for a semaphore of Python's own. Its callers know success and `ETIMEDOUT`; those that are no lock methods know
/// success only, and some are harmed by `EINTR` (a parked thread in 3.13.0), so that it stays in here.
fn semaphore(wait: impl Fn() -> c_int) -> c_int {
    loop {
        let result = wait();
        if result != -1 || !is_bound() || errno() != libc::EINTR {
            return result;
        }
        if LOCK_WAIT.get() == LockWait::Interruptible && ends_now() {
            LOCK_WAIT.set(LockWait::Ended);
            set_errno(libc::ETIMEDOUT);
            return result;
        }
    }
}

unsafe extern "C" {
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: size_t, size: size_t) -> ssize_t;
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, size: size_t) -> c_int;
    fn __recv_chk(
        fd: c_int,
        buffer: *mut c_void,
        count: size_t,
        size: size_t,
        flags: c_int,
    ) -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int,
        buffer: *mut c_void,
        count: size_t,
        size: size_t,
        flags: c_int,
        address: *mut sockaddr,
        length: *mut socklen_t,
    ) -> ssize_t;
    fn sem_clockwait(semaphore: *mut sem_t, clock: c_int, end: *const timespec) -> c_int;
    fn preadv64v2(
        fd: c_int,
        buffers: *const iovec,
        count: c_int,
        offset: i64,
        flags: c_int,
    ) -> ssize_t;
    fn pwritev64v2(
        fd: c_int,
        buffers: *const iovec,
        count: c_int,
        offset: i64,
        flags: c_int,
    ) -> ssize_t;
    fn perror(text: *const c_char);
}

/// Defines stand-ins for functions that answer -1 and leave the cause in `errno`.
macro_rules! stand_ins {
    ($($name:ident => $original:path, ($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        pub(super) unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            // SAFETY: the arguments are the caller's, who meant them for this very function.
            judged(unsafe { $original($($argument),*) })
        }
    )*};
}

stand_ins! {
    read => libc::read, (fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t;
    read_checked => __read_chk, (fd: c_int, buffer: *mut c_void, count: size_t, size: size_t) -> ssize_t;
    readv => libc::readv, (fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t;
    pread => libc::pread64, (fd: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t;
    preadv2 => preadv64v2, (fd: c_int, buffers: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t;
    write => libc::write, (fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t;
    writev => libc::writev, (fd: c_int, buffers: *const iovec, count: c_int) -> ssize_t;
    pwrite => libc::pwrite64, (fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t;
    pwritev2 => pwritev64v2, (fd: c_int, buffers: *const iovec, count: c_int, offset: i64, flags: c_int) -> ssize_t;
    sendfile => libc::sendfile64, (to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t;
    splice => libc::splice, (from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, count: size_t, flags: c_uint) -> ssize_t;
    poll => libc::poll, (fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    poll_checked => __poll_chk, (fds: *mut pollfd, count: nfds_t, timeout: c_int, size: size_t) -> c_int;
    ppoll => libc::ppoll, (fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int;
    select => libc::select, (count: c_int, reads: *mut fd_set, writes: *mut fd_set, errors: *mut fd_set, timeout: *mut timeval) -> c_int;
    pselect => libc::pselect, (count: c_int, reads: *mut fd_set, writes: *mut fd_set, errors: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int;
    epoll_wait => libc::epoll_wait, (fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int;
    epoll_pwait => libc::epoll_pwait, (fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t) -> c_int;
    recv => libc::recv, (fd: c_int, buffer: *mut c_void, count: size_t, flags: c_int) -> ssize_t;
    recv_checked => __recv_chk, (fd: c_int, buffer: *mut c_void, count: size_t, size: size_t, flags: c_int) -> ssize_t;
    recvfrom => libc::recvfrom, (fd: c_int, buffer: *mut c_void, count: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t) -> ssize_t;
    recvfrom_checked => __recvfrom_chk, (fd: c_int, buffer: *mut c_void, count: size_t, size: size_t, flags: c_int, address: *mut sockaddr, length: *mut socklen_t) -> ssize_t;
    recvmsg => libc::recvmsg, (fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    recvmmsg => libc::recvmmsg, (fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int;
    send => libc::send, (fd: c_int, buffer: *const c_void, count: size_t, flags: c_int) -> ssize_t;
    sendto => libc::sendto, (fd: c_int, buffer: *const c_void, count: size_t, flags: c_int, address: *const sockaddr, length: socklen_t) -> ssize_t;
    sendmsg => libc::sendmsg, (fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    accept => libc::accept, (fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    accept4 => libc::accept4, (fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int;
    connect => libc::connect, (fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    nanosleep => libc::nanosleep, (time: *const timespec, left: *mut timespec) -> c_int;
    flock => libc::flock, (fd: c_int, operation: c_int) -> c_int;
    lockf => libc::lockf, (fd: c_int, operation: c_int, length: i64) -> c_int;
    sigwaitinfo => libc::sigwaitinfo, (set: *const sigset_t, info: *mut siginfo_t) -> c_int;
    sigtimedwait => libc::sigtimedwait, (set: *const sigset_t, info: *mut siginfo_t, timeout: *const timespec) -> c_int;
    // These take a variable number of arguments, which on the supported processors are passed like fixed ones.
    fcntl => libc::fcntl, (fd: c_int, operation: c_int, argument: *mut c_void) -> c_int;
    open => libc::open64, (path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat => libc::openat64, (folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
}

/// Answers with the error's number.
pub(super) unsafe extern "C" fn clock_nanosleep(
    clock: c_int,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    // SAFETY: the arguments are the caller's.
    let code = unsafe { libc::clock_nanosleep(clock, flags, time, left) };
    if code == libc::EINTR && ends_now() {
        CALL_ENDED.set(true);
        return libc::ECANCELED;
    }
    code
}

/// Answers with the error's number; the original never tells of an interruption.
pub(super) unsafe extern "C" fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int {
    if !is_bound() {
        // SAFETY: the arguments are the caller's.
        return unsafe { libc::sigwait(set, signal) };
    }
    loop {
        // SAFETY: as above; no information is asked for.
        match judged(unsafe { libc::sigwaitinfo(set, ptr::null_mut()) }) {
            -1 if errno() == libc::EINTR => {}
            -1 => return errno(),
            found => {
                // SAFETY: the caller's place for the answer.
                unsafe { *signal = found };
                return 0;
            }
        }
    }
}

pub(super) unsafe extern "C" fn wait4(
    pid: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    if !is_bound() {
        // SAFETY: the arguments are the caller's.
        return unsafe { libc::wait4(pid, status, options, usage) };
    }
    let mut code = 0;
    // SAFETY: all-zero is a valid value of its integers.
    let mut used: rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid.
    let mut ask = |options| unsafe { libc::wait4(pid, &raw mut code, options, &raw mut used) };
    let own = options | libc::__WNOTHREAD;
    let (reaped, is_own) = match has_others() {
        // Any child: those of other runs and of the host are theirs.
        true if pid == -1 || pid == 0 => (judged(ask(own)), true),
        // The library looks after programs that other runs gave up, too.
        true if options & libc::WNOHANG != 0 => match ask(own) {
            -1 => (judged(ask(options)), false),
            reaped => (reaped, true),
        },
        _ => (judged(ask(options)), true),
    };
    if is_own && reaped > 0 && (libc::WIFEXITED(code) || libc::WIFSIGNALED(code)) {
        tell_of_child(&used);
    }
    // SAFETY: the caller's places, null where the answer is not wanted.
    unsafe {
        if reaped > 0 && !status.is_null() {
            *status = code;
        }
        if reaped > 0 && !usage.is_null() {
            *usage = used;
        }
    }
    reaped
}

/// Any child means one of the calling thread's, as with [`wait4`].
pub(super) unsafe extern "C" fn waitid(
    kind: idtype_t,
    id: id_t,
    info: *mut siginfo_t,
    options: c_int,
) -> c_int {
    let any = kind == libc::P_ALL || (kind == libc::P_PGID && id == 0);
    let own = if any && has_others() {
        libc::__WNOTHREAD
    } else {
        0
    };
    // SAFETY: the arguments are the caller's.
    judged(unsafe { libc::waitid(kind, id, info, options | own) })
}

pub(super) unsafe extern "C" fn wait3(
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    // SAFETY: the arguments are the caller's.
    unsafe { wait4(-1, status, options, usage) }
}

pub(super) unsafe extern "C" fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: the arguments are the caller's.
    unsafe { wait4(pid, status, options, ptr::null_mut()) }
}

pub(super) unsafe extern "C" fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: the argument is the caller's.
    unsafe { wait4(-1, status, 0, ptr::null_mut()) }
}

fn tell_of_child(used: &rusage) {
    let Some(told) = CHILD_REAPED.get() else {
        return;
    };
    let time =
        |value: timeval| Duration::new(value.tv_sec.unsigned_abs(), value.tv_usec as u32 * 1000);
    told(time(used.ru_utime) + time(used.ru_stime));
}

pub(super) unsafe extern "C" fn sem_wait(place: *mut sem_t) -> c_int {
    // SAFETY: the argument is the caller's.
    semaphore(|| unsafe { libc::sem_wait(place) })
}

pub(super) unsafe extern "C" fn sem_timedwait(place: *mut sem_t, end: *const timespec) -> c_int {
    // SAFETY: the arguments are the caller's.
    semaphore(|| unsafe { libc::sem_timedwait(place, end) })
}

pub(super) unsafe extern "C" fn sem_clockwait_until(
    place: *mut sem_t,
    clock: c_int,
    end: *const timespec,
) -> c_int {
    // SAFETY: the arguments are the caller's.
    semaphore(|| unsafe { sem_clockwait(place, clock, end) })
}

pub(super) unsafe extern "C" fn shared_sem_wait(place: *mut sem_t) -> c_int {
    // SAFETY: the argument is the caller's.
    judged(unsafe { libc::sem_wait(place) })
}

pub(super) unsafe extern "C" fn shared_sem_timedwait(
    place: *mut sem_t,
    end: *const timespec,
) -> c_int {
    // SAFETY: the arguments are the caller's.
    judged(unsafe { libc::sem_timedwait(place, end) })
}

/// CPython writes to standard error that an endless wait for a lock timed out.
pub(super) unsafe extern "C" fn quiet_perror(text: *const c_char) {
    if LOCK_WAIT.get() != LockWait::Ended {
        // SAFETY: the argument is the caller's.
        unsafe { perror(text) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use super::{CALL_ENDED, LOCK_WAIT, LockWait, bind, unbind};

    #[test]
    fn what_a_run_left_on_its_thread_does_not_meet_the_next() {
        CALL_ENDED.set(true);
        LOCK_WAIT.set(LockWait::Ended);
        let word = AtomicU8::new(0);
        bind(&word);
        assert!(!CALL_ENDED.get());
        assert!(LOCK_WAIT.get() == LockWait::Uninterruptible);
        unbind();
    }
}
