//! What one run uses, counted while it runs, and its limits. Inherited by the threads that it starts; what they
//! and the programs that it started have used is added when they end.
//!
//! Knows nothing of who cuts a run short.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use automation_core::executor::{Failure, RunLimits};
use automation_core::{Reason, ResourceUsage};
use parking_lot::Mutex;

use crate::ffi::{Charging, Memory, ThreadClock, charge_nobody, thread_cpu_time};

/// Memory for what follows a script's last line, beyond what it holds then: its traceback, its exit functions.
const ENDING_BYTES: u64 = 16 << 20;
/// What an import may take beyond its run's limit: one that fails half-way leaves a module that nobody can use any
/// more, in the whole process.
const IMPORT_FACTOR: u64 = 4;
const IMPORT_BYTES_MIN: u64 = 256 << 20;
/// Memory that compiling takes for each byte of source, about, where the source is dense.
const COMPILE_FACTOR: u64 = 512;
/// More than a script can allocate in small blocks: those are the ones that it is not refused.
const SMALL_BYTES_PER_SECOND: f64 = 1e9;
/// Time from one look at the memory of a run near its limit to the next.
const MEMORY_LOOK: Duration = Duration::from_millis(20);
/// What is added to it, at most, while there is room.
const MEMORY_LOOK_MAX: Duration = Duration::from_secs(10);
/// Longest time between two looks at the clocks of a run that has a limit of processor time.
const CPU_LOOK: Duration = Duration::from_millis(50);
/// Shortest one.
const CPU_LOOK_MIN: Duration = Duration::from_millis(1);

/// How memory is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryMode {
    /// Not at all.
    Off,
    /// Counted, and nothing is refused.
    Measured,
    /// Counted, and refused beyond the limit.
    Limited,
}

/// The account of a run.
pub(crate) struct Account {
    limits: RunLimits,
    mode: MemoryMode,
    /// `None`: not counted.
    memory: Option<Memory>,
    threads: AtomicU32,
    children: AtomicU32,
    /// Processor time of threads and programs that have ended.
    ended_cpu_ns: AtomicU64,
    /// The worker's clock, and what it showed when the run began.
    worker: OnceLock<(ThreadClock, Duration)>,
    living: Mutex<Vec<ThreadClock>>,
}

impl Account {
    /// Opens an account.
    pub(crate) fn new(limits: RunLimits, mode: MemoryMode) -> Self {
        let limit = match mode {
            MemoryMode::Limited => limits.memory_bytes,
            MemoryMode::Off | MemoryMode::Measured => u64::MAX,
        };
        Self {
            limits,
            mode,
            memory: (mode != MemoryMode::Off).then(|| Memory::new(limit)),
            threads: AtomicU32::new(0),
            children: AtomicU32::new(0),
            ended_cpu_ns: AtomicU64::new(0),
            worker: OnceLock::new(),
            living: Mutex::default(),
        }
    }

    /// Notes the worker's clock and what it shows as the run begins.
    pub(crate) fn begin(&self, worker: ThreadClock, shown: Duration) {
        let _ = self.worker.set((worker, shown));
    }

    /// Charges what this thread allocates to the run until the guard is dropped: while a script's code executes. Our
    /// own code must not be refused anything.
    pub(crate) fn charge(&self) -> Charging {
        match &self.memory {
            Some(memory) => memory.charge(),
            None => charge_nobody(),
        }
    }

    /// Lets what follows the script's last line have memory, whatever the script holds.
    pub(crate) fn allow_ending(&self) {
        if let Some(memory) = &self.memory {
            memory.allow_more(ENDING_BYTES);
        }
    }

    /// Returns whether memory was refused.
    pub(crate) fn was_refused(&self) -> bool {
        self.memory.as_ref().is_some_and(Memory::was_refused)
    }

    /// Returns whether the run has to be stopped since it takes memory that it can't be refused.
    pub(crate) fn is_overrun(&self) -> bool {
        self.memory.as_ref().is_some_and(Memory::is_overrun)
    }

    /// Returns how long the run can't come to that: until somebody has to look again. `None`: it never can.
    pub(crate) fn next_memory_look(&self) -> Option<Duration> {
        let memory = self.memory.as_ref();
        let memory = memory.filter(|_| self.mode == MemoryMode::Limited)?;
        let room = self.limits.memory_bytes.saturating_sub(memory.bytes());
        let filled = Duration::from_secs_f64(room as f64 / SMALL_BYTES_PER_SECOND);
        Some(MEMORY_LOOK + filled.min(MEMORY_LOOK_MAX))
    }

