//! Finds control lines (rule O9) in what a script writes, as it writes them.

use automation_core::executor::RunEvent;
use automation_core::parser::progress_line;

const MARK: &[u8] = b"::progress";
/// Longest control line in bytes; a longer one is text.
const LINE_BYTES_MAX: usize = 4096;

/// Follows the lines of a stream. Costs a look at each write, and memory only for a line that may be one.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    /// Whether the last byte was a line break.
    at_line_start: bool,
    /// A line that began with the mark and has not ended.
    line: Option<Vec<u8>>,
}

impl Default for ProgressLines {
    fn default() -> Self {
        Self {
            at_line_start: true,
            line: None,
        }
    }
}

impl ProgressLines {
    /// Reads on. Returns the control lines that are complete now.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Vec<RunEvent> {
        let mut events = Vec::new();
        let Some(&last) = bytes.last() else {
            return events;
        };
        let may_begin = self.at_line_start && bytes.starts_with(MARK);
        if self.line.is_some() || may_begin || (bytes.len() > MARK.len() && contains_mark(bytes)) {
            self.read_lines(bytes, &mut events);
        }
        self.at_line_start = last == b'\n';
        events
    }

    fn read_lines(&mut self, bytes: &[u8], events: &mut Vec<RunEvent>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.is_none() && self.at_line_start && part.starts_with(MARK) {
                self.line = Some(Vec::new());
            }
            self.at_line_start = part.ends_with(b"\n");
            let Some(line) = &mut self.line else { continue };
            line.extend_from_slice(part);
            if line.len() > LINE_BYTES_MAX {
                self.line = None;
            } else if self.at_line_start {
                events.extend(event(line));
                self.line = None;
            }
        }
    }
}

/// Returns whether a line other than the first begins with the mark.
fn contains_mark(bytes: &[u8]) -> bool {
    let mut starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    starts.any(|(at, _)| bytes[at + 1..].starts_with(MARK))
}

fn event(line: &[u8]) -> Option<RunEvent> {
    let line = std::str::from_utf8(line).ok()?;
    let progress = progress_line(line.strip_suffix('\n')?)?;
    Some(RunEvent::Progress {
        fraction: f64::from(progress.percent) / 100.0,
        text: progress.text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use automation_core::executor::RunEvent;

    use super::ProgressLines;

    fn scan(parts: &[&str]) -> Vec<(u32, String)> {
        let mut lines = ProgressLines::default();
        let events = parts.iter().flat_map(|part| lines.scan(part.as_bytes()));
        events
            .map(|event| match event {
                RunEvent::Progress { fraction, text } => ((fraction * 100.0).round() as u32, text),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_line_counts_when_it_is_complete_however_it_was_written() {
        let expected = [(40, "half way".to_owned())];
        for parts in [
            &["::progress 40 half way\n"][..],
            &["::progress 40 half way", "\n"],
            &["::progress", " ", "40", " ", "half", " ", "way", "\n"],
            &["text\n::progress 40 half way\nmore"],
            &["text", "\n", "::progress 40 half way\n"],
        ] {
            assert_eq!(scan(parts), expected, "{parts:?}");
        }
    }

    #[test]
    fn other_lines_are_text() {
        for parts in [
            &["::progress 40"][..],
            &["at ::progress 40\n"],
            &["at ", "::progress 40\n"],
            &["::progress 101\n"],
            &["::progressive 4\n"],
        ] {
            assert_eq!(scan(parts), [], "{parts:?}");
        }
        let long = format!("::progress 40 {}", "x".repeat(5000));
        assert_eq!(scan(&[&long, "\n"]), []);
        assert_eq!(
            scan(&["::progress 1\n::progress 2 b\n"]),
            [(1, String::new()), (2, "b".to_owned())]
        );
    }
}
