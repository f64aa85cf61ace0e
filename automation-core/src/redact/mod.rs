//! Keeps secrets out of everything that is recorded (promise P9).
//!
//! Knows texts and values, not where they go: the engine lets each of them pass here before it is stored, shown
//! or sent. What a script does to a secret beyond the forms below (reversing it, compressing it, printing it
//! letter by letter) is not found.

mod forms;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde_json::{Map, Value};

use self::forms::forms;
use crate::executor::CapturedText;
use crate::limits;

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Masks a run's secrets: as they are, JSON-escaped, URL-encoded, in base64 at any alignment, and in hex.
///
/// Of a secret with several lines each line of [`limits::SECRET_LINE_BYTES_MIN`] bytes or more counts as one, too.
/// Secrets shorter than [`limits::SECRET_BYTES_MIN`] are ignored: masking them would shred ordinary text.
/// Without secrets nothing is searched and nothing is copied.
///
/// # Examples
/// ```
/// use automation_core::redact::Redactor;
///
/// let redactor = Redactor::new(["hunter2!"]);
/// assert_eq!(redactor.text("login hunter2! failed"), "login *** failed");
/// assert_eq!(redactor.text("GET /?p=hunter2%21"), "GET /?p=***");
/// assert_eq!(redactor.text("Basic aHVudGVyMiE="), "Basic ***");
/// ```
#[derive(Clone, Default)]
pub struct Redactor {
    patterns: BTreeSet<String>,
    /// Built from the patterns when it is first needed.
    automaton: OnceLock<AhoCorasick>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("patterns", &self.patterns.len())
            .finish()
    }
}

impl Redactor {
    /// Creates a redactor for these secrets.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut redactor = Self::default();
        for secret in secrets {
            redactor.add(secret);
        }
        redactor
    }

    /// Adds a secret.
    pub fn add(&mut self, secret: &str) {
        // Who reads a secret from a file often strips it.
        let whole = [secret, secret.trim()];
        let whole = whole
            .into_iter()
            .filter(|part| part.len() >= limits::SECRET_BYTES_MIN);
        let lines = secret.lines().map(str::trim);
        let lines = lines.filter(|line| line.len() >= limits::SECRET_LINE_BYTES_MIN);
        self.patterns.extend(whole.chain(lines).flat_map(forms));
        self.automaton = OnceLock::new();
    }

    /// Returns whether there is nothing to mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns `text` with each secret masked.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        mask(text, &self.spans(text))
    }

    /// Masks each secret in `value`, in texts, keys and numbers.
    ///
    /// A number that holds a secret becomes a text. Keys that become the same are told apart by further asterisks.
    pub fn value(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if let Cow::Owned(masked) = self.text(&number.to_string()) {
                    *value = Value::String(masked);
                }
            }
            Value::String(text) => self.string(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(object) => self.object(object),
        }
    }

    /// Masks each secret in a stream. At a gap, of which our cut may have left a part of a secret, a beginning or
    /// an end of [`limits::SECRET_BYTES_MIN`] bytes or more is masked as well.
    pub fn captured(&self, captured: &mut CapturedText) {
        if self.is_empty() {
            return;
        }
        let Some(gap) = captured.gap.clone() else {
            return self.string(&mut captured.text);
        };
        let head = &captured.text[..gap.start];
        let tail = &captured.text[gap.end..];
        let mut head_spans = self.spans(head);
        merge(&mut head_spans, head.len() - self.cut_end(head)..head.len());
        let mut tail_spans = Vec::new();
        merge(&mut tail_spans, 0..self.cut_start(tail));
        for span in self.spans(tail) {
            merge(&mut tail_spans, span);
        }
        let head = mask(head, &head_spans);
        let tail = mask(tail, &tail_spans);
        let marker = &captured.text[gap];
        let start = head.len();
        let text = format!("{head}{marker}{tail}");
        captured.gap = Some(start..start + marker.len());
        captured.text = text;
    }

    fn string(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    fn object(&self, object: &mut Map<String, Value>) {
        for (key, mut value) in std::mem::take(object) {
            let mut key = self.text(&key).into_owned();
            while object.contains_key(&key) {
                key.push('*');
            }
            self.value(&mut value);
            object.insert(key, value);
        }
    }

    /// Returns where secrets are, in order and apart. Secrets that overlap make one span, so that no end of one
    /// remains.
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        if !self.is_empty() {
            for found in self.automaton().find_overlapping_iter(text) {
                merge(&mut spans, found.range());
            }
        }
        spans
    }

    fn automaton(&self) -> &AhoCorasick {
        self.automaton.get_or_init(|| {
            // Built anew for each run, so the kind that is soon built: a DFA takes three times as long to build
            // and searches hardly faster.
            AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(&self.patterns)
                .expect("secrets have far fewer than the 2^31 bytes that an automaton can hold")
        })
    }

    /// Returns the length of the longest beginning of a secret at the end of `text`.
    fn cut_end(&self, text: &str) -> usize {
        let text = text.as_bytes();
        self.longest_cut(|pattern, length| text.ends_with(&pattern[..length]))
    }

    /// Returns the length of the longest end of a secret at the start of `text`.
    fn cut_start(&self, text: &str) -> usize {
        let text = text.as_bytes();
        self.longest_cut(|pattern, length| text.starts_with(&pattern[pattern.len() - length..]))
    }

    fn longest_cut(&self, fits: impl Fn(&[u8], usize) -> bool) -> usize {
        let lengths = self.patterns.iter().filter_map(|pattern| {
            let pattern = pattern.as_bytes();
            let mut lengths = (limits::SECRET_BYTES_MIN..pattern.len()).rev();
            lengths.find(|&length| fits(pattern, length))
        });
        lengths.max().unwrap_or(0)
    }
}

/// Adds a span that ends behind all others, and joins it with those that it touches.
fn merge(spans: &mut Vec<Range<usize>>, mut span: Range<usize>) {
    while let Some(last) = spans.pop_if(|last| last.end >= span.start) {
        span = last.start.min(span.start)..last.end.max(span.end);
    }
    spans.push(span);
}

fn mask<'t>(text: &'t str, spans: &[Range<usize>]) -> Cow<'t, str> {
    if spans.iter().all(Range::is_empty) {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut from = 0;
    for span in spans.iter().filter(|span| !span.is_empty()) {
        masked += &text[from..span.start];
        masked += MASK;
        from = span.end;
    }
    masked += &text[from..];
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests;
