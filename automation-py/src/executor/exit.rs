//! Makes the end of the process wait for workers that are about to end.
//!
//! What C libraries keep for a thread they give back when it ends, OpenSSL among them, and what they keep for the
//! process when that ends: both at once corrupts memory. Knows nothing of runs.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ffi;
use crate::run::is_forked;

/// How long the process waits. Idle workers take milliseconds; what executes a script till then goes down with it.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(1);

static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Takes threads that end as soon as they have nothing to do. Called once the libraries are loaded that they used: the
/// process calls what was registered last first.
pub(super) fn wait_for(threads: Vec<JoinHandle<()>>) {
    let mut ending = ENDING.lock();
    ending.extend(threads);
    join_ended(&mut ending);
    drop(ending);
    ffi::at_exit(wait);
}

/// Waits for those whose work is done until they are gone, and keeps the others.
fn join_ended(threads: &mut Vec<JoinHandle<()>>) {
    let (ended, others) = std::mem::take(threads)
        .into_iter()
        .partition(JoinHandle::is_finished);
    *threads = others;
    let ended: Vec<_> = ended;
    for thread in ended {
        // A panic was reported when it happened.
        let _ = thread.join();
    }
}

extern "C" fn wait() {
    let end = Instant::now() + WAIT_MAX;
    // A copy of the process has none of the threads.
    while !is_forked()
        && let Some(mut ending) = ENDING.try_lock()
    {
        join_ended(&mut ending);
        if ending.is_empty() || Instant::now() >= end {
            return;
        }
        drop(ending);
        thread::sleep(LOOK);
    }
}
