//! What a fork leaves usable. A child has a copy of everything but the other threads, and of the locks that those
//! held: with an engine at work some of them stay locked for ever.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use automation_core::Error;

/// The process that counts in [`OPEN`]; 0 before the first engine.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Engines that are open in the owner.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// An engine that is open in this process.
pub(super) struct Opened {
    process: u32,
    open: AtomicBool,
}

impl Opened {
    /// Counts an engine.
    ///
    /// # Errors
    /// Only `unsupported`: this process was forked while engines were open in its parent.
    pub(super) fn new() -> Result<Self, Error> {
        let process = std::process::id();
        if OWNER.swap(process, Ordering::AcqRel) != process {
            let left_open = OPEN.load(Ordering::Acquire);
            if left_open > 0 {
                OWNER.store(0, Ordering::Release);
                return Err(unsupported(
                    "this process was forked while a handle was open: shut it down before the fork, fork before \
                     there is one, or spawn processes",
                ));
            }
        }
        OPEN.fetch_add(1, Ordering::AcqRel);
        Ok(Self {
            process,
            open: AtomicBool::new(true),
        })
    }

    /// Checks that this is the process in which the engine's threads are.
    ///
    /// # Errors
    /// Only `unsupported`.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.is_here() {
            return Ok(());
        }
        Err(unsupported(
            "this handle was made before the process was forked: make one in each process",
        ))
    }

    /// Returns whether this is the process in which the engine's threads are.
    pub(super) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Notes that the engine is shut down.
    pub(super) fn close(&self) {
        if self.is_here() && self.open.swap(false, Ordering::AcqRel) {
            OPEN.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.close();
    }
}

fn unsupported(what: &str) -> Error {
    Error::Unsupported {
        what: what.to_owned(),
    }
}
