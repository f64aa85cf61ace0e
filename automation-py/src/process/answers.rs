//! Passes on what a script tells the host, and answers what it asks, on a thread of its own: the host may block, and
//! who watches over the deadline must not. The thread exists only where a script has something to say.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use automation_core::executor::{ExecutorError, RunEvent};
use automation_core::secret::SecretError;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::job::Job;
use super::wire;
use crate::executor::panicked;

/// Messages that may wait for the host; then the child's output waits as well.
const WAITING_MAX: usize = 1024;

/// What a script says.
enum Message {
    Event(RunEvent),
    Question(Value),
}

/// The way from a script to its host.
pub(super) struct Answers {
    shared: Arc<Shared>,
    thread: Option<(Sender<Message>, Receiver<()>)>,
}

struct Shared {
    job: Arc<Job>,
    control: OwnedFd,
    waiting: AtomicUsize,
    defect: Mutex<Option<ExecutorError>>,
}

impl Answers {
    pub(super) fn new(job: &Arc<Job>, control: OwnedFd) -> Self {
        let shared = Shared {
            job: Arc::clone(job),
            control,
            waiting: AtomicUsize::new(0),
            defect: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            thread: None,
        }
    }

    /// Returns the socket on which the script asks.
    pub(super) fn control(&self) -> &OwnedFd {
        &self.shared.control
    }

    /// Returns whether so much waits for the host that the script has to wait too.
    pub(super) fn is_behind(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) >= WAITING_MAX
    }

    /// Returns whether the host panicked.
    pub(super) fn has_defect(&self) -> bool {
        self.shared.defect.lock().is_some()
    }

    /// Passes an event on.
    pub(super) fn tell(&mut self, event: RunEvent) {
        self.hand_over(Message::Event(event));
    }

    /// Gets a question answered.
    pub(super) fn ask(&mut self, question: Value) {
        self.hand_over(Message::Question(question));
    }

    fn hand_over(&mut self, message: Message) {
        if self.thread.is_none() {
            self.thread = spawn(&self.shared);
        }
        if let Some((sender, _)) = &self.thread {
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
            // The thread ends after its messages only, so there is one to take this.
            let _ = sender.send(message);
        }
    }

    /// Waits up to `limit` until the host has heard everything.
    ///
    /// # Errors
    /// What the host panicked with.
    pub(super) fn finish(self, limit: Duration) -> Result<(), ExecutorError> {
        if let Some((sender, done)) = self.thread {
            drop(sender);
            if done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                let script = self.shared.job.invocation.script.name();
                tracing::warn!(script, "a run has ended, and its host does not answer");
            }
        }
        let defect = self.shared.defect.lock().take();
        defect.map_or(Ok(()), Err)
    }
}

/// Starts the thread. The receiver is told by being cut off that it has ended.
fn spawn(shared: &Arc<Shared>) -> Option<(Sender<Message>, Receiver<()>)> {
    let (sender, messages) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    let thread_shared = Arc::clone(shared);
    let thread = thread::Builder::new()
        .name("isolated-answers".to_owned())
        .spawn(move || {
            let _done: Sender<()> = done;
            for message in messages {
                thread_shared.take(message);
            }
        });
    match thread {
        Ok(_) => Some((sender, ended)),
        Err(error) => {
            let detail = format!("no thread for a script's questions: {error}");
            shared.fail(ExecutorError::Unavailable { detail });
            None
        }
    }
}

impl Shared {
    fn take(&self, message: Message) {
        let taken = catch_unwind(AssertUnwindSafe(|| match message {
            Message::Event(event) => self.job.invocation.host.emit(event),
            Message::Question(question) => {
                let mut answer = self.answer(&question);
                answer["number"] = question["number"].clone();
                // The script may be gone.
                let _ = wire::send(&self.control, &answer);
            }
        }));
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        if let Err(panic) = taken {
            self.fail(panicked(&*panic));
        }
    }

    fn fail(&self, error: ExecutorError) {
        self.defect.lock().get_or_insert(error);
        self.job.ring();
    }

    fn answer(&self, question: &Value) -> Value {
        let host = &self.job.invocation.host;
        if question["ask"] != "secret" {
            return json!({ "cancelled": self.job.is_cancelled() || host.is_cancelled() });
        }
        match host.secret(question["name"].as_str().unwrap_or_default()) {
            Ok(secret) => json!({ "secret": secret.expose() }),
            Err(error) => {
                let kind = match &error {
                    SecretError::InvalidName { .. } => "value",
                    SecretError::Unreadable { .. } => "os",
                    _ => "lookup",
                };
                json!({ "error": kind, "message": error.to_string() })
            }
        }
    }
}
