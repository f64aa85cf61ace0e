//! One run, and which run a thread belongs to. Everything a script sees of the process as its own is dispatched
//! here by the thread it is on.
//!
//! Knows nothing of queues and workers.

mod context;
mod environ;
mod folder;
mod glue;
mod hooks;
mod host;
mod layers;
mod main_module;
mod objects;
mod output;
mod phase;
mod progress;
mod sink;
mod streams;
mod sys_view;
mod threads;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, ExecutorError, Failure, Invocation, Outcome, RunEvent};
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use tokio::sync::oneshot;

pub(crate) use self::context::{Context, module_attribute};
pub(crate) use self::folder::{folder, folder_changed};
pub(crate) use self::glue::{Glue, install, is_package_foreign};
pub(crate) use self::main_module::is_forked;
pub(crate) use self::objects::{Objects, Slot};
pub(crate) use self::phase::Cut;
use self::phase::Phase;
pub(crate) use self::progress::ProgressLines;
pub(crate) use self::sink::LateBytes;
use self::sink::Sink;
use crate::ffi::{self, ThreadIdent};

/// What an executor answers.
pub(crate) type Answer = Result<Outcome, ExecutorError>;

/// One run, from the moment it is handed over until nothing refers to it any more: a thread that a script left
/// behind keeps its run, and finds it closed.
pub(crate) struct Run {
    pub(crate) invocation: Invocation,
    argv: Vec<String>,
    handed_over: Instant,
    phase: Phase,
    cancel_requested: AtomicBool,
    /// Whether an interruption was raised in any of its threads.
    interrupted: AtomicBool,
    stdout: Sink,
    stderr: Sink,
    progress: Mutex<ProgressLines>,
    pub(crate) objects: Mutex<Objects>,
    /// Living threads that the script started.
    threads: Mutex<Vec<ThreadIdent>>,
    thread_ended: Condvar,
    reply: Mutex<Option<Reply>>,
}

impl Run {
    /// Creates a run, and the end at which its answer arrives.
    pub(crate) fn new(
        invocation: Invocation,
        late: &LateBytes,
    ) -> (Arc<Self>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let run = Self {
            argv: argv(&invocation),
            invocation,
            handed_over: Instant::now(),
            phase: Phase::default(),
            cancel_requested: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            stdout: Sink::new(late),
            stderr: Sink::new(late),
            progress: Mutex::default(),
            objects: Mutex::default(),
            threads: Mutex::default(),
            thread_ended: Condvar::new(),
            reply: Mutex::new(Some(Reply(sender))),
        };
        (Arc::new(run), receiver)
    }

    /// Returns what `sys.argv` is at first.
    pub(crate) fn argv(&self) -> &[String] {
        &self.argv
    }

    /// Returns when the run was handed over.
    pub(crate) fn handed_over(&self) -> Instant {
        self.handed_over
    }

    /// Asks the run to end; the watchdog or the worker sees to it.
    pub(crate) fn request_cancel(&self) {
        self.cancel_requested.store(true, Ordering::Release);
    }

    /// Returns whether it was asked to end.
    pub(crate) fn cancel_requested(&self) -> bool {
        self.cancel_requested.load(Ordering::Acquire)
    }

    /// Starts the run, unless it was cancelled while it waited. The deadline counts from here.
    pub(crate) fn start(&self) -> bool {
        if self.cancel_requested() {
            return false;
        }
        self.phase.start(self.handed_over.elapsed());
        self.invocation.host.started();
        true
    }

