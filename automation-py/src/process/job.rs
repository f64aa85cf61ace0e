//! One run as its caller and its worker know it: what is to be run, the wish that it ends, the answer.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use automation_core::executor::{ExecutorError, Invocation, Outcome};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

pub(super) type Answer = Result<Outcome, ExecutorError>;

/// One run, from the moment it is handed over until it is answered for.
pub(super) struct Job {
    pub(super) invocation: Invocation,
    pub(super) handed_over: Instant,
    cancelled: AtomicBool,
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
            cancelled: AtomicBool::new(false),
            bell,
            reply: Mutex::new(Some(sender)),
        };
        Ok((job, receiver))
    }

    /// Asks the run to end.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.ring();
    }

    /// Returns whether it was asked to end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
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
