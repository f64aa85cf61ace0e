//! Finds the PEP 723 block in a source, by text. Knows where each of its bytes is in the file, and no TOML.

use std::ops::Range;

use super::Diagnostic;

const OPENING: &str = "# /// script";
const CLOSING: &str = "# ///";

/// The content of a `script` block, without its comment marks.
#[derive(Debug)]
pub(super) struct Block {
    toml: String,
    /// The line of the file, from 1, that holds the first line of the content.
    first_line: u32,
}

impl Block {
    fn new(content: &[&str], first_line: u32) -> Self {
        let lines: Vec<_> = content
            .iter()
            .map(|line| line.get(2..).unwrap_or(""))
            .collect();
        Self {
            toml: lines.join("\n"),
            first_line,
        }
    }

    /// Returns the content.
    pub(super) fn toml(&self) -> &str {
        &self.toml
    }

    /// Returns the line and the column of the file, both from 1, where a span of the content starts.
    pub(super) fn position(&self, span: &Range<usize>) -> (u32, u32) {
        let before = &self.toml[..self.toml.floor_char_boundary(span.start)];
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        // The comment mark and its space, of which the content knows nothing.
        (self.first_line + number(line), number(column) + 3)
    }
}

/// Finds the `script` block. Blocks of other types are skipped, as the standard wants it.
///
/// # Errors
/// A second block, and a block without an end: the standard ignores the latter, but a script whose limits are
/// ignored must not run.
pub(super) fn find(file: &str, source: &str) -> Result<Option<Block>, Diagnostic> {
    let lines = lines(source);
    let mut found: Option<Block> = None;
    let mut at = 0;
    while at < lines.len() {
        let Some(kind) = opened(lines[at]) else {
            at += 1;
            continue;
        };
        let content = at + 1;
        let run_end = content
            + lines[content..]
                .iter()
                .take_while(|l| is_content(l))
                .count();
        let Some(end) = (content..run_end).rev().find(|i| lines[*i] == CLOSING) else {
            if let Some(line) = (at..run_end).find(|i| lines[*i] == OPENING) {
                return Err(unclosed(file, line, run_end));
            }
            at = run_end;
            continue;
        };
        if kind == "script" {
            if let Some(first) = &found {
                return Err(second(file, at, first));
            }
            found = Some(Block::new(&lines[content..end], number(content + 1)));
        }
        at = end + 1;
    }
    Ok(found)
}

/// Returns the line, from 1, that was probably meant to open a `script` block and does not.
pub(super) fn near_miss(source: &str) -> Option<u32> {
    let index = lines(source).iter().position(|line| {
        line.trim_start()
            .strip_prefix('#')
            .and_then(|rest| rest.trim_matches(['#', ' ', '\t']).strip_prefix("///"))
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("script"))
    })?;
    Some(number(index + 1))
}

fn lines(source: &str) -> Vec<&str> {
    source
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect()
}

