//! Sees to deadlines, cancels and a queue that stands still. Its thread never needs the GIL, so that a script
//! that hogs it delays nothing here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::Ending;

use super::injector::Injector;
use super::pool::Pool;
use super::pulse::{Pulse, SUSPECT};
use super::turns::{State, Worker};
use crate::ffi::{Thread, blocking};
use crate::run::{CpuLook, Cut, Run, Stopped};

/// How often it looks while runs come and go.
const TICK: Duration = Duration::from_millis(1);
/// Time without a new run after which it sleeps until the next deadline.
const QUIET: Duration = Duration::from_millis(100);
/// Time that a script has to clean up after its first interruption.
const CLEAN_UP: Duration = Duration::from_millis(48);
/// Time from one interruption to the next from then on.
const REPEAT: Duration = Duration::from_millis(10);
/// Time from one look for waits and children to the next: what begins to wait right after a look meets the next.
const WAKE: Duration = Duration::from_millis(4);
/// Time from the first interruption to the first such look: until then the injector has got the GIL, which another
/// thread keeps for 5 ms.
const FIRST_WAKE: Duration = Duration::from_millis(10);
/// The same once its thread is abandoned.
const REPEAT_ABANDONED: Duration = Duration::from_secs(1);
/// Interruptions after which a script is left alone.
const REPEATS_MAX: u32 = 120;

/// Share of the time between two looks from which the scripts are taken to compute all the time.
const SATURATED: f64 = 0.3;

/// A run that was cut short and has not ended.
struct CutRun {
    run: Arc<Run>,
    worker: Arc<Worker>,
    thread: Thread,
    cut: Cut,
    since: Instant,
    /// When to interrupt it next, and when to end what it waits for.
    next: Instant,
    next_wake: Instant,
    interruptions: u32,
    abandoned: bool,
}

/// The watchdog's own memory.
pub(super) struct Watchdog {
    pool: Arc<Pool>,
    injector: Injector,
    pulse: Arc<Pulse>,
    running: Vec<(Arc<Worker>, Arc<Run>, Thread)>,
    cuts: Vec<CutRun>,
    taken: u64,
    /// The workers' processor time at the last look, while runs wait.
    cpu: Option<(Instant, Duration)>,
    last_change: Instant,
}

impl Watchdog {
    pub(super) fn new(pool: Arc<Pool>, injector: Injector, pulse: Arc<Pulse>) -> Self {
        Self {
            pool,
            injector,
            pulse,
            running: Vec::new(),
            cuts: Vec::new(),
            taken: 0,
            cpu: None,
            last_change: Instant::now(),
        }
    }

    /// Watches until the pool is closed and its last thread has ended.
    pub(super) fn watch(mut self) {
        let pool = Arc::clone(&self.pool);
        let mut state = pool.lock();
        while !state.is_over() {
            state.is_watchdog_called = false;
            let now = Instant::now();
            if state.taken != self.taken || !state.queue.is_empty() {
                self.last_change = now;
            }
            let saturated = self.is_saturated(&state, now);
            let help = state.pass_on(now, self.taken, saturated);
            pool.help(&mut state, help);
            self.taken = state.taken;
            for worker in &state.workers {
                if let Some((run, thread)) = &*worker.current.lock() {
                    self.running
                        .push((Arc::clone(worker), Arc::clone(run), *thread));
                }
            }
            drop(state);
            pool.send_held(0);
            let next = self.look_after_runs(now);
            state = pool.lock();
            if state.is_watchdog_called {
                continue;
            }
            // A run that came during the look was announced to nobody.
            state.watchdog_asleep = now.duration_since(self.last_change) >= QUIET
                && state.queue.is_empty()
                && state.taken == self.taken;
            let tick = (!state.watchdog_asleep).then(|| now + TICK);
            match tick.into_iter().chain(next).min() {
                Some(at) => drop(pool.watchdog.wait_until(&mut state, at)),
                None => pool.watchdog.wait(&mut state),
            }
            state.watchdog_asleep = false;
        }
        self.pulse.wake();
    }

    /// Returns whether the scripts that run have computed all the time since the last look; looks only while runs
    /// wait, since reading a clock is a call into the kernel.
    fn is_saturated(&mut self, state: &State, now: Instant) -> bool {
        if state.queue.is_empty() {
            self.cpu = None;
            return false;
        }
        let used = state.cpu_time();
        let former = self.cpu.replace((now, used));
        former.is_some_and(|(at, former)| {
            used.saturating_sub(former) >= now.duration_since(at).mul_f64(SATURATED)
        })
    }

