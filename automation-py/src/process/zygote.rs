//! The process that forks: how it is started, asked for a child, and replaced when it is gone. Knows nothing of runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use automation_core::executor::ExecutorError;
use parking_lot::Mutex;
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Map, Value, json};

use super::builder::Settings;
use super::tree::Process;
use super::wire::{self, Inbox, Received};
use crate::interpreter::default_python;

/// What the interpreter executes: everything else comes through the socket, and nothing is written to a disk.
const BOOT: &str = include_str!("boot.py");
/// The modules of the zygote, in the order in which they import each other.
const MODULES: [(&str, &str); 9] = [
    (
        "_report",
        include_str!("../../python/automation/_report.py"),
    ),
    ("_wire", include_str!("../../python/automation/_wire.py")),
    (
        "_process",
        include_str!("../../python/automation/_process.py"),
    ),
    (
        "_result",
        include_str!("../../python/automation/_result.py"),
    ),
    (
        "_run_cmd",
        include_str!("../../python/automation/_run_cmd.py"),
    ),
    (
        "_context",
        include_str!("../../python/automation/_context.py"),
    ),
    (
        "_effects",
        include_str!("../../python/automation/_effects.py"),
    ),
    ("_child", include_str!("../../python/automation/_child.py")),
    (
        "_zygote",
        include_str!("../../python/automation/_zygote.py"),
    ),
];
/// Time that the interpreter gets to start, and the zygote to fork: a busy machine takes its time.
const START_MAX: Duration = Duration::from_secs(20);
/// Starts within [`STARTS_WINDOW`] after which no further one is tried: each costs a second of processor time.
const STARTS_MAX: usize = 10;
const STARTS_WINDOW: Duration = Duration::from_secs(60);

/// A zygote that was started. It ends with this, and with it whatever it has forked.
pub(super) struct Zygote {
    socket: OwnedFd,
    ended: Arc<AtomicBool>,
    facts: Facts,
}

/// What a zygote says of itself.
#[derive(Debug, Clone)]
struct Facts {
    /// For instance `3.11.7`.
    version: String,
    fields: Map<String, Value>,
}

/// Our ends of what connects us with a child.
pub(super) struct Wires {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Where the script asks and is answered.
    pub(super) control: OwnedFd,
    /// Where the zygote says how the child ended. Closing it ends the child.
    pub(super) warden: OwnedFd,
}

/// A child that waits for its order.
pub(super) struct Child {
    pub(super) wires: Wires,
    pub(super) process: Process,
    /// Resident memory that it began with, in bytes.
    pub(super) inherited: u64,
    /// To be set by who finds that the zygote is gone: others may learn of it later, and must not ask it for more.
    pub(super) zygote_ended: Arc<AtomicBool>,
}

