//! A thread's own working directory and umask.

use std::io;

/// Gives the calling thread a working directory and a umask of its own, copies of what it had. Threads that it
/// starts from now on share them with it.
///
/// # Errors
/// The system has no such thing, or a container's profile refuses it.
pub(crate) fn own_place() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: changes only what the calling thread shares with others.
        match unsafe { libc::unshare(libc::CLONE_FS) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only Linux gives threads their own",
    ))
}
