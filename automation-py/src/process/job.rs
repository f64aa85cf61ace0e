//! One run as its caller and its worker know it: what is to be run, the wish that it ends, the answer.

use std::os::fd::OwnedFd;
use std::time::Instant;

use automation_core::executor::{Ending, ExecutorError, Invocation, Outcome};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

pub(super) type Answer = Result<Outcome, ExecutorError>;

/// Where a run stands.
#[derive(Debug, Default)]
struct Stage {
    begun: bool,
    cancelled: bool,
}

/// One run, from the moment it is handed over until it is answered for.
pub(super) struct Job {
    pub(super) invocation: Invocation,
    pub(super) handed_over: Instant,
    stage: Mutex<Stage>,
    /// Readable when the worker has something to look at besides the child.
    pub(super) bell: OwnedFd,
    reply: Mutex<Option<oneshot::Sender<Answer>>>,
}

impl Job {
    /// Creates a run, and the end at which its answer arrives.
    pub(super) fn new(
        invocation: Invocation,
    ) -> Result<(Self, oneshot::Receiver<Answer>), ExecutorError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = bell.map_err(|error| ExecutorError::Unavailable {
            detail: format!("no descriptor for a run: {error}"),
        })?;
        let (sender, receiver) = oneshot::channel();
        let job = Self {
            invocation,
            handed_over: Instant::now(),
            stage: Mutex::default(),
            bell,
            reply: Mutex::new(Some(sender)),
        };
        Ok((job, receiver))
    }

    /// Asks the run to end. One that has not begun is answered for at once, even while its worker waits for a
    /// process.
    pub(super) fn cancel(&self) {
        let mut stage = self.stage.lock();
        stage.cancelled = true;
        if !stage.begun {
            self.answer(Ok(self.never_begun()));
        }
        drop(stage);
        self.ring();
    }

    /// Returns whether it was asked to end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.stage.lock().cancelled
    }

    /// Begins the run. Returns whether it may: not when it was asked to end before.
    pub(super) fn begin(&self) -> bool {
        let mut stage = self.stage.lock();
        stage.begun = !stage.cancelled;
        stage.begun
    }

    /// Returns the outcome of a run that was cancelled before it began.
    pub(super) fn never_begun(&self) -> Outcome {
        let mut outcome = Outcome::new(Ending::Cancelled);
        outcome.queue = self.handed_over.elapsed();
        outcome
    }

    /// Makes the worker look up.
    pub(super) fn ring(&self) {
        // Full means that it has been rung often enough.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Makes the bell silent again.
    pub(super) fn hear(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Answers, once.
    pub(super) fn answer(&self, answer: Answer) {
        if let Some(reply) = self.reply.lock().take() {
            // Nobody may be waiting any more; the run was theirs to forget.
            let _ = reply.send(answer);
        }
    }
}
