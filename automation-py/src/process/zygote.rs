//! The process that forks: how it is started, and asked for a child. Knows nothing of runs.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use automation_core::executor::ExecutorError;
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Map, Value, json};

use super::builder::Settings;
use super::tree::Process;
use super::wire::{self, Inbox, Received, Silence};
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

/// A zygote that was started. It ends with this, and with it whatever it has forked: each child holds it.
pub(super) struct Zygote {
    pub(super) socket: OwnedFd,
    pub(super) ended: Arc<AtomicBool>,
    pub(super) facts: Facts,
}

/// What a zygote says of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// For instance `3.11.7`.
    pub(super) version: String,
    pub(super) fields: Map<String, Value>,
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
    pub(super) zygote: Arc<Zygote>,
    pub(super) wires: Wires,
    pub(super) process: Process,
    /// Resident memory that it began with, in bytes.
    pub(super) inherited: u64,
}

/// Why there is no child.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The zygote is gone, or what it forked ahead: another may do it.
    Gone,
    /// This run gets none; others may be served.
    Failed(ExecutorError),
}

impl Refusal {
    fn failed(detail: impl Display) -> Self {
        Self::Failed(ExecutorError::Unavailable {
            detail: format!("no process for a run: {detail}"),
        })
    }
}

impl Zygote {
    pub(super) fn start(settings: &Settings) -> Result<Arc<Self>, ExecutorError> {
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
            .ok()
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

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Takes note that it is gone: others may learn of it later, and must not ask it for more.
    pub(super) fn note_end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Asks for a child.
    pub(super) fn order(&self) -> Result<Wires, Refusal> {
        let no_descriptor = |error| Refusal::Failed(no_descriptor(error));
        let (stdout, stdout_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
        let (stderr, stderr_theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(no_descriptor)?;
        for ours in [&stdout, &stderr] {
            ioctl_fionbio(ours, true).map_err(no_descriptor)?;
        }
        let (control, control_theirs) = wire::pair().map_err(no_descriptor)?;
        let (warden, warden_theirs) = wire::pair().map_err(no_descriptor)?;
        let theirs = [stdout_theirs, stderr_theirs, control_theirs, warden_theirs];
        let handed_over = theirs.each_ref().map(AsFd::as_fd);
        match wire::send_descriptors(&self.socket, &handed_over) {
            Ok(()) => Ok(Wires {
                stdout,
                stderr,
                control,
                warden,
            }),
            Err(error) if wire::is_gone(error) => Err(Refusal::Gone),
            Err(error) => Err(Refusal::failed(format_args!(
                "the zygote can't be asked: {error}"
            ))),
        }
    }
}

impl Wires {
    /// Waits for the child of a zygote.
    pub(super) fn child(self, zygote: &Arc<Zygote>) -> Result<Child, Refusal> {
        let mut inbox = Inbox::default();
        let answer = match inbox.wait(&self.warden, START_MAX) {
            Ok(answer) => answer,
            Err(Silence::Gone) => return Err(Refusal::Gone),
            Err(Silence::Late) => return Err(Refusal::failed("the zygote does not answer")),
        };
        if let Some(cause) = answer["error"].as_str() {
            return Err(Refusal::failed(cause));
        }
        // One that was asked for before may have ended meanwhile.
        if !matches!(inbox.receive(&self.warden), Received::Nothing) {
            return Err(Refusal::failed("it ended before it began"));
        }
        let pid = answer["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let process = pid.and_then(Process::find);
        let process = process.ok_or_else(|| Refusal::failed("it can't be watched"))?;
        Ok(Child {
            inherited: process.resident(),
            process,
            wires: self,
            zygote: Arc::clone(zygote),
        })
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
