//! Control lines (rule O9): `::progress 40 text`. There are no others.

use std::borrow::Cow;

const PREFIX: &str = "::progress ";
const PERCENT_MAX: u8 = 100;

/// What a control line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// How far the script is, from 0 to 100.
    pub percent: u8,
    /// What it is doing; may be empty.
    pub text: &'a str,
}

/// Reads a line, without its line break, as a control line; `None` for any other text.
///
/// ```
/// use automation_core::parser::progress_line;
///
/// let progress = progress_line("::progress 40 cleaning caches").unwrap();
/// assert_eq!((progress.percent, progress.text), (40, "cleaning caches"));
/// assert!(progress_line("::progress 101").is_none());
/// assert!(progress_line("at ::progress 40").is_none());
/// ```
#[must_use]
pub fn progress_line(line: &str) -> Option<Progress<'_>> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let rest = line.strip_prefix(PREFIX)?;
    let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
    // `parse` alone would take a plus sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let percent = number
        .parse()
        .ok()
        .filter(|&percent| percent <= PERCENT_MAX)?;
    Some(Progress { percent, text })
}

/// Blanks out control lines. What remains keeps its place, so that offsets stay right.
pub(super) fn without_control_lines(text: &str) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(text.as_bytes());
    if !text.contains(PREFIX) {
        return bytes;
    }
    let mut start = 0;
    for line in text.split('\n') {
        let end = start + line.len();
        if progress_line(line).is_some() {
            bytes.to_mut()[start..end].fill(b' ');
        }
        start = end + 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Progress, progress_line, without_control_lines};

    #[test]
    fn o9_a_control_line_is_a_whole_line() {
        for (line, percent, text) in [
            ("::progress 0", 0, ""),
            ("::progress 100 done", 100, "done"),
            ("::progress 7 ", 7, ""),
            ("::progress 007  two  spaces ", 7, " two  spaces "),
            ("::progress 40 text\r", 40, "text"),
            ("::progress 40\r", 40, ""),
        ] {
            assert_eq!(
                progress_line(line),
                Some(Progress { percent, text }),
                "{line:?}"
            );
        }
    }

    #[test]
    fn o9_everything_else_is_text() {
        for line in [
            "",
            "::progress",
            "::progress ",
            "::progress  40",
            "::progress 101",
            "::progress 999999999999",
            "::progress -1",
            "::progress +1",
            "::progress 4.5",
            "::progress 40%",
            "::progress ٤٠",
            " ::progress 40",
            "::Progress 40",
            "::result {}",
            "::stop-commands::x",
            "::progress\t40",
        ] {
            assert_eq!(progress_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn blanking_keeps_every_other_byte_in_its_place() {
        let text = "a\n::progress 1 é\r\n::progress x\n\n::progress 100";
        let blanked = without_control_lines(text);
        assert_eq!(blanked.len(), text.len());
        let expected = format!("a\n{}\n::progress x\n\n{}", " ".repeat(16), " ".repeat(14));
        assert_eq!(String::from_utf8_lossy(&blanked), expected);
    }
}
