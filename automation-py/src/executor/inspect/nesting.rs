//! A look at a source before Python's parser sees it: what nests or chains without bound makes the parser recurse, or
//! take time and memory with the square of its length. Knows tokens, and no grammar.

/// Brackets that may be open at once: the tokenizer refuses 200, real scripts have a dozen.
const BRACKETS_MAX: usize = 100;
/// Tokens that may follow each other without a comma or an end of line: `a.b.c`, `1 + 1 + 1` and `not not x` nest one
/// level each, which `elif` and brackets don't.
const CHAIN_MAX: usize = 1_000;

/// Where and why Python must not see a source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// What is open at some place of a source.
#[derive(Debug)]
enum Open {
    /// A bracket of code; tokens since its last comma.
    Bracket(usize),
    /// The text of an f-string: its quote, and how many of them end it.
    Text { quote: u8, count: usize },
}

/// Looks at a source.
pub(super) fn check(source: &str) -> Result<(), TooDeep> {
    let mut scan = Scan {
        bytes: source.as_bytes(),
        at: 0,
        open: Vec::new(),
        chain: 0,
    };
    while scan.at < scan.bytes.len() {
        match scan.open.last() {
            Some(&Open::Text { quote, count }) => scan.text(quote, count),
            _ => scan.token(),
        }
        if let Some(message) = scan.problem() {
            let at = source.floor_char_boundary(scan.at);
            let (line, column) = place(&source[..at]);
            return Err(TooDeep {
                line,
                column,
                message,
            });
        }
    }
    Ok(())
}

/// Returns the line and the column in characters, both from 1, at the end of a text.
fn place(before: &str) -> (u32, u32) {
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|c| *c != '\n')
        .count()
        .max(1);
    let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
    (number(line), number(column))
}

struct Scan<'s> {
    bytes: &'s [u8],
    at: usize,
    open: Vec<Open>,
    /// Tokens since the last comma or end of line, outside brackets.
    chain: usize,
}

impl Scan<'_> {
    fn problem(&self) -> Option<String> {
        if self.open.len() > BRACKETS_MAX {
            return Some(format!("brackets nest deeper than {BRACKETS_MAX} levels"));
        }
        let chain = match self.open.last() {
            Some(Open::Bracket(chain)) => *chain,
            Some(Open::Text { .. }) => 0,
            None => self.chain,
        };
        (chain > CHAIN_MAX).then(|| {
            format!("an expression of more than {CHAIN_MAX} parts, expected several shorter ones")
        })
    }

    fn starts_with(&self, text: &[u8]) -> bool {
        self.bytes[self.at..].starts_with(text)
    }

    /// Passes one token of code.
    fn token(&mut self) {
        let byte = self.bytes[self.at];
        match byte {
            b'\n' | b'\r' | b';' if self.open.is_empty() => self.chain = 0,
            b'\\' if self.starts_with(b"\\\r\n") => self.at += 2,
            b'\\' => self.at += 1,
            b',' => *self.count() = 0,
            b'#' => return self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
            b'(' | b'[' | b'{' => {
                *self.count() += 1;
                self.open.push(Open::Bracket(0));
            }
            b')' | b']' | b'}' => drop(self.open.pop()),
            b':' if self.is_format() => drop(self.open.pop()),
            b'\'' | b'"' => return self.string(false),
            _ if is_word(byte) => return self.word(),
            _ if byte.is_ascii_punctuation() => *self.count() += 1,
            _ => {}
        }
        self.at += 1;
    }

    /// Returns the count of tokens at this place.
    fn count(&mut self) -> &mut usize {
        match self.open.last_mut() {
            Some(Open::Bracket(chain)) => chain,
            _ => &mut self.chain,
        }
    }

    /// Returns whether a colon here ends the expression of an f-string's field, which its format follows.
    fn is_format(&self) -> bool {
        matches!(
            self.open.as_slice(),
            [.., Open::Text { .. }, Open::Bracket(_)]
        )
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().take_while(|byte| skipped(**byte)).count();
    }

    /// Passes a name or a number; a name right before a quote is a string's prefix.
    fn word(&mut self) {
        let start = self.at;
        self.skip_while(is_word);
        let word = &self.bytes[start..self.at];
        if word.len() <= 2 && matches!(self.bytes.get(self.at), Some(b'\'' | b'"')) {
            return self.string(
                word.iter()
                    .any(|byte| matches!(byte, b'f' | b'F' | b't' | b'T')),
            );
        }
        *self.count() += 1;
    }

    /// Passes a string; one with fields is entered where the tokenizer enters it. Strings that follow each other are
    /// one, so they are no tokens of a chain.
    fn string(&mut self, fields: bool) {
        let quote = self.bytes[self.at];
        let count = if self.starts_with(&[quote; 3]) { 3 } else { 1 };
        self.at += count;
        if fields && cfg!(Py_3_12) {
            return self.open.push(Open::Text { quote, count });
        }
        while self.at < self.bytes.len() && !self.ends(quote, count) {
            self.at += if self.bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at = (self.at + count).min(self.bytes.len());
    }

    /// Returns whether a string ends here: at its quotes, or, where it has one quote, at the end of the line.
    fn ends(&self, quote: u8, count: usize) -> bool {
        self.starts_with(&[quote; 3][..count]) || (count == 1 && self.bytes[self.at] == b'\n')
    }

    /// Passes a byte of an f-string's text.
    fn text(&mut self, quote: u8, count: usize) {
        if self.ends(quote, count) {
            self.open.pop();
            self.at += count;
        } else if self.starts_with(b"{{") || self.bytes[self.at] == b'\\' {
            self.at += 2;
        } else if self.bytes[self.at] == b'{' {
            self.open.push(Open::Bracket(0));
            self.at += 1;
        } else {
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_code_counts() {
        let deep = "(".repeat(200);
        let long = ".a".repeat(2000);
        for source in [
            format!("# {deep}{long}\nx = 1\n"),
            format!("x = '{deep}{long}'\n"),
            format!("x = f'''{{{{{long}'''\n"),
            format!("x = r'\\{deep}'\n"),
            format!("x = f'{{y:{long}}}'\n"),
            format!("x = (1,\n{})\n", "2 + 3,\n".repeat(5000)),
        ] {
            assert_eq!(check(&source), Ok(()), "{}", &source[..12]);
        }
    }

    #[test]
    fn a_chain_ends_with_its_line_unless_the_line_goes_on() {
        let lines = "x = a.b.c\n".repeat(1000);
        assert_eq!(check(&lines), Ok(()));
        let error = check(&lines.replace('\n', " + \\\n")).unwrap_err();
        assert_eq!(error.line, 126);
        let error = check(&format!("é = 1\né = {}", "[".repeat(200))).unwrap_err();
        assert_eq!((error.line, error.column), (2, 105));
        assert_eq!(error.message, "brackets nest deeper than 100 levels");
    }
}
