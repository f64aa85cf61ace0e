//! Keeps the beginning and the end of a stream, in bounded memory (rules O1, O2). Knows bytes and text, nothing
//! of what the text means.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use crate::limits;

/// Longest UTF-8 encoding of a character, less its first byte.
const CONTINUATION_BYTES_MAX: usize = 3;
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Collects the bytes of a stream: the first ones, and the last ones in a ring.
///
/// Memory grows with what is written, up to the two sizes.
///
/// # Examples
/// ```
/// use automation_core::executor::Capture;
///
/// let mut capture = Capture::with_sizes(4, 4);
/// capture.push(b"first, much in between, last");
/// let captured = capture.take();
/// assert_eq!(captured.text, "firs\n[... 20 bytes omitted ...]\nlast");
/// assert_eq!(captured.bytes_total, 28);
/// ```
#[derive(Debug)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    bytes_total: u64,
}

impl Default for Capture {
    /// Creates a capture with the sizes of rule O2.
    fn default() -> Self {
        Self::with_sizes(limits::STREAM_HEAD_BYTES, limits::STREAM_TAIL_BYTES)
    }
}

impl Capture {
    /// Creates a capture that keeps the first `head_max` and the last `tail_max` bytes.
    #[must_use]
    pub const fn with_sizes(head_max: usize, tail_max: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_max,
            tail_max,
            bytes_total: 0,
        }
    }

    /// Creates a capture that keeps `bytes_max` in all: the first ones as far as rule O2 keeps them, and no more
    /// than half.
    ///
    /// ```
    /// use automation_core::executor::Capture;
    ///
    /// let mut capture = Capture::with_size(4);
    /// capture.push(b"first, last");
    /// assert_eq!(capture.take().text, "fi\n[... 7 bytes omitted ...]\nst");
    /// ```
    #[must_use]
    pub fn with_size(bytes_max: usize) -> Self {
        let head_max = limits::STREAM_HEAD_BYTES.min(bytes_max / 2);
        Self::with_sizes(head_max, bytes_max - head_max)
    }

    /// Adds bytes. How a stream is cut into calls makes no difference.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes_total += bytes.len() as u64;
        let to_head = bytes.len().min(self.head_max - self.head.len());
        let (head, rest) = bytes.split_at(to_head);
        self.head.extend_from_slice(head);
        let last = &rest[rest.len().saturating_sub(self.tail_max)..];
        self.push_tail(last);
    }

    /// Returns how many bytes were written.
    #[must_use]
    pub const fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Returns what was kept, as text, and starts anew.
    #[must_use]
    pub fn take(&mut self) -> CapturedText {
        let fresh = Self::with_sizes(self.head_max, self.tail_max);
        std::mem::replace(self, fresh).into_text()
    }

    /// Adds at most `tail_max` bytes to the ring.
    fn push_tail(&mut self, bytes: &[u8]) {
        let needed = self.tail.len() + bytes.len();
        self.tail.drain(..needed.saturating_sub(self.tail_max));
        let needed = self.tail.len() + bytes.len();
        if needed > self.tail.capacity() {
            // Doubles as a `Vec` does, and stops at the size.
            let capacity = needed.max(self.tail.capacity() * 2).min(self.tail_max);
            self.tail.reserve_exact(capacity - self.tail.len());
        }
        self.tail.extend(bytes);
    }

    fn into_text(mut self) -> CapturedText {
        let bytes_total = self.bytes_total;
        let kept = (self.head.len() + self.tail.len()) as u64;
        if kept == bytes_total {
            self.head.extend(self.tail.drain(..));
            let (text, invalid_utf8) = decode(self.head);
            return CapturedText {
                text: without_mark(text),
                gap: None,
                bytes_total,
                invalid_utf8,
            };
        }
        self.trim_seam();
        let kept = (self.head.len() + self.tail.len()) as u64;
        let (head, head_invalid) = decode(self.head);
        let (tail, tail_invalid) = decode(self.tail.into());
        let mut text = without_mark(head);
        let start = text.len();
        text += &format!("\n[... {} bytes omitted ...]\n", bytes_total - kept);
        let gap = Some(start..text.len());
        text += &tail;
        CapturedText {
            text,
            gap,
            bytes_total,
            invalid_utf8: head_invalid || tail_invalid,
        }
    }

    /// Drops what our own cut left of a character, so that the script is not blamed for it.
    fn trim_seam(&mut self) {
        let whole = self.head.len() - cut_character(&self.head);
        self.head.truncate(whole);
        let rest = self.tail.iter().take(CONTINUATION_BYTES_MAX);
        let rest = rest.take_while(|byte| is_continuation(**byte)).count();
        self.tail.drain(..rest);
    }
}

