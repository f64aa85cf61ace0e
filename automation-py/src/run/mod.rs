//! One run, and which run a thread belongs to. Everything a script sees of the process as its own is dispatched
//! here by the thread it is on.
//!
//! Knows nothing of queues and workers.

mod account;
mod children;
mod context;
mod environ;
mod exempt;
mod folder;
mod glue;
mod guard;
mod hooks;
mod host;
mod layers;
mod main_module;
mod objects;
mod output;
mod phase;
mod progress;
mod purity;
mod sink;
mod streams;
mod sys_view;
mod threads;
mod tracing;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, ExecutorError, Failure, Invocation, Outcome, RunEvent};
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

pub(crate) use self::account::{Account, CpuLook, MemoryMode};
use self::children::Child;
pub(crate) use self::children::{Stopped, collect_children, end_children};
pub(crate) use self::context::{Context, module_attribute};
use self::exempt::free_of_charge;
pub(crate) use self::exempt::install as exempt_imports;
use self::folder::Folder;
pub(crate) use self::folder::{empty_folder, folder, imports_from_folder, leave_folder};
pub(crate) use self::glue::{Glue, install, is_package_foreign, library};
use self::guard::{Guard, write_own};
pub(crate) use self::guard::{Place, hears_effects};
pub(crate) use self::main_module::is_forked;
pub(crate) use self::objects::{Objects, Slot};
pub(crate) use self::phase::Cut;
use self::phase::Phase;
pub(crate) use self::progress::ProgressLines;
use self::purity::Purity;
pub(crate) use self::purity::{end_state, leave_process, settle};
pub(crate) use self::sink::LateBytes;
use self::sink::Sink;
use self::streams::Stream;
use self::threads::ThreadList;
pub(crate) use self::tracing::{interruption_made, stop_tracing};
use crate::ffi::{self, ThreadIdent, blocking};

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
    cut_at: OnceLock<Instant>,
    /// Whether what catches every interruption is ended by tracing.
    traces: bool,
    /// Whether an interruption was raised in any of its threads.
    interrupted: AtomicBool,
    account: Account,
    stdout: Sink,
    stderr: Sink,
    progress: Mutex<ProgressLines>,
    pub(crate) folder: Folder,
    pub(crate) purity: Purity,
    pub(crate) objects: Mutex<Objects>,
    threads: ThreadList,
    /// What its threads that have ended had started.
    left_children: Mutex<Vec<Child>>,
    /// The thread that executes it, once it started.
    worker: OnceLock<ThreadIdent>,
    pub(crate) guard: Guard,
    reply: Mutex<Option<Reply>>,
}

impl Run {
    /// Creates a run, and the end at which its answer arrives.
    pub(crate) fn new(
        invocation: Invocation,
        late: &LateBytes,
        memory: MemoryMode,
        traces: bool,
    ) -> (Arc<Self>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let limits = invocation.limits;
        let run = Self {
            argv: argv(&invocation),
            account: Account::new(limits, memory),
            invocation,
            handed_over: Instant::now(),
            phase: Phase::default(),
            cancel_requested: AtomicBool::new(false),
            cut_at: OnceLock::new(),
            traces,
            interrupted: AtomicBool::new(false),
            stdout: Sink::new(late, limits.stream_bytes),
            stderr: Sink::new(late, limits.stream_bytes),
            progress: Mutex::default(),
            folder: Folder::default(),
            purity: Purity::default(),
            objects: Mutex::default(),
            threads: ThreadList::default(),
            left_children: Mutex::default(),
            worker: OnceLock::new(),
            guard: Guard::default(),
            reply: Mutex::new(Some(Reply(sender))),
        };
        (Arc::new(run), receiver)
    }

    /// Returns what it uses.
    pub(crate) fn account(&self) -> &Account {
        &self.account
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
        let _ = self.worker.set(ffi::thread_ident());
        if !self.phase.start(self.handed_over.elapsed()) {
            return false;
        }
        self.invocation.host.started();
        true
    }

