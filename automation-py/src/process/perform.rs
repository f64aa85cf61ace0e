//! The life of one run in its process, as its worker watches over it: order, output, questions, deadline, limits,
//! end. Never needs an interpreter, and never waits for the host.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{ExecutorError, Outcome, RunEvent};
use automation_core::{Effect, ResourceUsage};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::answers::Answers;
use super::job::{Answer, Job};
use super::ladder::Ladder;
use super::memory::Memory;
use super::order::order;
use super::pipe::{Chunk, Pipe};
use super::pool::Pool;
use super::tree::{self, Process};
use super::verdict::{Cut, End, Verdict, cut_ending, verdict};
use super::wire::{self, Inbox, Received, timespec};
use super::zygote::{Child, Wires, Zygote};
use crate::run::ProgressLines;

/// What is read from a stream at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a run's use of processor and memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);
/// How often to look again while the host is behind.
const BEHIND: Duration = Duration::from_millis(5);
/// Looks at what the child has written before its end: more than its pipes and its socket hold. What it left behind
/// may go on to write.
const DRAIN_ROUNDS: usize = 1024;
/// Time that the host gets to hear the last words of a run.
const HEAR_MAX: Duration = Duration::from_secs(1);

/// Runs a run to its end.
pub(super) fn perform(pool: &Pool, job: &Arc<Job>) -> Answer {
    let child = pool.zygotes.fork()?;
    if !job.begin() {
        return Ok(job.never_begun());
    }
    let dry_run = job.invocation.host.dry_run();
    let started = Instant::now();
    job.invocation.host.started();
    let code = pool.codes.get(&job.invocation.script);
    let order = order(&job.invocation, code.as_deref(), dry_run);
    let zygote = Arc::clone(&child.zygote);
    let mut watch = Watch::new(pool, job, child, started);
    match wire::send(watch.answers.control(), &order) {
        // When it is gone, the warden says how.
        Err(error) if !wire::is_gone(error) => {
            let detail = format!("a process does not take its order: {error}");
            return Err(ExecutorError::Unavailable { detail });
        }
        _ => {}
    }
    pool.zygotes.prepare();
    let end = watch.until_end();
    if end == End::WithZygote {
        zygote.note_end();
    }
    watch.outcome(end)
}

/// A run in progress.
struct Watch<'a> {
    pool: &'a Pool,
    job: &'a Arc<Job>,
    process: Process,
    /// It lives as long as what it forked.
    _zygote: Arc<Zygote>,
    /// Closing it ends the process.
    warden: OwnedFd,
    answers: Answers,
    /// Whether the script closed its end of the control socket.
    is_silent: bool,
    streams: [Pipe; 2],
    progress: ProgressLines,
    from_child: Inbox,
    from_zygote: Inbox,
    buffer: Box<[u8]>,
    started: Instant,
    next_sample: Instant,
    cut: Option<(Cut, Ladder)>,
    /// When to act on the cut.
    next_step: Instant,
    /// What the child said of its end.
    told: Option<Value>,
    /// What the zygote said of it.
    ended: Option<Value>,
    /// What the process was seen to have started.
    started_processes: HashSet<Process>,
    cpu: Duration,
    memory: Memory,
}

impl<'a> Watch<'a> {
    fn new(pool: &'a Pool, job: &'a Arc<Job>, child: Child, started: Instant) -> Self {
        let Wires {
            stdout,
            stderr,
            control,
            warden,
        } = child.wires;
        let bytes_max = job.invocation.limits.stream_bytes;
        Self {
            pool,
            job,
            process: child.process,
            _zygote: child.zygote,
            warden,
            answers: Answers::new(job, control),
            is_silent: false,
            streams: [stdout, stderr].map(|end| Pipe::new(end, bytes_max)),
            progress: ProgressLines::default(),
            from_child: Inbox::default(),
            from_zygote: Inbox::default(),
            buffer: vec![0; BUFFER_BYTES].into(),
            started,
            next_sample: started + SAMPLE,
            cut: None,
            next_step: started,
            told: None,
            ended: None,
            started_processes: HashSet::new(),
            cpu: Duration::ZERO,
            memory: Memory::new(child.inherited, started),
        }
    }

