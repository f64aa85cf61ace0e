//! What a worker thread has for itself and a run may change: working directory and umask, and which signals it takes.
//! Directory and umask are a thread's own on Linux; elsewhere, and where a container refuses that, they are the whole
//! process's, and a run may not change them.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::thread;

use parking_lot::Mutex;
use pyo3::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{fchdir, umask};

use super::super::{Run, current};
use super::refused;
use crate::ffi;
use crate::ffi::mask::SignalMask;

/// Why worker threads have no place of their own, if so.
static SHARED: Mutex<Option<String>> = Mutex::new(None);

/// How the folder is opened: for `fchdir` only, so that it need not be readable.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY;

/// The place that runs of an executor start at: the host's when it was built.
#[derive(Debug)]
pub(crate) struct Place(Option<Start>);

#[derive(Debug)]
struct Start {
    folder: OwnedFd,
    umask: Mode,
}

impl Place {
    /// Returns the calling process's, and finds out whether threads can have their own.
    pub(crate) fn of_process() -> Self {
        // On a thread of its own, which may change its umask to learn it.
        let found = thread::spawn(|| {
            ffi::place::own_place().map_err(|error| error.to_string())?;
            let flags = FOLDER | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(CWD, ".", flags, Mode::empty())
                .map_err(|error| format!("the working directory can't be opened: {error}"))?;
            let umask = umask(Mode::empty());
            Ok(Start { folder, umask })
        });
        let found = found
            .join()
            .unwrap_or_else(|_| Err("it could not be found out".to_owned()));
        match found {
            Ok(start) => Self(Some(start)),
            Err(error) => {
                *SHARED.lock() = Some(error);
                Self(None)
            }
        }
    }

    /// Returns whether worker threads have their own, as far as an executor has found out.
    pub(crate) fn is_own() -> bool {
        SHARED.lock().is_none()
    }

    /// Returns what health says of it.
    pub(crate) fn described() -> String {
        match &*SHARED.lock() {
            None => "each run's own".to_owned(),
            Some(error) => format!("the process's, runs may not change it: {error}"),
        }
    }

    /// Gives the calling worker thread its own.
    pub(crate) fn enter(&self) {
        if let Some(start) = &self.0 {
            start.enter();
        }
    }

    /// Takes back what a run changed, on its worker thread. Threads that the run left keep what it had.
    pub(crate) fn restore(&self, run: &Run) {
        if let Some(mask) = run.guard.mask.get() {
            mask.set();
        }
        if run.guard.place_changed.swap(false, Ordering::AcqRel)
            && let Some(start) = &self.0
        {
            start.enter();
        }
    }
}

impl Start {
    fn enter(&self) {
        let own = ffi::place::own_place().map_err(|error| error.to_string());
        let entered = own.and_then(|()| {
            umask(self.umask);
            fchdir(&self.folder).map_err(|error| error.to_string())
        });
        if let Err(error) = entered {
            tracing::error!(%error, "a worker has no working directory of its own");
            *SHARED.lock() = Some(error);
        }
    }
}

/// Allows this thread's run to change its place, or refuses `what` would.
#[pyfunction]
pub(super) fn before_change(what: &str) -> PyResult<()> {
    let Some(run) = current() else { return Ok(()) };
    if let Some(error) = &*SHARED.lock() {
        let why = format!("it would change the whole process ({error})");
        return Err(refused(what, &why));
    }
    // A thread that a run left may share its place with the next run on the same worker.
    if run.has_ended() {
        return Err(refused(what, "the run has ended"));
    }
    run.guard.place_changed.store(true, Ordering::Release);
    Ok(())
}

/// Keeps what signals this thread takes, should its run's end have to restore that: threads of a run's own end.
#[pyfunction]
pub(super) fn before_mask_change() {
    if let Some(run) = current()
        && run.worker() == Some(ffi::thread_ident())
    {
        run.guard.mask.get_or_init(SignalMask::of_thread);
    }
}
