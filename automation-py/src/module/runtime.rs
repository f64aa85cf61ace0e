//! The one tokio runtime of this crate, and how a Python thread waits for it. Knows nothing of verbs.

use std::future::Future;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

/// How long Ctrl-C may go unnoticed while the main thread waits.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// The engine's tasks only order calls; scripts and commits have threads of their own.
const THREADS: usize = 2;

/// The runtime, and the process whose threads drive it: a forked child has none of them.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// Returns the runtime of this process, and starts it when there is none yet.
///
/// # Errors
/// `OSError` when the system gives no threads for it.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    let mut current = RUNTIME.lock();
    let process = std::process::id();
    if let Some((owner, runtime)) = *current
        && owner == process
    {
        return Ok(runtime);
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("automation")
        .enable_time()
        .build()
        .map_err(|error| PyOSError::new_err(format!("no threads for the engine: {error}")))?;
    // Never stopped: runs go on when nobody waits for them, and `Automation` ends its own.
    let runtime: &'static Runtime = Box::leak(Box::new(started));
    *current = Some((process, runtime));
    Ok(runtime)
}

/// Waits for `future` with the GIL released. In the main thread signals are handled meanwhile, so that Ctrl-C
/// raises `KeyboardInterrupt`; the future goes on by itself then.
///
/// # Errors
/// What a signal handler raised, or `RuntimeError` when the future panicked.
pub(crate) fn block<T, F>(py: Python<'_>, future: F) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::sync_channel(1);
    // A task of its own, so that this works on every thread, and an interrupted wait leaves nothing half done.
    runtime()?.spawn(async move {
        // Nobody listens any more when the wait was interrupted.
        let _ = sender.send(future.await);
    });
    let interval = signal_interval(py)?;
    loop {
        let received;
        (received, receiver) = py.detach(move || (receive(&receiver, interval), receiver));
        match received {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("a task of the engine panicked"));
            }
        }
    }
}

fn receive<T>(
    receiver: &mpsc::Receiver<T>,
    interval: Option<Duration>,
) -> Result<T, RecvTimeoutError> {
    match interval {
        Some(interval) => receiver.recv_timeout(interval),
        None => Ok(receiver.recv()?),
    }
}

/// Returns how often the calling thread has to look for signals: Python handles them in its main thread only, and
/// the others leave the GIL to those that have work.
fn signal_interval(py: Python<'_>) -> PyResult<Option<Duration>> {
    let threading = py.import("threading")?;
    let own = threading.call_method0("get_ident")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    Ok(own.eq(main)?.then_some(SIGNAL_CHECK))
}