fn opened(line: &str) -> Option<&str> {
    line.strip_prefix("# /// ").filter(|kind| {
        !kind.is_empty()
            && kind
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn is_content(line: &str) -> bool {
    line == "#" || line.starts_with("# ")
}

fn unclosed(file: &str, line: usize, run_end: usize) -> Diagnostic {
    let message = format!(
        "the metadata block has no end: expected the line `{CLOSING}` before line {}, \
         and every line between to be `#` or to start with `# `",
        run_end + 1
    );
    Diagnostic::error(file, message).at(number(line + 1), 1)
}

fn second(file: &str, line: usize, first: &Block) -> Diagnostic {
    let message = format!(
        "a second metadata block: the first opens at line {}, and a script has one",
        first.first_line - 1
    );
    Diagnostic::error(file, message).at(number(line + 1), 1)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{find, near_miss};

    fn content(source: &str) -> Option<String> {
        find("x.py", source)
            .unwrap()
            .map(|block| block.toml().to_owned())
    }

    fn error(source: &str) -> String {
        find("x.py", source).unwrap_err().to_string()
    }

    #[test]
    fn comment_marks_are_taken_away() {
        let source =
            "#!/usr/bin/env python3\n# /// script\n# a = 1\n#\n#  b = 2\n# ///\nimport os\n";
        assert_eq!(content(source).unwrap(), "a = 1\n\n b = 2");
        assert_eq!(
            content(&source.replace('\n', "\r\n")).unwrap(),
            "a = 1\n\n b = 2"
        );
        assert_eq!(content("# /// script\n# ///").unwrap(), "");
    }

    #[test]
    fn sources_without_a_block() {
        for source in [
            "",
            "print(1)",
            "# /// pyproject\n# a = 1\n# ///\n",
            "# /// pyproject\n# a = 1\nprint()",
            "#/// script\n# a = 1\n# ///\n",
            " # /// script\n # a = 1\n # ///\n",
            "# /// script \n# a = 1\n# ///\n",
            "# /// Script\n# a = 1\n# ///\n",
        ] {
            assert_eq!(content(source), None, "{source:?}");
        }
    }

    #[test]
    fn the_last_closing_line_of_a_run_of_comments_counts() {
        let source = "# /// script\n# a = '''\n# ///\n# '''\n# ///\n# more\n";
        assert_eq!(content(source).unwrap(), "a = '''\n///\n'''");
    }

    #[test]
    fn blocks_of_other_types_are_skipped_whole() {
        let source = "# /// other\n# /// script\n# ///\n\n# /// script\n# a = 1\n# ///\n";
        assert_eq!(content(source).unwrap(), "a = 1");
    }

    #[test]
    fn an_unclosed_block_is_an_error() {
        assert_eq!(
            error("import os\n# /// script\n# a = 1\nprint()\n# ///\n"),
            "x.py:2:1: the metadata block has no end: expected the line `# ///` before line 4, \
             and every line between to be `#` or to start with `# `"
        );
        assert!(error("# /// other\n# /// script\n# a = 1").starts_with("x.py:2:1: "));
        assert!(error("# /// script").starts_with("x.py:1:1: "));
    }

    #[test]
    fn a_second_block_is_an_error() {
        assert_eq!(
            error("# /// script\n# ///\n\n# /// script\n# ///\n"),
            "x.py:4:1: a second metadata block: the first opens at line 1, and a script has one"
        );
    }

    #[test]
    fn positions_are_those_of_the_file() {
        let block = find("x.py", "\n# /// script\n# é = 1\n# b = 2\n# ///\n")
            .unwrap()
            .unwrap();
        let start = block.toml().find('1').unwrap();
        assert_eq!(block.position(&(start..start)), (3, 7));
        let start = block.toml().find('b').unwrap();
        assert_eq!(block.position(&(start..start)), (4, 3));
        assert_eq!(block.position(&(9999..9999)).0, 4);
    }

    #[test]
    fn near_misses_are_seen() {
        for source in [
            "#/// script\n",
            "  # /// script",
            "# /// Script",
            "## /// script ",
            "#///script",
        ] {
            assert_eq!(near_miss(source), Some(1), "{source:?}");
        }
        for source in [
            "",
            "# script",
            "x = '/// script'",
            "# /// scripts",
            "/// script",
        ] {
            assert_eq!(near_miss(source), None, "{source:?}");
        }
    }

    #[test]
    fn a_hostile_source_takes_linear_time() {
        let source = "# /// a\n".repeat(32_768);
        let start = std::time::Instant::now();
        assert_eq!(content(&source), None);
        assert!(start.elapsed() < std::time::Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn any_source_is_read_without_panic(lines in proptest::collection::vec(
            prop_oneof![
                Just("# /// script"), Just("# /// other"), Just("# ///"), Just("#"), Just("# é = 1"), Just("x"), Just("")
            ], 0..20))
        {
            let _ = find("x.py", &lines.join("\n"));
        }
    }
}