    /// Watches until the process has ended, or can't be ended.
    fn until_end(&mut self) -> End {
        loop {
            let now = Instant::now();
            self.decide(now);
            if now >= self.next_step
                && let Some((_, ladder)) = &mut self.cut
            {
                match ladder.act(now, &mut self.started_processes) {
                    Some(next) => self.next_step = next,
                    None => return End::StillRuns,
                }
            }
            self.wait(now);
            self.job.hear();
            if !self.answers.is_behind() {
                self.read_streams();
            }
            while !self.answers.is_behind() && self.read_control() {}
            if let Some(end) = self.read_warden() {
                return end;
            }
        }
    }

    /// Decides whether the run has to end.
    fn decide(&mut self, now: Instant) {
        if self.cut.is_some() {
            return;
        }
        let limits = &self.job.invocation.limits;
        let cut = if self.answers.has_defect() {
            Cut::Defect
        } else if self.job.is_cancelled() {
            Cut::Cancelled
        } else if now.saturating_duration_since(self.started) >= limits.timeout {
            Cut::TimedOut
        } else if now >= self.next_sample
            && let Some(cut) = self.sample(now)
        {
            cut
        } else {
            return;
        };
        let grace = match cut {
            Cut::Defect => Duration::ZERO,
            _ => self.pool.settings.grace,
        };
        self.cut = Some((cut, Ladder::new(self.process, now, grace)));
        self.next_step = now;
    }

    /// Looks at what the process and its descendants use. Returns the limit that they are over.
    fn sample(&mut self, now: Instant) -> Option<Cut> {
        self.next_sample = now + SAMPLE;
        let processes = self.process.tree();
        self.started_processes.extend(&processes[1..]);
        let usage = tree::usage(&processes);
        self.cpu = self.cpu.max(usage.cpu);
        let memory = self.memory.look(&processes, usage);
        let limits = &self.job.invocation.limits;
        if limits.cpu.is_some_and(|limit| usage.cpu > limit) {
            return Some(Cut::Cpu);
        }
        (memory > limits.memory_bytes).then_some(Cut::Memory)
    }

    /// Waits until something happens or is due.
    fn wait(&self, now: Instant) {
        let is_behind = self.answers.is_behind();
        let mut polled = vec![
            PollFd::new(&self.warden, PollFlags::IN),
            PollFd::new(&self.job.bell, PollFlags::IN),
        ];
        if !is_behind {
            let control = (!self.is_silent).then(|| self.answers.control());
            polled.extend(control.map(|control| PollFd::new(control, PollFlags::IN)));
            let ends = self.streams.iter().filter_map(Pipe::end);
            polled.extend(ends.map(|end| PollFd::new(end, PollFlags::IN)));
        }
        let mut next = if self.cut.is_some() {
            self.next_step
        } else {
            let timeout = self.job.invocation.limits.timeout;
            let deadline = self.started.checked_add(timeout);
            deadline.map_or(self.next_sample, |deadline| deadline.min(self.next_sample))
        };
        if is_behind {
            next = next.min(now + BEHIND);
        }
        let left = next.saturating_duration_since(Instant::now());
        // An interrupted wait is only a short one.
        let _ = poll(&mut polled, Some(&timespec(left)));
    }

    /// Takes some of what was written. Returns whether there was anything.
    fn read_streams(&mut self) -> bool {
        let [stdout, stderr] = &mut self.streams;
        let mut any = false;
        if let Chunk::Bytes(bytes) = stdout.take(&mut self.buffer) {
            any = true;
            let mut events = self.progress.scan(bytes);
            // What says nothing new is said once.
            events.dedup();
            for event in events {
                self.answers.tell(event);
            }
        }
        any | (stderr.take(&mut self.buffer) != Chunk::Nothing)
    }

