//! The tokens of JSON, found by bytes. Knows the grammar, and nothing of values, limits or nesting.
//!
//! The strict reader and the search for documents in noise both stand on it, so that there is one grammar.
//! Every function answers `Err` with the offset of the first byte that can't be right (the length of the
//! text when it ends early).

use std::ops::Range;

/// A value without parts, except a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    True,
    False,
    Integer,
    Float,
    /// `NaN`, `Infinity`, `-Infinity`: not JSON, but a token for which there is a better answer than "syntax".
    NotFinite,
}

/// A string, still escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quoted {
    /// What is between the quotes.
    pub(crate) inner: Range<usize>,
    /// Whether there is a backslash in it.
    pub(crate) escaped: bool,
}

/// Returns whether `byte` is white space between tokens.
pub(crate) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Returns where the blanks that begin at `at` end.
pub(crate) fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).copied().is_some_and(is_blank) {
        at += 1;
    }
    at
}

/// Finds the end of the string whose quote is at `open`.
pub(crate) fn string(bytes: &[u8], open: usize) -> Result<Quoted, usize> {
    let mut at = open + 1;
    let mut escaped = false;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => {
                let inner = open + 1..at;
                return Ok(Quoted { inner, escaped });
            }
            Some(b'\\') => at = escape(bytes, at)?,
            _ => return Err(at),
        }
        escaped = true;
    }
}

/// Finds the end of the scalar at `at`.
pub(crate) fn scalar(bytes: &[u8], at: usize) -> Result<(Scalar, usize), usize> {
    match bytes.get(at) {
        Some(b'0'..=b'9') => number(bytes, at, at),
        Some(b'-') if bytes.get(at + 1) == Some(&b'I') => {
            word(bytes, at, b"-Infinity", Scalar::NotFinite)
        }
        Some(b'-') => number(bytes, at, at + 1),
        Some(b't') => word(bytes, at, b"true", Scalar::True),
        Some(b'f') => word(bytes, at, b"false", Scalar::False),
        Some(b'n') => word(bytes, at, b"null", Scalar::Null),
        Some(b'N') => word(bytes, at, b"NaN", Scalar::NotFinite),
        Some(b'I') => word(bytes, at, b"Infinity", Scalar::NotFinite),
        _ => Err(at),
    }
}

/// Finds the number's end; `digits_at` is behind its sign.
fn number(bytes: &[u8], start: usize, digits_at: usize) -> Result<(Scalar, usize), usize> {
    debug_assert!(digits_at - start <= 1, "at most a sign");
    let mut scalar = Scalar::Integer;
    let mut at = match bytes.get(digits_at) {
        Some(b'0') => digits_at + 1,
        _ => digits(bytes, digits_at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        scalar = Scalar::Float;
        at = digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        scalar = Scalar::Float;
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(bytes, at + 1 + usize::from(sign))?;
    }
    Ok((scalar, at))
}

/// Finds the end of at least one digit.
fn digits(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let mut at = start;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    if at == start { Err(start) } else { Ok(at) }
}

fn word(bytes: &[u8], start: usize, word: &[u8], scalar: Scalar) -> Result<(Scalar, usize), usize> {
    let same = bytes[start..]
        .iter()
        .zip(word)
        .take_while(|(byte, expected)| byte == expected)
        .count();
    if same == word.len() {
        Ok((scalar, start + same))
    } else {
        Err(start + same)
    }
}

/// Finds the end of the escape whose backslash is at `at`.
fn escape(bytes: &[u8], at: usize) -> Result<usize, usize> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => (at + 2..at + 6)
            .find(|&digit| !bytes.get(digit).is_some_and(u8::is_ascii_hexdigit))
            .map_or(Ok(at + 6), Err),
        _ => Err(at + 1),
    }
}

/// Finds the next quote, backslash or control character: the text's end if there is none.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes[at..].first_chunk() {
        let special = special(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += size_of::<u64>();
    }
    while bytes
        .get(at)
        .is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\')
    {
        at += 1;
    }
    at
}

/// Marks quotes, backslashes and control characters with the top bit of their byte, eight bytes at once. The
/// lowest mark is exact; a borrow may put false ones above it.
const fn special(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let quote = eight ^ (ONES * b'"' as u64);
    let backslash = eight ^ (ONES * b'\\' as u64);
    let control = eight.wrapping_sub(ONES * b' ' as u64) & !eight;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & TOPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Quoted, Scalar, plain_end, scalar, string};

    #[test]
    fn scalars_end_where_the_grammar_says() {
        use Scalar::{False, Float, Integer, NotFinite, Null, True};
        for (text, expected) in [
            ("0", Ok((Integer, 1))),
            ("-0", Ok((Integer, 2))),
            ("01", Ok((Integer, 1))),
            ("120,", Ok((Integer, 3))),
            ("1.0", Ok((Float, 3))),
            ("-1e-05]", Ok((Float, 6))),
            ("1E+2", Ok((Float, 4))),
            ("true", Ok((True, 4))),
            ("falsehood", Ok((False, 5))),
            ("null", Ok((Null, 4))),
            ("NaN", Ok((NotFinite, 3))),
            ("Infinity", Ok((NotFinite, 8))),
            ("-Infinity", Ok((NotFinite, 9))),
            ("", Err(0)),
            ("-", Err(1)),
            ("+1", Err(0)),
            (".5", Err(0)),
            ("1.", Err(2)),
            ("1.e1", Err(2)),
            ("1e", Err(2)),
            ("1e+", Err(3)),
            ("-x", Err(1)),
            ("-Inf", Err(4)),
            ("tru", Err(3)),
            ("nil", Err(1)),
            ("'a'", Err(0)),
        ] {
            assert_eq!(scalar(text.as_bytes(), 0), expected, "{text}");
        }
    }

    #[test]
    fn strings_end_at_their_quote() {
        for (text, expected) in [
            (r#""""#, Ok((1..1, false))),
            (r#""a{}[]" x"#, Ok((1..6, false))),
            (r#""\"\\\/\b\f\n\r\t""#, Ok((1..17, true))),
            (r#""\u00eF" "#, Ok((1..7, true))),
            (r#""a"#, Err(2)),
            (r#""a\"#, Err(3)),
            (r#""\x41""#, Err(2)),
            (r#""\u12g4""#, Err(5)),
            (r#""\u12"#, Err(5)),
            ("\"a\nb\"", Err(2)),
            ("\"12345678\t\"", Err(9)),
        ] {
            let expected = expected.map(|(inner, escaped)| Quoted { inner, escaped });
            assert_eq!(string(text.as_bytes(), 0), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn eight_bytes_at_once_see_what_one_at_a_time_sees(
            bytes in prop::collection::vec(
                prop_oneof![
                    4 => any::<u8>(),
                    1 => prop::sample::select(vec![b'!', b'"', b'#', b'[', b'\\', b']', 0x1f, b' ', 0x7f, 0x80]),
                ],
                0..40,
            ),
            at in 0_usize..40,
        ) {
            let at = at.min(bytes.len());
            let slow = bytes[at..]
                .iter()
                .position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\')
                .map_or(bytes.len(), |found| at + found);
            prop_assert_eq!(plain_end(&bytes, at), slow);
        }
    }
}
