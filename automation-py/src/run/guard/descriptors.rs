//! A run's own descriptors 0, 1 and 2: nothing to read, and two pipes. Its children inherit them, and what the
//! script does with the numbers 0, 1 and 2 is done with them. Made when first asked for: most runs never do.

use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use automation_core::executor::RunEvent;
use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::super::streams::Stream;
use super::super::{Run, current, is_forked, with_current};
use super::is_guarded;
use super::pump::{self, Readers};

/// The write ends of the pipes, and what reads them.
#[derive(Debug)]
pub(in crate::run) struct Stdio {
    /// `None` once closed: a copy of theirs in a child may live on.
    writers: Mutex<Option<[PipeWriter; 2]>>,
    /// Their numbers.
    numbers: [RawFd; 2],
    readers: Arc<Readers>,
}

impl Stdio {
    fn create(run: &Arc<Run>) -> std::io::Result<Self> {
        let (out_reader, out) = std::io::pipe()?;
        let (err_reader, err) = std::io::pipe()?;
        let numbers = [out.as_raw_fd(), err.as_raw_fd()];
        let readers = Readers::new(run, [out_reader, err_reader])?;
        Ok(Self {
            writers: Mutex::new(Some([out, err])),
            numbers,
            readers: Arc::new(readers),
        })
    }

    fn is_closed(&self) -> bool {
        self.writers.lock().is_none()
    }
}

/// Returns what all runs have for standard input.
fn nothing() -> std::io::Result<&'static OwnedFd> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(nothing) = NOTHING.get() {
        return Ok(nothing);
    }
    // What is written once a run's output is closed goes there, too.
    let opened = File::options().read(true).write(true).open("/dev/null")?;
    Ok(NOTHING.get_or_init(|| opened.into()))
}

impl Run {
    fn stdio(self: &Arc<Self>) -> std::io::Result<&Stdio> {
        if let Some(stdio) = self.guard.stdio.get() {
            return Ok(stdio);
        }
        let created = Stdio::create(self)?;
        pump::add(Arc::clone(&created.readers))?;
        // Another thread of the run may have been faster: then these pipes are closed again.
        Ok(self.guard.stdio.get_or_init(|| created))
    }

    /// Returns the number of the run's own descriptor for a stream.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub(in crate::run) fn descriptor(self: &Arc<Self>, stream: Stream) -> std::io::Result<RawFd> {
        match stream {
            Stream::Stdin => nothing().map(AsRawFd::as_raw_fd),
            Stream::Stdout => self.output_descriptor(0),
            Stream::Stderr => self.output_descriptor(1),
        }
    }

    fn output_descriptor(self: &Arc<Self>, place: usize) -> std::io::Result<RawFd> {
        let stdio = self.stdio()?;
        if stdio.is_closed() {
            // The number may be another file's by now.
            return nothing().map(AsRawFd::as_raw_fd);
        }
        Ok(stdio.numbers[place])
    }

    /// Takes what its descriptors hold at the moment. Returns progress lines that are complete now.
    pub(in crate::run) fn take_from_descriptors(&self) -> Vec<RunEvent> {
        match self.guard.stdio.get() {
            Some(stdio) => stdio.readers.take(self),
            None => Vec::new(),
        }
    }

    /// Takes what is left in its descriptors, and closes them unless threads go on that know their numbers.
    pub(crate) fn close_descriptors(&self) -> Vec<RunEvent> {
        let events = self.take_from_descriptors();
        if let Some(stdio) = self.guard.stdio.get()
            && self.has_ended()
            && self.threads().is_empty()
        {
            stdio.writers.lock().take();
        }
        events
    }
}

/// Whether a number is a standard descriptor of this thread's run, or stands for one.
pub(super) fn is_standard(number: RawFd) -> bool {
    (0..=2).contains(&number) || with_current(|run| own_stream(run?, number)).is_some()
}

/// Returns which stream of a run has this number.
fn own_stream(run: &Arc<Run>, number: RawFd) -> Option<Stream> {
    match number {
        0 => Some(Stream::Stdin),
        1 => Some(Stream::Stdout),
        2 => Some(Stream::Stderr),
        _ => {
            if nothing().is_ok_and(|nothing| nothing.as_raw_fd() == number) {
                return Some(Stream::Stdin);
            }
            let stdio = run.guard.stdio.get().filter(|stdio| !stdio.is_closed())?;
            let numbers = stdio.numbers;
            let streams = [Stream::Stdout, Stream::Stderr];
            let place = numbers.iter().position(|own| *own == number)?;
            Some(streams[place])
        }
    }
}

/// Returns the run's own descriptor where `number` stands for a standard one; `None` for every other.
#[pyfunction]
pub(super) fn own_descriptor(number: RawFd) -> PyResult<Option<RawFd>> {
    let Some(run) = current().filter(|_| is_guarded()) else {
        return Ok(None);
    };
    let Some(stream) = own_stream(&run, number) else {
        return Ok(None);
    };
    Ok(Some(run.descriptor(stream)?))
}

/// Says whether a copy that this thread forks gets a terminal of its own, which stays its standard descriptors.
#[pyfunction]
pub(super) fn keep_terminal(own: bool) {
    if let Some(run) = current() {
        run.guard.own_terminal.store(own, Ordering::Relaxed);
    }
}

/// Makes the descriptors that a copy of the process will use.
pub(super) fn prepare_fork() {
    if let Some(run) = current().filter(|_| is_guarded())
        && let Err(error) = run.stdio().and_then(|_| nothing())
    {
        tracing::warn!(%error, "a forked copy writes to the host's output");
    }
}

/// Makes the run's descriptors those of a copy of the process.
pub(super) fn adopt_in_copy() {
    let Some(run) = current() else { return };
    if run.guard.own_terminal.load(Ordering::Relaxed) {
        return;
    }
    if let Ok(nothing) = nothing() {
        let _ = dup2_stdin(nothing);
    }
    // Nobody else is in a copy, but the lock may have been held when it was made.
    if let Some(writers) = run
        .guard
        .stdio
        .get()
        .and_then(|stdio| stdio.writers.try_lock())
        && let Some([out, err]) = &*writers
    {
        let _ = dup2_stdout(out).and_then(|()| dup2_stderr(err));
    }
}

/// Writes what a copy of the process prints to the copy's own descriptor.
pub(in crate::run) fn write_own(stream: Stream, mut bytes: &[u8]) {
    debug_assert!(is_forked(), "the host's output is not a run's");
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let descriptor: BorrowedFd<'_> = match stream {
        Stream::Stderr => err.as_fd(),
        _ => out.as_fd(),
    };
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
