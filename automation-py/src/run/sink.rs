//! Where one stream of one run goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use automation_core::executor::{Capture, CapturedText};
use parking_lot::Mutex;

/// Bytes that threads wrote for runs that had ended. Clones share one count.
#[derive(Debug, Clone, Default)]
pub(crate) struct LateBytes(Arc<AtomicU64>);

impl LateBytes {
    /// Returns the count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Collects a stream until it is closed.
#[derive(Debug)]
pub(super) struct Sink {
    /// `None` when it is closed.
    capture: Mutex<Option<Capture>>,
    late: LateBytes,
}

impl Sink {
    /// Creates one that keeps `bytes_max`.
    pub(super) fn new(late: &LateBytes, bytes_max: usize) -> Self {
        Self {
            capture: Mutex::new(Some(Capture::with_size(bytes_max))),
            late: late.clone(),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        match &mut *self.capture.lock() {
            Some(capture) => capture.push(bytes),
            None => self.late.add(bytes.len()),
        }
    }

    /// Returns where late bytes are counted.
    pub(super) fn late(&self) -> &LateBytes {
        &self.late
    }

    /// Closes it. Returns what it got; nothing the second time.
    pub(super) fn close(&self) -> CapturedText {
        let capture = self.capture.lock().take();
        capture.map_or_else(CapturedText::default, |mut capture| capture.take())
    }
}

#[cfg(test)]
mod tests {
    use super::{LateBytes, Sink};

    #[test]
    fn what_comes_late_is_counted_and_dropped() {
        let late = LateBytes::default();
        let sink = Sink::new(&late, 1024);
        sink.write(b"in time");
        assert_eq!(sink.close().text, "in time");
        sink.write(b"late");
        assert_eq!((sink.close().text.as_str(), late.get()), ("", 4));
    }
}