    /// Takes a message of the child. Returns whether there was one.
    fn read_control(&mut self) -> bool {
        match self.from_child.receive(self.answers.control()) {
            Received::Message(message) => {
                self.hear(message);
                return true;
            }
            Received::Nothing => {}
            Received::Gone => self.is_silent = true,
        }
        false
    }

    fn hear(&mut self, mut message: Value) {
        if message.get("ask").is_some() {
            self.answers.ask(&message);
            return;
        }
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        match message["tell"].as_str() {
            Some("code") => {
                let script = &self.job.invocation.script;
                self.pool.codes.keep(script, &text("code"));
            }
            Some("log") => self.answers.tell(RunEvent::Log { text: text("text") }),
            Some("progress") => self.answers.tell(RunEvent::Progress {
                fraction: message["fraction"].as_f64().unwrap_or_default(),
                text: text("text"),
            }),
            Some("effect") => {
                if let Some(effect) = Effect::from_word(&text("effect")) {
                    self.answers.tell(RunEvent::Effect {
                        effect,
                        target: text("target"),
                        denied: message["denied"] == true,
                    });
                }
            }
            _ => self.told = Some(message.take()),
        }
    }

    /// Returns how the process ended, once it has.
    fn read_warden(&mut self) -> Option<End> {
        match self.from_zygote.receive(&self.warden) {
            Received::Message(ended) => {
                let code = ended["code"].as_i64().unwrap_or_default();
                self.ended = Some(ended);
                Some(End::Code(code))
            }
            Received::Nothing => None,
            Received::Gone => Some(End::WithZygote),
        }
    }

    /// Takes what is left to be read, and returns the outcome.
    fn outcome(mut self, end: End) -> Answer {
        let duration = self.started.elapsed();
        self.end_started(end);
        for _ in 0..DRAIN_ROUNDS {
            if !(self.read_streams() | self.read_control()) {
                break;
            }
        }
        let usage = self.usage();
        self.answers.finish(HEAR_MAX)?;
        let still_running = end == End::StillRuns;
        let limits = &self.job.invocation.limits;
        let verdict = match self.cut {
            Some((cut, _)) => Verdict::new(cut_ending(cut, limits, still_running)),
            None => {
                let near = usage.memory_peak_bytes >= Some(limits.memory_bytes / 10 * 9);
                verdict(end, self.told.as_ref(), limits, near)
            }
        };
        let mut outcome = Outcome::new(verdict.ending);
        outcome.still_running = still_running;
        outcome.queue = self.started.duration_since(self.job.handed_over);
        outcome.duration = duration;
        outcome.usage = usage;
        outcome.exit_code = verdict.exit_code;
        outcome.output.returned = verdict.returned;
        outcome.output.interrupted = self.cut.is_some();
        let [stdout, stderr] = self.streams;
        outcome.output.stdout = stdout.close();
        outcome.output.stderr = stderr.close();
        Ok(outcome)
    }

    /// Ends what the process has started, when it was not left behind by a script that ended by itself.
    fn end_started(&mut self, end: End) {
        if end == End::WithZygote {
            self.process.kill_tree();
            // Nobody adopted what it had started.
            self.started_processes.extend(self.process.session());
        }
        if self.cut.is_some() || end == End::WithZygote {
            for process in &self.started_processes {
                process.kill_tree();
            }
        }
    }

    /// Returns what the run used: what the kernel counted for its process and for programs that it waited for, and
    /// what was seen of all that it started.
    fn usage(&self) -> ResourceUsage {
        let number =
            |said: &Option<Value>, key: &str| said.as_ref().and_then(|said| said[key].as_u64());
        let resident = number(&self.ended, "resident").map(|most| self.memory.own(most));
        let seen = u64::try_from(self.cpu.as_micros()).ok();
        let children = number(&self.told, "children");
        let children = children.unwrap_or(self.started_processes.len() as u64);
        ResourceUsage {
            cpu_us: number(&self.ended, "cpu_us").max(seen),
            memory_peak_bytes: resident.max(Some(self.memory.peak)),
            children: u32::try_from(children).ok(),
            threads: number(&self.told, "threads").and_then(|threads| u32::try_from(threads).ok()),
        }
    }
}
