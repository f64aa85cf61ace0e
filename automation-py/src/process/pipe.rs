//! One stream of a child: what arrives is captured, within the run's bound.

use std::os::fd::OwnedFd;

use automation_core::executor::{Capture, CapturedText};
use rustix::io::{Errno, read, retry_on_intr};

/// What a look at a stream finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Nothing, now or ever.
    Nothing,
}

/// Our end of a stream; it never blocks.
pub(super) struct Pipe {
    /// `None` when nobody can write to it any more.
    end: Option<OwnedFd>,
    capture: Capture,
}

impl Pipe {
    /// Takes an end; `bytes_max` of what arrives are kept.
    pub(super) fn new(end: OwnedFd, bytes_max: usize) -> Self {
        Self {
            end: Some(end),
            capture: Capture::with_size(bytes_max),
        }
    }

    /// Returns what can be waited for.
    pub(super) const fn end(&self) -> Option<&OwnedFd> {
        self.end.as_ref()
    }

    /// Takes what has arrived, as far as it goes into `buffer`.
    pub(super) fn take<'a>(&mut self, buffer: &'a mut [u8]) -> Chunk<'a> {
        let Some(end) = &self.end else {
            return Chunk::Nothing;
        };
        match retry_on_intr(|| read(end, &mut *buffer)) {
            Ok(length) if length > 0 => {
                self.capture.push(&buffer[..length]);
                Chunk::Bytes(&buffer[..length])
            }
            Err(Errno::AGAIN) => Chunk::Nothing,
            _ => {
                self.end = None;
                Chunk::Nothing
            }
        }
    }

    /// Closes it, so that what still writes to it meets a closed pipe. Returns what it got.
    pub(super) fn close(mut self) -> CapturedText {
        self.capture.take()
    }
}
