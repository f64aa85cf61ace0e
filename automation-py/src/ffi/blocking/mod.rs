//! Ends what a run waits for in the kernel and for locks, and the programs that it started. Linux with glibc; elsewhere
//! the same functions do nothing, and [`install`] says so.

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod errors;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod interpose;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod locks;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod sealed;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod signals;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod waits;

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod present {

    use pyo3::prelude::*;
    use pyo3::types::PyType;

    use super::{interpose, locks, signals, waits};

    pub(crate) use super::interpose::refresh;
    pub(crate) use super::signals::{
        interrupt, reap_child, reap_children, signal_process, thread_number, ticks_since_boot,
        unblock,
    };
    pub(crate) use super::waits::{bind, note_copy, spare, unbind};

    /// Makes waits interruptible: they raise `interruption`, in place of one that waits in the thread and that `meet`
    /// meets. Answers with why that is not possible here, if so.
    pub(crate) fn install(
        py: Python<'_>,
        interruption: &Bound<'_, PyType>,
        meet: &Bound<'_, PyAny>,
        child_reaped: waits::ChildReaped,
    ) -> PyResult<Result<(), &'static str>> {
        if !signals::install() {
            return Ok(Err("every real-time signal is taken"));
        }
        waits::on_child_reaped(child_reaped);
        let locks = locks::install(py, interruption, meet)?;
        let calls = interpose::install();
        Ok(calls.and(
            locks
                .then_some(())
                .ok_or("the methods of locks are not as expected"),
        ))
    }
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod absent;

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) use self::absent::*;
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use self::present::*;

/// Set in the word of a run whose waits end.
pub(crate) const CUT: u8 = 0x80;