    /// Returns the failure of a run that was refused memory.
    pub(crate) fn memory_failure(&self) -> Failure {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let peak = self.memory.as_ref().map_or(0, Memory::peak);
        let message = format!(
            "asked for more than its {} MiB of memory, of which it held {:.1} MiB",
            mib(self.limits.memory_bytes),
            mib(peak)
        );
        Failure::new(Reason::MemoryLimit, message)
    }

    /// Returns the failure of a run that used more processor time than it may.
    pub(crate) fn cpu_failure(&self) -> Failure {
        let seconds = self.limits.cpu.unwrap_or_default().as_secs_f64();
        Failure::new(
            Reason::CpuLimit,
            format!("used more than {seconds} s of processor time"),
        )
    }

    /// Starts an import on this thread: what it makes stays for the whole process and is not charged to the run,
    /// and only a runaway import is refused memory.
    pub(super) fn import(&self) -> Option<Import<'_>> {
        let memory = self.memory.as_ref().filter(|memory| memory.is_charged())?;
        let limit = match self.mode {
            MemoryMode::Limited => self.beyond_limit().max(IMPORT_BYTES_MIN),
            MemoryMode::Off | MemoryMode::Measured => u64::MAX,
        };
        let own = Memory::new(limit);
        Some(Import {
            charging: Some(own.charge()),
            own,
            run: memory,
        })
    }

    /// Returns whether a source of this many bytes may be compiled; compiling itself is refused nothing, which it
    /// would not survive.
    pub(super) fn admits_source(&self, bytes: u64) -> bool {
        let Some(memory) = &self.memory else {
            return true;
        };
        let fits = self.mode != MemoryMode::Limited
            || bytes.saturating_mul(COMPILE_FACTOR) <= self.beyond_limit();
        if !fits {
            memory.refuse();
        }
        fits
    }

    fn beyond_limit(&self) -> u64 {
        self.limits.memory_bytes.saturating_mul(IMPORT_FACTOR)
    }

    /// Counts a thread that the run starts. Called on that thread.
    pub(super) fn thread_started(&self) -> StartedThread<'_> {
        let clock = ThreadClock::of_this_thread();
        self.threads.fetch_add(1, Ordering::Relaxed);
        self.living.lock().push(clock);
        StartedThread {
            account: self,
            clock,
        }
    }

    /// Counts a program that the run is about to start. `false`, and not counted, when it may start no more.
    pub(crate) fn child_started(&self) -> bool {
        let max = self.limits.children_max.unwrap_or(u32::MAX);
        let more = |started: u32| (started < max).then(|| started + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.children.try_update(set, fetch, more).is_ok()
    }

    /// Returns whether it has started a program.
    pub(crate) fn has_started_children(&self) -> bool {
        self.children.load(Ordering::Relaxed) > 0
    }

    /// Adds the processor time of a program that the run started, when it has ended.
    pub(crate) fn child_ended(&self, cpu: Duration) {
        self.add(cpu);
    }

    fn add(&self, cpu: Duration) {
        self.ended_cpu_ns
            .fetch_add(nanoseconds(cpu), Ordering::Relaxed);
    }

    /// Returns what others than the worker have used: threads, those that go on among them, and programs that have
    /// ended.
    fn others_cpu(&self) -> Duration {
        let ended = Duration::from_nanos(self.ended_cpu_ns.load(Ordering::Relaxed));
        if self.threads.load(Ordering::Relaxed) == 0 {
            return ended;
        }
        // Under the lock, without which a thread could end and be counted twice.
        let living = self.living.lock();
        let ended = Duration::from_nanos(self.ended_cpu_ns.load(Ordering::Relaxed));
        living
            .iter()
            .filter_map(|clock| clock.read())
            .sum::<Duration>()
            + ended
    }

    /// Looks whether the run, begun at `started`, has used the processor time that it may.
    pub(super) fn look_at_cpu(&self, started: Instant, now: Instant) -> CpuLook {
        let Some(limit) = self.limits.cpu else {
            return CpuLook::NoLimit;
        };
        // One thread alone uses less than what has passed.
        if self.threads.load(Ordering::Relaxed) == 0
            && self.ended_cpu_ns.load(Ordering::Relaxed) == 0
            && now < started + limit
        {
            return CpuLook::Again((started + limit).min(now + CPU_LOOK));
        }
        let used = self.worker_cpu() + self.others_cpu();
        match limit.checked_sub(used) {
            None | Some(Duration::ZERO) => CpuLook::Over,
            Some(left) => CpuLook::Again(now + left.clamp(CPU_LOOK_MIN, CPU_LOOK)),
        }
    }

    /// Returns what the run has used on its worker, where it still is.
    fn worker_cpu(&self) -> Duration {
        self.worker.get().map_or(Duration::ZERO, |(clock, begin)| {
            clock.read().unwrap_or_default().saturating_sub(*begin)
        })
    }

    /// Returns what the run has used, `worker` of it on its worker.
    pub(crate) fn usage(&self, worker: Duration) -> ResourceUsage {
        let mut usage = ResourceUsage::default();
        let cpu = worker + self.others_cpu();
        usage.cpu_us = u64::try_from(cpu.as_micros()).ok();
        usage.memory_peak_bytes = self.memory.as_ref().map(Memory::peak);
        usage.children = Some(self.children.load(Ordering::Relaxed));
        usage.threads = Some(self.threads.load(Ordering::Relaxed));
        usage
    }

    /// Returns the most bytes that were charged at a time; 0 where memory is not counted.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory.as_ref().map_or(0, Memory::peak)
    }

    /// Returns what a run that goes on has used.
    pub(crate) fn usage_so_far(&self) -> ResourceUsage {
        self.usage(self.worker_cpu())
    }
}