/// A stream as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapturedText {
    /// The text: invalid bytes are U+FFFD, one byte order mark at the start is dropped. Where bytes were not
    /// kept, a line of its own says how many.
    pub text: String,
    /// Where that line is in `text`, in bytes, its line breaks included: what was kept of the stream's end
    /// begins at `gap.end`. `None` when everything was kept.
    pub gap: Option<Range<usize>>,
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
            text: without_mark(text),
            gap: None,
            invalid_utf8: false,
        }
    }

    /// Returns whether the stream was longer than what was kept.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        self.gap.is_some()
    }
}

/// Returns `text` with each lone `\r` as a line break, for display only: progress bars overwrite their line.
///
/// ```
/// use automation_core::executor::for_display;
/// assert_eq!(for_display("10%\r20%\r\ndone\n"), "10%\n20%\r\ndone\n");
/// ```
#[must_use]
pub fn for_display(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut from = 0;
    for (at, _) in text.match_indices('\r') {
        if !text[at + 1..].starts_with('\n') {
            shown += &text[from..at];
            shown.push('\n');
            from = at + 1;
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    shown += &text[from..];
    Cow::Owned(shown)
}

/// Decodes UTF-8; says whether there were invalid bytes, which become U+FFFD.
fn decode(bytes: Vec<u8>) -> (String, bool) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    }
}

fn without_mark(mut text: String) -> String {
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    text
}

/// Returns the length of the character that `bytes` begins at its end and does not complete.
fn cut_character(bytes: &[u8]) -> usize {
    let last = bytes.len().saturating_sub(CONTINUATION_BYTES_MAX);
    let Some(first) = (last..bytes.len())
        .rev()
        .find(|&at| !is_continuation(bytes[at]))
    else {
        return 0;
    };
    match std::str::from_utf8(&bytes[first..]) {
        Err(error) if error.error_len().is_none() => bytes.len() - first,
        _ => 0,
    }
}