    /// Takes back a run that a worker has and that has not begun: the worker may wait for the GIL without end.
    /// `false` when it has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.phase.withdraw()
    }

    /// Looks whether the run has used the processor time that it may.
    pub(crate) fn look_at_cpu(&self, now: Instant) -> CpuLook {
        self.started_at().map_or(CpuLook::NoLimit, |started| {
            self.account.look_at_cpu(started, now)
        })
    }

    /// Returns when the run has to end; `None` before it started.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.started_at()?
            .checked_add(self.invocation.limits.timeout)
    }

    /// Cuts the run short from outside. `false` when it has ended or was cut already.
    pub(crate) fn cut(&self, cut: Cut) -> bool {
        let cut = self.phase.cut(cut);
        if cut {
            let _ = self.cut_at.set(Instant::now());
        }
        cut
    }

    /// Returns whether it was cut short, be it over or not.
    pub(crate) fn is_cut(&self) -> bool {
        self.phase.is_cut()
    }

    /// Returns for how long it has been cut short.
    pub(crate) fn cut_for(&self) -> Option<Duration> {
        self.cut_at.get().map(Instant::elapsed)
    }

    /// Returns when the script's first byte executed.
    pub(crate) fn started_at(&self) -> Option<Instant> {
        Some(self.handed_over + self.phase.started()?)
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

    /// Returns the thread that executes it, once it started.
    fn worker(&self) -> Option<ThreadIdent> {
        self.worker.get().copied()
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
        self.write(Stream::Stdout, bytes)
    }

    /// Writes to standard error. Returns what [`write_stdout`](Self::write_stdout) does, of what children wrote.
    pub(crate) fn write_stderr(&self, bytes: &[u8]) -> Vec<RunEvent> {
        self.write(Stream::Stderr, bytes)
    }

    /// Writes, after what its children have written before.
    fn write(&self, stream: Stream, bytes: &[u8]) -> Vec<RunEvent> {
        if is_forked() {
            write_own(stream, bytes);
            return Vec::new();
        }
        let mut events = self.take_from_descriptors();
        events.extend(self.sink(stream, bytes));
        events
    }

    /// Keeps what was written.
    fn sink(&self, stream: Stream, bytes: &[u8]) -> Vec<RunEvent> {
        if stream == Stream::Stderr {
            self.stderr.write(bytes);
            return Vec::new();
        }
        self.stdout.write(bytes);
        self.progress.lock().scan(bytes)
    }

    /// Returns where what is written late is counted.
    fn late(&self) -> &LateBytes {
        self.stdout.late()
    }

    /// Returns the outcome of a run that has come to `ending` now, and closes its streams: what is written later
    /// is counted and dropped.
    pub(crate) fn outcome(&self, ending: Ending) -> Outcome {
        for event in self.close_descriptors() {
            self.invocation.host.emit(event);
        }
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
            Cut::CpuLimit => Ending::Failed(self.account.cpu_failure()),
            Cut::MemoryLimit => Ending::Failed(self.account.memory_failure()),
            Cut::Cancelled => Ending::Cancelled,
        }
    }

    /// Returns the ending of a run that was cut short and still runs.
    pub(crate) fn abandoned_ending(&self, cut: Cut) -> Ending {
        Ending::Failed(match cut {
            Cut::TimedOut => self.timed_out(),
            Cut::CpuLimit => self.account.cpu_failure(),
            Cut::MemoryLimit => self.account.memory_failure(),
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
    /// Whether this thread is a library's, which belongs to the run that started it only as long as that goes on.
    static IS_LIBRARYS: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` with the run of this thread, if it has one. A thread that ends has none any more.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Arc<Run>>) -> R) -> R {
    let mut f = Some(f);
    let mut call = |run: Option<&Arc<Run>>| f.take().expect("called once")(run);
    let called = CURRENT.try_with(|current| {
        let current = current.borrow();
        call(
            current
                .as_ref()
                .filter(|run| !IS_LIBRARYS.get() || !run.has_ended()),
        )
    });
    called.unwrap_or_else(|_| call(None))
}

/// Returns the run of this thread, if it has one.
pub(crate) fn current() -> Option<Arc<Run>> {
    with_current(|run| run.cloned())
}

/// Charges a child that a thread of a run has reaped to that run. May run without the GIL.
fn child_reaped(cpu: Duration) {
    with_current(|run| {
        if let Some(run) = run {
            run.account().child_ended(cpu);
        }
    });
}

/// Makes waits of runs interruptible. Answers with why that is not possible here, if so.
pub(crate) fn install_waits(py: Python<'_>) -> PyResult<Result<(), &'static str>> {
    let interruption = py.get_type::<crate::module::RunInterrupted>();
    let meet = Glue::get(py).function(py, "meet_waiting_interruption")?;
    blocking::install(py, &interruption, &meet, child_reaped)
}

/// Binds this thread to a run until it is dropped.
pub(crate) struct Bound;

impl Bound {
    /// Binds. A thread is bound to one run at a time.
    pub(crate) fn to(run: Arc<Run>) -> Self {
        ffi::crash::note_run(Some(*run.invocation.execution_id.as_uuid().as_bytes()));
        blocking::bind(run.phase.word());
        CURRENT.set(Some(run));
        Self
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        blocking::unbind();
        CURRENT.set(None);
        ffi::crash::note_run(None);
    }
}

/// Returns how long a run may still take; zero when it should have ended.
pub(crate) fn remaining(run: &Run) -> Option<Duration> {
    let deadline = run.deadline()?;
    Some(deadline.saturating_duration_since(Instant::now()))
}

/// Tells the host of a run something, with the GIL released: it may block.
pub(crate) fn emit(py: Python<'_>, run: &Arc<Run>, events: Vec<RunEvent>) {
    // In a copy of the process nobody is at the other end.
    if events.is_empty() || is_forked() {
        return;
    }
    py.detach(|| {
        for event in events {
            run.invocation.host.emit(event);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Late;

    impl Drop for Late {
        fn drop(&mut self) {
            // A panic would end the process here.
            assert!(with_current(|run| run.is_none()));
        }
    }

    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }

    #[test]
    fn a_thread_that_ends_has_no_run() {
        let thread = std::thread::spawn(|| {
            // What was made first goes last.
            LATE.set(Some(Late));
            CURRENT.set(None);
        });
        thread.join().expect("the thread ends by itself");
    }
}