/// What a look at a run's processor time says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuLook {
    /// It may use any.
    NoLimit,
    /// It has used what it may.
    Over,
    /// It has not; look again then.
    Again(Instant),
}

/// An import that goes on.
pub(super) struct Import<'a> {
    own: Memory,
    charging: Option<Charging>,
    run: &'a Memory,
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        self.charging = None;
        if self.own.was_refused() {
            self.run.refuse();
        }
    }
}

/// A thread of the run, until it ends.
pub(super) struct StartedThread<'a> {
    account: &'a Account,
    clock: ThreadClock,
}

impl Drop for StartedThread<'_> {
    fn drop(&mut self) {
        let mut living = self.account.living.lock();
        if let Some(place) = living.iter().position(|clock| *clock == self.clock) {
            living.swap_remove(place);
        }
        self.account.add(thread_cpu_time());
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use automation_core::Script;
    use automation_core::executor::RunLimits;

    use super::{Account, CpuLook, MemoryMode};
    use crate::ffi::ThreadClock;

    fn limits() -> RunLimits {
        RunLimits::of(Script::parse("x.py", b"pass").unwrap().metadata())
    }

    #[test]
    fn programs_are_counted_up_to_their_limit() {
        let mut limits = limits();
        limits.children_max = Some(2);
        let account = Account::new(limits, MemoryMode::Off);
        let started: Vec<_> = (0..4).map(|_| account.child_started()).collect();
        assert_eq!(started, [true, true, false, false]);
        assert_eq!(account.usage(Duration::ZERO).children, Some(2));
    }

    #[test]
    fn the_time_of_ended_programs_counts() {
        let mut limits = limits();
        limits.cpu = Some(Duration::from_secs(100));
        let account = Account::new(limits, MemoryMode::Off);
        let now = Instant::now();
        account.begin(ThreadClock::of_this_thread(), crate::ffi::thread_cpu_time());
        assert!(matches!(account.look_at_cpu(now, now), CpuLook::Again(at) if at > now));
        account.child_ended(Duration::from_secs(40));
        assert!(matches!(account.look_at_cpu(now, now), CpuLook::Again(_)));
        account.child_ended(Duration::from_secs(60));
        assert_eq!(account.look_at_cpu(now, now), CpuLook::Over);
        let usage = account.usage(Duration::from_millis(1));
        assert_eq!(usage.cpu_us, Some(100_001_000));
    }

    #[test]
    fn without_a_limit_no_clock_is_looked_at() {
        let account = Account::new(limits(), MemoryMode::Off);
        let now = Instant::now();
        account.child_ended(Duration::from_secs(1_000_000));
        assert_eq!(account.look_at_cpu(now, now), CpuLook::NoLimit);
    }

    #[test]
    fn a_source_is_admitted_by_what_compiling_it_takes() {
        let mut limits = limits();
        limits.memory_bytes = 64 << 20;
        let account = Account::new(limits, MemoryMode::Limited);
        assert!(account.admits_source(512 << 10) && !account.was_refused());
        assert!(!account.admits_source((512 << 10) + 1) && account.was_refused());
        let measured = Account::new(limits, MemoryMode::Measured);
        assert!(measured.admits_source(u64::MAX));
    }
}