    /// Cuts short what is due. Returns when to look again.
    fn look_after_runs(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut wake_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for (worker, run, thread) in self.running.drain(..) {
            let deadline = run.deadline();
            if run.cancel_requested() && run.withdraw() {
                answer_cancelled(&run);
                continue;
            }
            let cut = if run.cancel_requested() {
                Cut::Cancelled
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                Cut::TimedOut
            } else if run.account().is_overrun() {
                Cut::MemoryLimit
            } else {
                if let Some(look) = run.account().next_memory_look() {
                    wake_at(now + look);
                }
                // A run that has not begun yet begins at once.
                wake_at(deadline.unwrap_or(now + TICK));
                match run.started_at().map(|at| at + SUSPECT) {
                    Some(at) if at <= now => self.pulse.wake(),
                    Some(at) => wake_at(at),
                    None => {}
                }
                match run.look_at_cpu(now) {
                    CpuLook::Over => Cut::CpuLimit,
                    CpuLook::Again(at) => {
                        wake_at(at);
                        continue;
                    }
                    CpuLook::NoLimit => continue,
                }
            };
            if run.cut(cut) {
                self.pulse.wake();
                self.cuts.push(CutRun {
                    run,
                    worker,
                    thread,
                    cut,
                    since: now,
                    next: now,
                    next_wake: now + FIRST_WAKE,
                    interruptions: 0,
                    abandoned: false,
                });
            }
        }
        self.cuts.retain(|cut| !cut.is_over());
        for cut in &mut self.cuts {
            wake_at(cut.act(now, &self.pool, &self.injector));
        }
        next
    }
}

/// Answers for a run that was cancelled before it began.
pub(super) fn answer_cancelled(run: &Run) {
    if let Some(reply) = run.claim() {
        reply.send(Ok(run.outcome(Ending::Cancelled)));
    }
}

impl CutRun {
    /// Whether nothing is left to do. A grace may be longer than all the interruptions take.
    fn is_over(&self) -> bool {
        let ended = self.run.has_ended() && self.run.threads().is_empty();
        ended || (self.abandoned && self.interruptions >= REPEATS_MAX)
    }

    /// Interrupts the run again, ends what it waits for, and gives its thread up when the grace is over. Returns when
    /// to act again.
    fn act(&mut self, now: Instant, pool: &Arc<Pool>, injector: &Injector) -> Instant {
        if now >= self.next_wake {
            self.wake();
            self.next_wake = now
                + if self.abandoned {
                    REPEAT_ABANDONED
                } else {
                    WAKE
                };
        }
        if now >= self.next {
            let stopped = Stopped::trees(self.children());
            injector.interrupt(&self.run, self.thread, stopped);
            self.interruptions += 1;
            self.next = now + self.pause();
        }
        let end = self.since + pool.settings.grace;
        let next = self.next.min(self.next_wake);
        if self.abandoned {
            return next;
        }
        if now >= end {
            self.abandoned = true;
            pool.abandon(&self.worker, &self.run, self.cut);
        }
        next.min(end.max(now + TICK))
    }

    fn pause(&self) -> Duration {
        match self.interruptions {
            _ if self.abandoned => REPEAT_ABANDONED,
            1 => CLEAN_UP,
            _ => REPEAT,
        }
    }

    /// Kills what the run started and wakes what waits in the kernel, without the GIL: the injector may be waiting for
    /// it.
    fn wake(&self) {
        if self.interruptions > 0 {
            // Modules that were loaded since the last look wait in calls of their own.
            blocking::refresh();
        }
        Stopped::trees(self.children()).kill();
        self.run.interrupt_threads(&HashSet::new());
        if !self.run.has_ended() {
            blocking::interrupt(self.thread.number);
        }
    }

    /// Returns the programs that the run's threads started.
    fn children(&self) -> Vec<i32> {
        let of_threads = self.run.threads().into_iter();
        let mut children: Vec<_> = of_threads
            .flat_map(|thread| self.run.children(thread))
            .collect();
        children.extend(self.run.left_children());
        let of_worker = self.run.children(self.thread);
        // Looked at after them: otherwise they may be the next run's.
        if !self.run.has_ended() {
            children.extend(of_worker);
        }
        children
    }
}
