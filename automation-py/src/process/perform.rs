//! The life of one run in its process, as its worker watches over it: order, output, questions, deadline, limits,
//! end. Never needs an interpreter, and never waits for the host.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use automation_core::executor::{Invocation, Outcome, RunEvent};
use automation_core::script::Entry;
use automation_core::{Effect, ResourceUsage, limits};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::answers::Answers;
use super::job::{Answer, Job};
use super::ladder::Ladder;
use super::pipe::{Chunk, Pipe};
use super::pool::{Pool, never_begun};
use super::tree::{Process, Usage};
use super::verdict::{Cut, End, Verdict, cut_ending, verdict};
use super::wire::{self, Inbox, Received, timespec};
use super::zygote::{Child, Wires};
use crate::run::{ProgressLines, argv, folder};

/// What is read from a stream at once: what a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a run's use of processor and memory is looked at.
const SAMPLE: Duration = Duration::from_millis(50);
/// How often to look again while the host is behind.
const BEHIND: Duration = Duration::from_millis(5);
/// Time for what the child has written to be read: what it left behind may go on to write.
const DRAIN_MAX: Duration = Duration::from_millis(100);
/// Time that the host gets to hear the last words of a run.
const HEAR_MAX: Duration = Duration::from_secs(1);

/// Runs a run to its end.
pub(super) fn perform(pool: &Pool, job: &Arc<Job>) -> Answer {
    let child = pool.zygotes.fork()?;
    if job.is_cancelled() {
        return Ok(never_begun(job));
    }
    let dry_run = job.invocation.host.dry_run();
    let started = Instant::now();
    job.invocation.host.started();
    let code = pool.codes.get(&job.invocation.script);
    let order = order(&job.invocation, code.as_deref(), dry_run);
    let zygote_ended = Arc::clone(&child.zygote_ended);
    let mut watch = Watch::new(pool, job, child, started);
    if wire::send(watch.answers.control(), &order).is_err() {
        // It is gone, and the warden says how.
        tracing::debug!("a child was gone before it had its order");
    }
    pool.zygotes.prepare();
    let end = watch.until_end();
    if end == End::WithZygote {
        zygote_ended.store(true, Ordering::Release);
    }
    watch.outcome(end)
}

/// Returns what the child is told.
fn order(invocation: &Invocation, code: Option<&str>, dry_run: bool) -> Value {
    let script = &invocation.script;
    let entry = match script.metadata().entry {
        Entry::Plain => "plain",
        Entry::Run => "run",
    };
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let limits = &invocation.limits;
    json!({
        "do": "run",
        "argv": argv(invocation),
        "source": &**script.source(),
        "code": code,
        "folder": folder(script.path()).map(|folder| folder.to_string_lossy().into_owned()),
        "entry": entry,
        "execution_id": invocation.execution_id.to_string(),
        "parameters": invocation.parameters,
        "ticket": invocation.ticket,
        "classification": invocation.classification,
        "dry_run": dry_run,
        "deny": script.metadata().deny,
        "deadline": now + limits.timeout.as_secs_f64(),
        "limits": {
            "cpu_seconds": limits.cpu.map(|cpu| cpu.as_secs_f64()),
            "memory_bytes": limits.memory_bytes,
            "children_max": limits.children_max,
        },
        "json": {
            "depth": limits::JSON_DEPTH_MAX,
            "nodes": limits::JSON_NODES_MAX,
            "size": limits::JSON_BYTES_MAX,
            "integer": limits::JSON_INTEGER_MAX,
        },
    })
}

/// A run in progress.
struct Watch<'a> {
    pool: &'a Pool,
    job: &'a Arc<Job>,
    process: Process,
    /// Resident memory that the process began with.
    inherited: u64,
    /// Closing it ends the process.
    warden: OwnedFd,
    answers: Answers,
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
    peak: Usage,
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
            inherited: child.inherited,
            warden,
            answers: Answers::new(job, control),
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
            peak: Usage::default(),
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
                match ladder.act(now) {
                    Some(next) => self.next_step = next,
                    None => return End::StillRuns,
                }
            }
            self.wait(now);
            self.job.hear();
            self.read_streams();
            self.read_control();
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
        let usage = self.process.usage();
        let resident = usage.resident.saturating_sub(self.inherited);
        self.peak.cpu = self.peak.cpu.max(usage.cpu);
        self.peak.resident = self.peak.resident.max(resident);
        let limits = &self.job.invocation.limits;
        if limits.cpu.is_some_and(|limit| usage.cpu > limit) {
            return Some(Cut::Cpu);
        }
        (resident > limits.memory_bytes).then_some(Cut::Memory)
    }

    /// Waits until something happens or is due.
    fn wait(&self, now: Instant) {
        let is_behind = self.answers.is_behind();
        let mut polled = vec![
            PollFd::new(&self.warden, PollFlags::IN),
            PollFd::new(&self.job.bell, PollFlags::IN),
        ];
        if !is_behind {
            polled.push(PollFd::new(self.answers.control(), PollFlags::IN));
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
        if self.answers.is_behind() {
            return false;
        }
        let [stdout, stderr] = &mut self.streams;
        let mut any = false;
        if let Chunk::Bytes(bytes) = stdout.take(&mut self.buffer) {
            any = true;
            for event in self.progress.scan(bytes) {
                self.answers.tell(event);
            }
        }
        any | (stderr.take(&mut self.buffer) != Chunk::Nothing)
    }

    /// Takes what the child says, as far as the host keeps up.
    fn read_control(&mut self) {
        while !self.answers.is_behind() {
            match self.from_child.receive(self.answers.control()) {
                Received::Message(message) => self.hear(message),
                Received::Nothing | Received::Gone => return,
            }
        }
    }

    fn hear(&mut self, mut message: Value) {
        if message.get("ask").is_some() {
            self.answers.ask(message);
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
        if let Some((_, ladder)) = &self.cut {
            ladder.sweep();
        }
        let bound = Instant::now() + DRAIN_MAX;
        while self.read_streams() && Instant::now() < bound {}
        self.read_control();
        self.answers.finish(HEAR_MAX)?;
        let still_running = end == End::StillRuns;
        let limits = &self.job.invocation.limits;
        let mut usage = usage(self.ended.as_ref(), self.peak, self.inherited);
        let children = self
            .told
            .as_ref()
            .and_then(|told| told["children"].as_u64());
        usage.children = children.and_then(|children| u32::try_from(children).ok());
        let verdict = match self.cut {
            Some((cut, _)) => Verdict::new(cut_ending(cut, limits, still_running)),
            None => {
                let entry = self.job.invocation.script.metadata().entry;
                let near = usage.memory_peak_bytes >= Some(limits.memory_bytes / 10 * 9);
                verdict(end, self.told.as_ref(), entry, limits, near)
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
}

/// Returns what a run used: what the kernel counted for its process and for programs that it waited for, and what
/// was seen of all that it started.
fn usage(ended: Option<&Value>, peak: Usage, inherited: u64) -> ResourceUsage {
    let counted = |key: &str| ended.and_then(|ended| ended[key].as_u64());
    let resident = counted("resident").map(|most| most.saturating_sub(inherited));
    let seen = u64::try_from(peak.cpu.as_micros()).ok();
    ResourceUsage {
        cpu_us: counted("cpu_us").max(seen),
        memory_peak_bytes: resident.max(Some(peak.resident)),
        ..ResourceUsage::default()
    }
}
