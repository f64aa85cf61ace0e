//! The forms in which a secret shows up. Knows encodings, nothing of searching.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::limits;

/// What URL encoders leave as it is besides letters and digits: RFC 3986, Python's `quote`, JavaScript's
/// `encodeURIComponent`, HTML forms.
const URL_PLAIN: [&str; 4] = ["-_.~", "-_.~/", "-_.~!'()*", "-_.*"];

/// The case of hexadecimal digits.
#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

/// Returns every form of `secret` that is long enough to be searched for.
pub(super) fn forms(secret: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([secret.to_owned()]);
    forms.extend(escaped_forms(secret));
    forms.extend(url_forms(secret));
    forms.extend(base64_forms(secret.as_bytes()));
    forms.extend([Case::Lower, Case::Upper].map(|case| hex(secret.as_bytes(), case)));
    forms.retain(|form| form.len() >= limits::SECRET_BYTES_MIN);
    forms
}

/// JSON strings as different programs write them, and Python's `repr`, which tracebacks show.
fn escaped_forms(secret: &str) -> impl Iterator<Item = String> {
    let repr = ["", "'"].map(|quotes| escaped(secret, quotes, None));
    let json = [None, Some(Case::Lower), Some(Case::Upper)];
    let json = json.map(|beyond_ascii| escaped(secret, "\"", beyond_ascii));
    let slashes = json.clone().map(|text| text.replace('/', "\\/"));
    repr.into_iter().chain(json).chain(slashes)
}

/// Escapes backslashes, `quotes` and control characters, and characters beyond ASCII where a case is given.
fn escaped(secret: &str, quotes: &str, beyond_ascii: Option<Case>) -> String {
    let mut text = String::new();
    for character in secret.chars() {
        let case = beyond_ascii.filter(|_| !character.is_ascii());
        match character {
            '\n' => text += "\\n",
            '\r' => text += "\\r",
            '\t' => text += "\\t",
            '\u{8}' => text += "\\b",
            '\u{c}' => text += "\\f",
            '\\' => text += "\\\\",
            _ if quotes.contains(character) => text.extend(['\\', character]),
            _ => match case.or((character < ' ').then_some(Case::Lower)) {
                Some(case) => text += &utf16_escapes(character, case),
                None => text.push(character),
            },
        }
    }
    text
}

fn utf16_escapes(character: char, case: Case) -> String {
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units).iter();
    units
        .map(|unit| format!("\\u{}", hex(&unit.to_be_bytes(), case)))
        .collect()
}

fn url_forms(secret: &str) -> impl Iterator<Item = String> {
    URL_PLAIN.into_iter().flat_map(move |plain| {
        [Case::Lower, Case::Upper]
            .into_iter()
            .flat_map(move |case| {
                let text = url(secret, plain, case);
                [text.replace("%20", "+"), text]
            })
    })
}

fn url(secret: &str, plain: &str, case: Case) -> String {
    let encode = |byte: u8| match char::from(byte) {
        character if byte.is_ascii_alphanumeric() || plain.contains(character) => {
            character.to_string()
        }
        _ => format!("%{}", hex(&[byte], case)),
    };
    secret.bytes().map(encode).collect()
}

/// Base64 of the secret alone, and what is the same in base64 of any text that holds the secret: it depends on
/// where in a group of three bytes the secret begins.
fn base64_forms(secret: &[u8]) -> impl Iterator<Item = String> {
    let alone = [STANDARD.encode(secret), URL_SAFE.encode(secret)];
    let unpadded = [
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
    ];
    let inside = (0..3).flat_map(|start| {
        let bytes = [&[0, 0][..start], secret].concat();
        [STANDARD_NO_PAD, URL_SAFE_NO_PAD]
            .map(|engine| inner_base64(&engine.encode(&bytes), start, bytes.len()))
    });
    let inside: Vec<_> = inside.collect();
    alone.into_iter().chain(unpadded).chain(inside)
}

/// Returns the characters of `encoded` that hold nothing but bits of the bytes from `start` to `end`.
fn inner_base64(encoded: &str, start: usize, end: usize) -> String {
    encoded[(8 * start).div_ceil(6)..8 * end / 6].to_owned()
}

fn hex(bytes: &[u8], case: Case) -> String {
    let digits = bytes.iter().map(|byte| match case {
        Case::Lower => format!("{byte:02x}"),
        Case::Upper => format!("{byte:02X}"),
    });
    digits.collect()
}
