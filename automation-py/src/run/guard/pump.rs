//! Carries what runs' children write into their runs: one thread for all pipes, which never needs the GIL.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Weak};
use std::thread;

use automation_core::executor::RunEvent;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::super::Run;
use super::super::sink::LateBytes;
use super::super::streams::Stream;

/// What one look takes from a pipe at most: all that it can hold, so that whoever writes without end holds up nobody.
const LOOK_BYTES: usize = 64 * 1024;

/// The read ends of a run's pipes. They live until the last writer is gone: a child that goes on after its run must
/// not die of writing.
#[derive(Debug)]
pub(super) struct Readers {
    run: Weak<Run>,
    late: LateBytes,
    pipes: [PipeReader; 2],
    /// Held from reading to handing over, so that bytes keep their order.
    buffer: Mutex<Vec<u8>>,
}

impl Readers {
    pub(super) fn new(run: &Arc<Run>, pipes: [PipeReader; 2]) -> io::Result<Self> {
        for pipe in &pipes {
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            run: Arc::downgrade(run),
            late: run.late().clone(),
            pipes,
            buffer: Mutex::default(),
        })
    }

    /// Takes what both pipes hold at the moment.
    pub(super) fn take(&self, run: &Run) -> Vec<RunEvent> {
        let (_, mut events) = self.look(0, Some(run));
        events.extend(self.look(1, Some(run)).1);
        events
    }

    /// Takes what one pipe holds. Returns whether its last writer is gone, and progress lines that are complete now.
    fn look(&self, pipe: usize, run: Option<&Run>) -> (bool, Vec<RunEvent>) {
        let mut buffer = self.buffer.lock();
        buffer.resize(LOOK_BYTES, 0);
        let bytes = match (&self.pipes[pipe]).read(&mut buffer) {
            Ok(0) => return (true, Vec::new()),
            Ok(length) => &buffer[..length],
            Err(error) => return (!is_passing(&error), Vec::new()),
        };
        let events = match (run, pipe) {
            (None, _) => {
                self.late.add(bytes.len());
                Vec::new()
            }
            (Some(run), 0) => run.sink(Stream::Stdout, bytes),
            (Some(run), _) => run.sink(Stream::Stderr, bytes),
        };
        (false, events)
    }

    /// Carries what one pipe holds. Returns whether its last writer is gone.
    fn carry(&self, pipe: usize) -> bool {
        let run = self.run.upgrade();
        let (over, events) = self.look(pipe, run.as_deref());
        if let Some(run) = run {
            for event in events {
                run.invocation.host.emit(event);
            }
        }
        over
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The way to the thread.
struct Pump {
    added: Mutex<Vec<Arc<Readers>>>,
    wake: PipeWriter,
}

impl Pump {
    fn start() -> io::Result<Arc<Self>> {
        let (woken, wake) = io::pipe()?;
        let pump = Arc::new(Self {
            added: Mutex::default(),
            wake,
        });
        let carried = Arc::clone(&pump);
        thread::Builder::new()
            .name("python-pump".to_owned())
            .spawn(move || carry_all(&carried, woken))?;
        Ok(pump)
    }
}

/// Has the pipes of one more run carried.
pub(super) fn add(readers: Arc<Readers>) -> io::Result<()> {
    static PUMP: Mutex<Option<Arc<Pump>>> = Mutex::new(None);
    let mut started = PUMP.lock();
    let pump = match &*started {
        Some(pump) => pump,
        None => started.insert(Pump::start()?),
    };
    pump.added.lock().push(readers);
    (&pump.wake).write_all(&[0])
}

/// Carries until the process ends.
fn carry_all(pump: &Pump, mut woken: PipeReader) {
    let mut open: Vec<(Arc<Readers>, usize)> = Vec::new();
    loop {
        let ready = wait(&woken, &open);
        let mut place = 0;
        open.retain(|(readers, pipe)| {
            place += 1;
            !(ready.contains(&place) && readers.carry(*pipe))
        });
        if ready.contains(&0) {
            let _ = woken.read(&mut [0; 64]);
            for readers in pump.added.lock().drain(..) {
                open.push((Arc::clone(&readers), 0));
                open.push((readers, 1));
            }
        }
    }
}

/// Waits until something can be read. Returns the places of what: 0 is the pipe that wakes.
fn wait(woken: &PipeReader, open: &[(Arc<Readers>, usize)]) -> Vec<usize> {
    let mut waiting = vec![PollFd::new(woken, PollFlags::IN)];
    let pipes = open.iter().map(|(readers, pipe)| &readers.pipes[*pipe]);
    waiting.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    if poll(&mut waiting, None).is_err() {
        return Vec::new();
    }
    let ready = |at: &usize| !waiting[*at].revents().is_empty();
    (0..waiting.len()).filter(ready).collect()
}