    /// Returns when the run has to end; `None` before it started.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let started = self.phase.started()?;
        (self.handed_over + started).checked_add(self.invocation.limits.timeout)
    }

    /// Cuts the run short from outside. `false` when it has ended or was cut already.
    pub(crate) fn cut(&self, cut: Cut) -> bool {
        self.phase.cut(cut)
    }

    /// Ends the run. Returns what cut it short, if anything did. Called with the GIL held, so that nothing is
    /// raised in a thread of a run that has ended.
    pub(crate) fn end(&self) -> Option<Cut> {
        self.phase.end()
    }

    /// Returns whether it has ended, as seen with the GIL held.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase.has_ended()
    }

    /// Returns the living threads that the script started.
    pub(crate) fn threads(&self) -> Vec<ThreadIdent> {
        self.threads.lock().clone()
    }

    /// Notes that an interruption is raised in its threads. Called with the GIL held.
    pub(crate) fn note_interruption(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    /// Meets an interruption that may still wait in the calling thread, so that it strikes nobody else. Called when
    /// no further one can be raised in it.
    pub(crate) fn meet_interruption(&self, py: Python<'_>) {
        if self.interrupted.load(Ordering::Acquire) {
            // One that waits strikes the function before it can catch anything, and is met as well.
            let _ = ffi::call0(Glue::get(py).meet_interruption.bind(py));
        }
    }

    /// Writes to standard output. Returns progress lines that are complete now.
    pub(crate) fn write_stdout(&self, bytes: &[u8]) -> Vec<RunEvent> {
        self.stdout.write(bytes);
        self.progress.lock().scan(bytes)
    }

    /// Writes to standard error.
    pub(crate) fn write_stderr(&self, bytes: &[u8]) {
        self.stderr.write(bytes);
    }

    /// Returns the outcome of a run that has come to `ending` now, and closes its streams: what is written later
    /// is counted and dropped.
    pub(crate) fn outcome(&self, ending: Ending) -> Outcome {
        let mut outcome = Outcome::new(ending);
        let elapsed = self.handed_over.elapsed();
        let started = self.phase.started();
        outcome.queue = started.unwrap_or(elapsed);
        outcome.duration = elapsed.saturating_sub(outcome.queue);
        outcome.output.stdout = self.stdout.close();
        outcome.output.stderr = self.stderr.close();
        outcome
    }

    /// Returns the ending of a run that was cut short and ended.
    pub(crate) fn cut_ending(&self, cut: Cut) -> Ending {
        match cut {
            Cut::TimedOut => Ending::Failed(self.timed_out()),
            Cut::Cancelled => Ending::Cancelled,
        }
    }

    /// Returns the ending of a run that was cut short and still runs.
    pub(crate) fn abandoned_ending(&self, cut: Cut) -> Ending {
        Ending::Failed(match cut {
            Cut::TimedOut => self.timed_out(),
            Cut::Cancelled => Failure::new(
                Reason::CancelledByRequest,
                "cancelled, and still running: it could not be stopped",
            ),
        })
    }

    fn timed_out(&self) -> Failure {
        let seconds = self.invocation.limits.timeout.as_secs_f64();
        Failure::new(Reason::Timeout, format!("timed out after {seconds} s"))
    }

    /// Takes the right to answer. `None` when it was taken before: by the worker that ended the run, or by the
    /// watchdog that abandoned it.
    pub(crate) fn claim(&self) -> Option<Reply> {
        self.reply.lock().take()
    }
}

/// The right to answer for a run, once.
pub(crate) struct Reply(oneshot::Sender<Answer>);

impl Reply {
    /// Gives the answer.
    pub(crate) fn send(self, answer: Answer) {
        // Nobody may be waiting any more; the run was theirs to forget.
        let _ = self.0.send(answer);
    }
}

/// Returns `[path, parameters]`, and the ticket where the script asks for it.
pub(crate) fn argv(invocation: &Invocation) -> Vec<String> {
    let path = invocation.script.path().to_string_lossy().into_owned();
    let parameters = serde_json::to_string(&invocation.parameters);
    let mut argv = vec![path, written(parameters)];
    if invocation.script.metadata().context_argv
        && let Some(ticket) = &invocation.ticket
    {
        argv.push(ticket.to_string());
    }
    argv
}

fn written(json: serde_json::Result<String>) -> String {
    json.expect("JSON values have text keys and can be written")
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Run>>> = const { RefCell::new(None) };
}

/// Calls `f` with the run of this thread, if it has one.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Arc<Run>>) -> R) -> R {
    CURRENT.with(|current| f(current.borrow().as_ref()))
}

/// Returns the run of this thread, if it has one.
pub(crate) fn current() -> Option<Arc<Run>> {
    with_current(|run| run.cloned())
}

/// Binds this thread to a run until it is dropped.
pub(crate) struct Bound;

impl Bound {
    /// Binds. A thread is bound to one run at a time.
    pub(crate) fn to(run: Arc<Run>) -> Self {
        CURRENT.set(Some(run));
        Self
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Returns how long a run may still take; zero when it should have ended.
pub(crate) fn remaining(run: &Run) -> Option<Duration> {
    let deadline = run.deadline()?;
    Some(deadline.saturating_duration_since(Instant::now()))
}

/// Tells the host of a run something, with the GIL released: it may block.
pub(crate) fn emit(py: Python<'_>, run: &Arc<Run>, events: Vec<RunEvent>) {
    if events.is_empty() {
        return;
    }
    py.detach(|| {
        for event in events {
            run.invocation.host.emit(event);
        }
    });
}
