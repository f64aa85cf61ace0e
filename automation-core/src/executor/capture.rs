//! Keeps the beginning and the end of a stream.

/// Collects the bytes of a stream.
#[derive(Debug, Default)]
pub struct Capture {
    bytes: Vec<u8>,
}

impl Capture {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what was kept, as text, and starts anew.
    #[must_use]
    pub fn take(&mut self) -> CapturedText {
        unimplemented!("filled by the parser room's commit")
    }
}

/// A stream as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapturedText {
    /// The text: invalid bytes are U+FFFD, one byte order mark at the start is dropped.
    pub text: String,
    /// Where in `text` the part that was not kept would be; `None` when everything is there.
    pub gap: Option<usize>,
    /// Bytes that were written.
    pub bytes_total: u64,
    /// Whether there were bytes that are not UTF-8.
    pub invalid_utf8: bool,
}

impl CapturedText {
    /// Wraps a whole text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            bytes_total: text.len() as u64,
            text,
            gap: None,
            invalid_utf8: false,
        }
    }
}
