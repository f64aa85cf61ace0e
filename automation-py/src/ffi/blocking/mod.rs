//! Ends what a run waits for in the kernel and for locks, and the programs that it started. Where calls can't be
//! redirected the same functions do nothing, and [`install`] says so.

#[cfg_attr(
    all(
        target_os = "linux",
        target_env = "gnu",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ),
    path = "present/mod.rs"
)]
#[cfg_attr(
    not(all(
        target_os = "linux",
        target_env = "gnu",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    path = "absent.rs"
)]
mod system;

pub(crate) use self::system::*;

/// Set in the word of a run whose waits end.
pub(crate) const CUT: u8 = 0x80;