impl Zygote {
    fn start(settings: &Settings) -> Result<Arc<Self>, ExecutorError> {
        let python = settings.python.clone().unwrap_or_else(default_python);
        let (socket, theirs) = wire::pair().map_err(no_descriptor)?;
        let ended = Arc::new(AtomicBool::new(false));
        keep(&python, theirs, Arc::clone(&ended))?;
        let modules: Vec<_> = MODULES
            .iter()
            .map(|(name, text)| json!([name, text]))
            .collect();
        let path = settings.import_path.as_ref();
        let path = path.map(|path| path.iter().map(|folder| folder.to_string_lossy()).collect());
        let path: Option<Vec<_>> = path;
        let setup = json!({ "modules": modules, "path": path, "host": std::process::id() });
        // When it is gone already, the answer that never comes says so.
        let _ = wire::send(&socket, &setup);
        let facts = Inbox::default()
            .wait(&socket, START_MAX)
            .and_then(Facts::read);
        let facts = facts.ok_or_else(|| {
            let shown = python.display();
            start_error(format!(
                "{shown} did not become a zygote: expected CPython 3.9 or later"
            ))
        })?;
        Ok(Arc::new(Self {
            socket,
            ended,
            facts,
        }))
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Asks for a child. `None` when the zygote is gone.
    fn order(&self) -> Result<Option<Wires>, ExecutorError> {
        let (stdout, stdout_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
        let (stderr, stderr_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
        for ours in [&stdout, &stderr] {
            ioctl_fionbio(ours, true).map_err(no_descriptor)?;
        }
        let (control, control_theirs) = wire::pair().map_err(no_descriptor)?;
        let (warden, warden_theirs) = wire::pair().map_err(no_descriptor)?;
        let theirs = [stdout_theirs, stderr_theirs, control_theirs, warden_theirs];
        let handed_over = theirs.each_ref().map(AsFd::as_fd);
        let sent = wire::send_descriptors(&self.socket, &handed_over);
        Ok(sent.ok().map(|()| Wires {
            stdout,
            stderr,
            control,
            warden,
        }))
    }
}

impl Wires {
    /// Waits for the child of a zygote. `None` when either is gone.
    fn child(self, zygote: &Zygote) -> Result<Option<Child>, ExecutorError> {
        let mut inbox = Inbox::default();
        let Some(answer) = inbox.wait(&self.warden, START_MAX) else {
            return Ok(None);
        };
        if let Some(cause) = answer["error"].as_str() {
            return Err(ExecutorError::Unavailable {
                detail: format!("no process for a run: {cause}"),
            });
        }
        // One that was asked for before may have ended meanwhile.
        if !matches!(inbox.receive(&self.warden), Received::Nothing) {
            return Ok(None);
        }
        let pid = answer["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        Ok(pid.and_then(Process::find).map(|process| Child {
            inherited: process.resident(),
            process,
            wires: self,
            zygote_ended: Arc::clone(&zygote.ended),
        }))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // A copy of this process that somebody forked may hold the socket open.
        wire::send_end(&self.socket);
    }
}

impl Facts {
    fn read(answer: Value) -> Option<Self> {
        let Value::Object(mut fields) = answer else {
            return None;
        };
        let version = fields.remove("version")?.as_str()?.to_owned();
        if fields.remove("can_bind") != Some(Value::Bool(true)) {
            let warning =
                "ctypes is missing: what scripts leave running outlives a host that is killed";
            fields.insert("warning".to_owned(), json!(warning));
        }
        Some(Self { version, fields })
    }
}

/// Starts the interpreter on a thread that stays until it ends: the kernel ends it with that thread.
fn keep(python: &Path, socket: OwnedFd, ended: Arc<AtomicBool>) -> Result<(), ExecutorError> {
    let mut command = Command::new(python);
    command
        .args(["-E", "-X", "utf8", "-c", BOOT])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null());
    let (sender, receiver) = mpsc::channel();
    let shown = PathBuf::from(python);
    let wait = move || {
        let spawned = command.spawn();
        // It holds the zygote's end of the socket.
        drop(command);
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        };
        let _ = sender.send(Ok(()));
        let status = child.wait();
        ended.store(true, Ordering::Release);
        tracing::debug!(?status, "the zygote has ended");
    };
    thread::Builder::new()
        .name("python-zygote".to_owned())
        .spawn(wait)
        .map_err(|error| start_error(format!("no thread for the zygote: {error}")))?;
    match receiver.recv() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(start_error(format!(
            "{} can't be executed: {error}",
            shown.display()
        ))),
        Err(_) => Err(start_error("its thread panicked")),
    }
}

/// The zygote of an executor, and the next one when it is gone.
pub(super) struct Zygotes {
    settings: Settings,
    /// Held while one is started, so that nobody starts another meanwhile.
    starting: Mutex<()>,
    state: Mutex<State>,
    /// A child that waits for the next run, and its zygote.
    spare: Mutex<Option<(Weak<Zygote>, Wires)>>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Zygote>>,
    /// The latest starts.
    starts: Vec<Instant>,
    started: u64,
}