/// Returns whether `byte` can only stand inside a character.
const fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Capture, CapturedText, for_display};
    use crate::limits;

    fn capture(bytes: &[u8]) -> CapturedText {
        let mut capture = Capture::default();
        capture.push(bytes);
        capture.take()
    }

    fn small(head_max: usize, tail_max: usize, bytes: &[u8]) -> CapturedText {
        let mut capture = Capture::with_sizes(head_max, tail_max);
        capture.push(bytes);
        capture.take()
    }

    #[test]
    fn o1_bytes_that_are_not_utf8_are_replaced_and_flagged() {
        let captured = capture(b"caf\xe9 ok");
        assert_eq!(captured.text, "caf\u{fffd} ok");
        assert!(captured.invalid_utf8);
        assert_eq!(captured.bytes_total, 7);
        let captured = capture("café \u{fffd}".as_bytes());
        assert!(!captured.invalid_utf8, "a real U+FFFD is valid");
    }

    #[test]
    fn o1_a_character_that_the_script_left_half_is_flagged() {
        assert!(capture(b"caf\xc3").invalid_utf8);
    }

    #[test]
    fn o1_one_byte_order_mark_is_dropped() {
        assert_eq!(capture("\u{feff}\u{feff}x".as_bytes()).text, "\u{feff}x");
        assert_eq!(capture("x\u{feff}".as_bytes()).text, "x\u{feff}");
        assert_eq!(CapturedText::new("\u{feff}{}").text, "{}");
        let truncated = small(5, 1, "\u{feff}ab-c".as_bytes());
        assert!(truncated.text.starts_with("ab\n["), "{truncated:?}");
        assert_eq!(truncated.gap.unwrap().start, 2);
    }

    #[test]
    fn o1_a_lone_carriage_return_is_a_line_break_for_display() {
        for (text, shown) in [
            ("a\r\nb\n", "a\r\nb\n"),
            ("a\rb", "a\nb"),
            ("\r", "\n"),
            ("\r\r\n", "\n\r\n"),
            ("\ré\r", "\né\n"),
        ] {
            assert_eq!(for_display(text), shown, "{text:?}");
        }
    }

    #[test]
    fn o2_the_default_sizes_keep_a_mebibyte_whole() {
        let max = limits::STREAM_HEAD_BYTES + limits::STREAM_TAIL_BYTES;
        let whole = capture(&vec![b'x'; max]);
        assert_eq!((whole.text.len(), whole.gap), (max, None));
        let cut = capture(&vec![b'x'; max + 1]);
        assert!(cut.text.contains("\n[... 1 bytes omitted ...]\n"));
        assert_eq!(cut.gap.unwrap().start, limits::STREAM_HEAD_BYTES);
    }

    #[test]
    fn o2_a_size_is_kept_to_the_byte() {
        for size in [0, 1, 2, 1000, 1 << 17, 1 << 20, 1 << 22] {
            let mut capture = Capture::with_size(size);
            capture.push(&vec![b'x'; size]);
            assert_eq!(capture.take().gap, None, "{size}");
            capture.push(&vec![b'x'; size + 1]);
            let captured = capture.take();
            assert_eq!(
                captured.gap.unwrap().start,
                (size / 2).min(1 << 16),
                "{size}"
            );
            assert_eq!(captured.bytes_total, size as u64 + 1);
        }
    }

    #[test]
    fn o2_an_output_bomb_costs_bounded_memory() {
        let mut capture = Capture::default();
        for _ in 0..1000 {
            capture.push(&[b'x'; 9999]);
            capture.push(b"y\n");
            assert!(capture.head.capacity() <= 2 * limits::STREAM_HEAD_BYTES);
            assert!(capture.tail.capacity() <= limits::STREAM_TAIL_BYTES);
        }
        assert_eq!(capture.bytes_total(), 1000 * 10_001);
        capture.push(&vec![b'z'; 5 << 20]);
        assert!(capture.tail.capacity() <= limits::STREAM_TAIL_BYTES);
    }

    #[test]
    fn o2_a_short_output_costs_a_short_buffer() {
        let mut capture = Capture::default();
        assert_eq!(capture.head.capacity() + capture.tail.capacity(), 0);
        capture.push(b"{\"ok\": true}\n");
        assert!(capture.head.capacity() <= 64);
        assert_eq!(capture.tail.capacity(), 0);
    }

    #[test]
    fn our_cut_through_a_character_is_not_the_scripts_fault() {
        let text = "ééé-ééé";
        for head in 0..7 {
            for tail in 0..7 {
                let captured = small(head, tail, text.as_bytes());
                assert!(!captured.invalid_utf8, "{head} {tail} {captured:?}");
                assert!(!captured.text.contains('\u{fffd}'), "{head} {tail}");
            }
        }
        let captured = small(3, 3, "é😀😀é".as_bytes());
        assert_eq!(captured.text, "é\n[... 8 bytes omitted ...]\né");
        assert!(
            small(3, 2, b"ab\xff-----cd").invalid_utf8,
            "was whole and invalid"
        );
        assert!(
            small(2, 5, b"ab-----\x80\x80\x80\x80d").invalid_utf8,
            "too long for a rest"
        );
    }

    #[test]
    fn taking_starts_anew() {
        let mut capture = Capture::with_sizes(2, 2);
        capture.push(b"abcdef");
        assert!(capture.take().is_truncated());
        assert_eq!(capture.take(), CapturedText::default());
        capture.push(b"xyz");
        assert_eq!(capture.take(), CapturedText::new("xyz"));
        capture.push(b"abcdef");
        assert!(capture.take().is_truncated(), "the sizes stay");
    }

    proptest! {
        #[test]
        fn how_writes_are_cut_changes_nothing(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "\\PC{0,30}".prop_map(String::into_bytes),
            ],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            (head, tail) in (0_usize..12, 0_usize..12),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut capture = Capture::with_sizes(head, tail);
            for pair in cuts.windows(2) {
                capture.push(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(capture.take(), small(head, tail, &bytes));
        }

        #[test]
        fn exactly_head_and_tail_are_kept(
            text in "[ -~]{0,60}",
            (head, tail) in (0_usize..12, 0_usize..12),
        ) {
            let captured = small(head, tail, text.as_bytes());
            prop_assert_eq!(captured.bytes_total, text.len() as u64);
            match captured.gap {
                None => prop_assert_eq!(&captured.text, &text),
                Some(gap) => {
                    prop_assert_eq!(&captured.text[..gap.start], &text[..head]);
                    prop_assert_eq!(&captured.text[gap.end..], &text[text.len() - tail..]);
                    let marker = format!("\n[... {} bytes omitted ...]\n", text.len() - head - tail);
                    prop_assert_eq!(&captured.text[gap], marker.as_str());
                }
            }
        }

        #[test]
        fn only_bytes_that_are_not_utf8_are_flagged(
            text in "\\PC{0,30}",
            (head, tail) in (0_usize..20, 0_usize..20),
        ) {
            let captured = small(head, tail, text.as_bytes());
            prop_assert!(!captured.invalid_utf8);
        }
    }
}
