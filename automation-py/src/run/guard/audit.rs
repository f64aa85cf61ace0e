//! Hears the interpreter's audit events on threads of runs: refuses what would strike the host, and has effects noted.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rustix::process::{Pid, getpgid, getpgrp, getpid};

use super::super::{current, is_forked, with_current};
use super::events::effect;
use super::{effects, events, place, refused};
use crate::ffi::audit::{self, Audit};

/// The process in which runs are, as opposed to copies of it.
static HOST: OnceLock<Pid> = OnceLock::new();

/// Whether nothing is heard: a hook of the host's objects to others.
static DEAF: AtomicBool = AtomicBool::new(false);

/// Returns whether effects are noted and denied.
pub(crate) fn hears_effects() -> bool {
    !DEAF.load(Ordering::Relaxed)
}

/// Starts listening.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    HOST.get_or_init(getpid);
    events::find_libraries(py)?;
    let audit = Audit {
        is_heard: || with_current(|run| run.is_some()),
        listener: listen,
    };
    if let Err(error) = audit::listen(py, audit) {
        tracing::warn!(%error, "effects of scripts are neither noted nor denied");
        DEAF.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Hears an event of a thread that belongs to a run.
fn listen(py: Python<'_>, name: &[u8], arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
    let Some((family, event)) = split(name) else {
        return Ok(());
    };
    protect_host(family, event, arguments)?;
    if is_forked() {
        return Ok(());
    }
    protect_run(py, family, event, arguments)
}

/// Splits the name of an event that may be meant. Most are not, `builtins.id` and `sys._getframe` among them, and
/// cost a few comparisons.
fn split(name: &[u8]) -> Option<(&str, &str)> {
    let known = match *name {
        [b'o', b's' | b'p', ..] | [b'c', b't', ..] | [b'i', b'm', ..] => true,
        [b's', second, ..] => second != b'y',
        [b'r', b'e', ..] => true,
        _ => false,
    };
    let name = known.then(|| std::str::from_utf8(name).ok()).flatten()?;
    Some(name.split_once('.').unwrap_or((name, "")))
}

/// Refuses what would end the host or bind it.
fn protect_host(family: &str, event: &str, arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
    let number = |at| {
        let number = arguments.get_item(at).and_then(|number| number.extract());
        number.unwrap_or(0_i64)
    };
    let struck = match (family, event) {
        ("os", "kill") => number(1) != 0 && is_host(number(0)),
        ("os", "killpg") => number(1) != 0 && is_host_group(number(0)),
        ("signal", "pthread_kill") => number(1) != 0 && !is_forked(),
        ("resource", "setrlimit") => !is_forked(),
        ("resource", "prlimit") => is_host(number(0)) && !arguments.get_item(2)?.is_none(),
        ("os", "exec") => !is_forked(),
        _ => false,
    };
    if struck {
        let why = "it would reach the host's own process";
        return Err(refused(&format!("{family}.{event}"), why));
    }
    Ok(())
}

/// Whether a process id means the host: itself, one of its threads, its group, or everybody.
fn is_host(id: i64) -> bool {
    match id {
        0 => is_host_group(0),
        -1 => true,
        ..-1 => is_host_group(-id),
        _ => is_host_process(id),
    }
}

/// Whether an id is the host's process, or one of its threads.
#[pyfunction]
pub(super) fn is_host_process(id: i64) -> bool {
    let Some(host) = HOST.get() else { return false };
    let host = i64::from(host.as_raw_nonzero().get());
    id == host || PathBuf::from(format!("/proc/{host}/task/{id}")).exists()
}

fn is_host_group(group: i64) -> bool {
    let Ok(host) = getpgid(HOST.get().copied()) else {
        return false;
    };
    let group = if group == 0 {
        getpgrp()
    } else {
        match i32::try_from(group).ok().and_then(Pid::from_raw) {
            Some(group) => group,
            None => return false,
        }
    };
    group == host
}

/// Notes effects, and sees to what a run may do at all.
fn protect_run(
    py: Python<'_>,
    family: &str,
    event: &str,
    arguments: &Bound<'_, PyTuple>,
) -> PyResult<()> {
    if (family, event) == ("os", "chdir") {
        return place::before_change("os.chdir");
    }
    let Some((effect, target)) = effect(family, event, arguments) else {
        return Ok(());
    };
    let Some(run) = current() else { return Ok(()) };
    let is_child = matches!(event, "fork" | "forkpty" | "posix_spawn" | "system");
    if !is_child {
        return effects::note(py, &run, effect, target);
    }
    effects::note(py, &run, effect, target.clone())?;
    effects::count_child(py, &run, &target)
}
