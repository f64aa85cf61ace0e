//! Clocks of the processor time of threads: the calling one's, and another's, which is read without the GIL.

use std::mem::MaybeUninit;
use std::time::Duration;

/// The clock of one thread, that any thread can read while that one lives. Once it has ended, its clock may be that
/// of a later thread of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadClock(Option<libc::clockid_t>);

impl ThreadClock {
    /// Returns the calling thread's.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_this_thread() -> Self {
        let mut clock = MaybeUninit::uninit();
        // SAFETY: this thread lives, and the call writes the clock's number where it answers 0.
        let clock = unsafe {
            let answer = libc::pthread_getcpuclockid(libc::pthread_self(), clock.as_mut_ptr());
            (answer == 0).then(|| clock.assume_init())
        };
        Self(clock)
    }

    /// Returns a clock that shows nothing: this system has none for other threads.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of_this_thread() -> Self {
        Self(None)
    }

    /// Returns what it shows; `None` when there is no such thread.
    pub(crate) fn read(self) -> Option<Duration> {
        read(self.0?)
    }
}

/// Returns the processor time that the calling thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes the time where it answers 0.
    let time = unsafe {
        let answer = libc::clock_gettime(clock, time.as_mut_ptr());
        (answer == 0).then(|| time.assume_init())
    }?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(time.tv_sec.unsigned_abs(), nanoseconds))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::{ThreadClock, thread_cpu_time};

    #[test]
    fn another_threads_clock_is_read_while_it_lives() {
        let (clock_sender, clocks) = channel();
        let (end, ends) = channel::<()>();
        let thread = std::thread::spawn(move || {
            while thread_cpu_time() < Duration::from_millis(20) {}
            clock_sender.send(ThreadClock::of_this_thread()).unwrap();
            let _ = ends.recv();
        });
        let clock = clocks.recv().unwrap();
        assert!(clock.read().unwrap() >= Duration::from_millis(20));
        drop(end);
        thread.join().unwrap();
        assert!(
            clock
                .read()
                .is_none_or(|time| time < Duration::from_millis(20))
        );
    }
}
