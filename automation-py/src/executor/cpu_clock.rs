//! The processor time that runs use on their worker thread.

use std::time::{Duration, Instant};

use crate::ffi::{ThreadClock, thread_cpu_time};

/// Runs shorter than this are taken to have used the processor all the time: reading the clock is a call into
/// the kernel, which would be a tenth of such a run.
const SHORT: Duration = Duration::from_micros(200);
/// Time for which a reading is carried forward instead of being repeated.
const FRESH: Duration = Duration::from_millis(1);

/// The clock of one thread, read as seldom as that allows.
#[derive(Debug)]
pub(super) struct CpuClock {
    thread: ThreadClock,
    /// The last reading, and when it was taken.
    last: Option<(Instant, Duration)>,
}

impl CpuClock {
    /// Creates the clock of the calling thread.
    pub(super) fn of_this_thread() -> Self {
        Self {
            thread: ThreadClock::of_this_thread(),
            last: None,
        }
    }

    /// Returns the same clock for others to read.
    pub(super) fn thread(&self) -> ThreadClock {
        self.thread
    }

    /// Forgets the last reading: the thread waits now.
    pub(super) fn pause(&mut self) {
        self.last = None;
    }

    /// Returns what the clock shows, within what the thread may have idled since a fresh reading.
    pub(super) fn start(&mut self) -> Duration {
        let now = Instant::now();
        match self.last {
            Some((at, reading)) if now - at < FRESH => reading + (now - at),
            _ => self.read(now),
        }
    }

    /// Returns what was used since `start`, `elapsed` ago.
    pub(super) fn stop(&mut self, start: Duration, elapsed: Duration) -> Duration {
        if elapsed < SHORT {
            return elapsed;
        }
        let reading = self.read(Instant::now());
        reading.saturating_sub(start).min(elapsed)
    }

    fn read(&mut self, now: Instant) -> Duration {
        let reading = thread_cpu_time();
        self.last = Some((now, reading));
        reading
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::CpuClock;

    #[test]
    fn work_counts_and_waiting_does_not() {
        let mut clock = CpuClock::of_this_thread();
        let (begin, start) = (Instant::now(), clock.start());
        while begin.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let busy = clock.stop(start, begin.elapsed());
        assert!(busy >= Duration::from_millis(2), "{busy:?}");
        let (begin, start) = (Instant::now(), clock.start());
        std::thread::sleep(Duration::from_millis(20));
        let idle = clock.stop(start, begin.elapsed());
        assert!(idle < Duration::from_millis(5), "{idle:?}");
    }
}
