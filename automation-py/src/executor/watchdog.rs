//! Sees to deadlines, cancels and a queue that stands still. Its thread never needs the GIL, so that a script
//! that hogs it delays nothing here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::injector::Injector;
use super::pool::Pool;
use super::turns::{State, Worker};
use crate::ffi::ThreadIdent;
use crate::run::{Cut, Run};

/// How often it looks while runs come and go.
const TICK: Duration = Duration::from_millis(1);
/// Time without a new run after which it sleeps until the next deadline.
const QUIET: Duration = Duration::from_millis(100);
/// Time from one interruption of a script to the next: one that catches the first meets another.
const REPEAT: Duration = Duration::from_millis(50);
/// The same once its thread is abandoned.
const REPEAT_ABANDONED: Duration = Duration::from_secs(1);
/// Interruptions after which a script is left alone.
const REPEATS_MAX: u32 = 120;

/// Share of the time between two looks from which the scripts are taken to compute all the time.
const SATURATED: f64 = 0.75;

/// A run that was cut short and has not ended.
struct CutRun {
    run: Arc<Run>,
    worker: Arc<Worker>,
    ident: ThreadIdent,
    cut: Cut,
    since: Instant,
    next: Instant,
    interruptions: u32,
    abandoned: bool,
}

/// The watchdog's own memory.
pub(super) struct Watchdog {
    pool: Arc<Pool>,
    injector: Injector,
    running: Vec<(Arc<Worker>, Arc<Run>, ThreadIdent)>,
    cuts: Vec<CutRun>,
    taken: u64,
    /// The workers' processor time at the last look, while runs wait.
    cpu: Option<(Instant, Duration)>,
    last_change: Instant,
}

impl Watchdog {
    pub(super) fn new(pool: Arc<Pool>, injector: Injector) -> Self {
        Self {
            pool,
            injector,
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
        while !(state.closed && state.workers.is_empty() && state.quarantined == 0) {
            let now = Instant::now();
            if state.taken != self.taken || !state.queue.is_empty() {
                self.last_change = now;
            }
            let saturated = self.is_saturated(&state, now);
            let help = state.pass_on(now, self.taken, saturated);
            pool.help(&mut state, help);
            self.taken = state.taken;
            for worker in &state.workers {
                if let Some((run, ident)) = &*worker.current.lock() {
                    self.running
                        .push((Arc::clone(worker), Arc::clone(run), *ident));
                }
            }
            drop(state);
            pool.send_held(0);
            let next = self.look_after_runs(now);
            state = pool.lock();
            state.watchdog_asleep = now.duration_since(self.last_change) >= QUIET;
            let tick = (!state.watchdog_asleep).then(|| now + TICK);
            match tick.into_iter().chain(next).min() {
                Some(at) => drop(pool.watchdog.wait_until(&mut state, at)),
                None => pool.watchdog.wait(&mut state),
            }
            state.watchdog_asleep = false;
        }
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
        for (worker, run, ident) in self.running.drain(..) {
            let deadline = run.deadline();
            let cut = if run.cancel_requested() {
                Cut::Cancelled
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                Cut::TimedOut
            } else {
                // A run that has not begun yet begins at once.
                wake_at(deadline.unwrap_or(now + TICK));
                continue;
            };
            if run.cut(cut) {
                self.cuts.push(CutRun {
                    run,
                    worker,
                    ident,
                    cut,
                    since: now,
                    next: now,
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

impl CutRun {
    /// Whether nothing is left to do. A grace may be longer than all the interruptions take.
    fn is_over(&self) -> bool {
        self.run.has_ended() || (self.abandoned && self.interruptions >= REPEATS_MAX)
    }

    /// Interrupts the run again, and gives its thread up when the grace is over. Returns when to act again.
    fn act(&mut self, now: Instant, pool: &Arc<Pool>, injector: &Injector) -> Instant {
        if now >= self.next {
            injector.interrupt(&self.run, self.ident);
            self.interruptions += 1;
            let repeat = if self.abandoned {
                REPEAT_ABANDONED
            } else {
                REPEAT
            };
            self.next = now + repeat;
        }
        let end = self.since + pool.settings.grace;
        if !self.abandoned && now >= end {
            self.abandoned = true;
            pool.abandon(&self.worker, &self.run, self.cut);
        }
        if self.abandoned {
            self.next
        } else {
            self.next.min(end)
        }
    }
}