impl State {
    fn alive(&self) -> Option<&Arc<Zygote>> {
        self.current.as_ref().filter(|zygote| !zygote.has_ended())
    }

    fn recent_starts(&self) -> usize {
        let recent = |start: &&Instant| start.elapsed() < STARTS_WINDOW;
        self.starts.iter().filter(recent).count()
    }

    /// Counts a start, unless there were too many.
    fn count_start(&mut self) -> Result<(), ExecutorError> {
        if self.recent_starts() >= STARTS_MAX {
            return Err(ExecutorError::Unavailable {
                detail: format!("the zygote ended {STARTS_MAX} times within a minute"),
            });
        }
        self.starts.retain(|start| start.elapsed() < STARTS_WINDOW);
        self.starts.push(Instant::now());
        Ok(())
    }
}

impl Zygotes {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            starting: Mutex::default(),
            state: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// Returns a child that waits for its order. Starts a zygote when there is none.
    pub(super) fn fork(&self) -> Result<Child, ExecutorError> {
        loop {
            let zygote = self.get()?;
            if let Some(spare) = self.take_spare(&zygote)
                && let Some(child) = spare.child(&zygote)?
            {
                return Ok(child);
            }
            let ordered = zygote.order()?.map(|wires| wires.child(&zygote));
            let ordered = ordered.transpose()?;
            match ordered.flatten() {
                Some(child) => return Ok(child),
                None => self.replace(&zygote),
            }
        }
    }

    /// Asks for a child ahead of the next run, which then need not wait for the fork.
    pub(super) fn prepare(&self) {
        let mut spare = self.spare.lock();
        let zygote = self.state.lock().alive().map(Arc::clone);
        if spare.is_none()
            && let Some(zygote) = zygote
            && let Ok(Some(wires)) = zygote.order()
        {
            *spare = Some((Arc::downgrade(&zygote), wires));
        }
    }

    fn take_spare(&self, zygote: &Arc<Zygote>) -> Option<Wires> {
        let (of, wires) = self.spare.lock().take()?;
        std::ptr::eq(of.as_ptr(), Arc::as_ptr(zygote)).then_some(wires)
    }

    fn get(&self) -> Result<Arc<Zygote>, ExecutorError> {
        let _starting = self.starting.lock();
        if let Some(zygote) = self.state.lock().alive() {
            return Ok(Arc::clone(zygote));
        }
        self.state.lock().count_start()?;
        let zygote = Zygote::start(&self.settings)?;
        let mut state = self.state.lock();
        state.started += 1;
        state.current = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    /// Lets a zygote go that does not answer.
    fn replace(&self, zygote: &Arc<Zygote>) {
        let mut state = self.state.lock();
        let is_current = |current: &Arc<Zygote>| Arc::ptr_eq(current, zygote);
        state.current.take_if(|current| is_current(current));
    }

    /// Ends the zygote.
    pub(super) fn close(&self) {
        *self.spare.lock() = None;
        self.state.lock().current = None;
    }

    /// Returns whether a run would get a process, the interpreter's version, and further facts.
    pub(super) fn health(&self) -> (bool, Option<String>, Map<String, Value>) {
        let state = self.state.lock();
        let alive = state.alive().is_some();
        let facts = state.current.as_ref().map(|zygote| &zygote.facts);
        let mut details = facts.map_or_else(Map::new, |facts| facts.fields.clone());
        details.insert("zygote".to_owned(), json!(alive));
        let restarts = state.started.saturating_sub(1);
        details.insert("restarts".to_owned(), json!(restarts));
        let version = facts.map(|facts| format!("Python {}", facts.version));
        (
            alive || state.recent_starts() < STARTS_MAX,
            version,
            details,
        )
    }
}

fn no_descriptor(error: rustix::io::Errno) -> ExecutorError {
    ExecutorError::Unavailable {
        detail: format!("no descriptor for a run: {error}"),
    }
}

fn start_error(detail: impl Into<String>) -> ExecutorError {
    ExecutorError::Start {
        detail: detail.into(),
    }
}
