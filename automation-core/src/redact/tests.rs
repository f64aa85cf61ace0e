//! Every form, written by other means than the redactor's own.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Redactor;
use crate::executor::{Capture, CapturedText};

const SECRET: &str = "pä$s/w\\o\"r d+1";

#[track_caller]
fn assert_masked(redactor: &Redactor, form: &str) {
    for (text, masked) in [
        (form.to_owned(), "***".to_owned()),
        (
            format!("before {form} after"),
            "before *** after".to_owned(),
        ),
        (format!("é\n{form}{form}\n{form}"), "é\n***\n***".to_owned()),
    ] {
        assert_eq!(redactor.text(&text), masked, "{text:?}");
    }
}

#[test]
fn every_form_is_masked() {
    let redactor = Redactor::new([SECRET]);
    for form in [
        SECRET,
        // json.dumps, serde_json, PHP, upper case
        r#"p\u00e4$s/w\\o\"r d+1"#,
        r#"pä$s/w\\o\"r d+1"#,
        r#"p\u00e4$s\/w\\o\"r d+1"#,
        r#"p\u00E4$s/w\\o\"r d+1"#,
        // repr
        r#"pä$s/w\\o"r d+1"#,
        // quote, quote_plus, lower case, encodeURIComponent
        "p%C3%A4%24s/w%5Co%22r%20d%2B1",
        "p%C3%A4%24s%2Fw%5Co%22r+d%2B1",
        "p%c3%a4%24s%2fw%5co%22r%20d%2b1",
        // base64 alone, with and without padding, and URL-safe
        "cMOkJHMvd1xvInIgZCsx",
        // hex
        "70c3a424732f775c6f22722064 2b31".replace(' ', "").as_str(),
        "70C3A424732F775C6F227220642B31",
    ] {
        assert_masked(&redactor, form);
    }
}

#[test]
fn javascript_and_forms_encode_urls_in_their_own_way() {
    let redactor = Redactor::new(["a b!'(c)*~"]);
    for form in [
        "a%20b!'(c)*~",
        "a+b%21%27%28c%29*%7E",
        "a%20b%21%27%28c%29%2A~",
    ] {
        assert_masked(&redactor, form);
    }
}

#[test]
fn a_repr_in_single_quotes_is_masked() {
    assert_masked(&Redactor::new(["it's \"so\""]), r#"it\'s "so""#);
}

#[test]
fn base64_is_masked_with_its_padding() {
    let redactor = Redactor::new(["hunter2", "other>>?secret"]);
    for form in [
        "aHVudGVyMg==",
        "aHVudGVyMg",
        "b3RoZXI+Pj9zZWNyZXQ=",
        "b3RoZXI-Pj9zZWNyZXQ",
    ] {
        assert_masked(&redactor, form);
    }
}

#[test]
fn short_secrets_are_ignored_and_cost_nothing() {
    let redactor = Redactor::new(["", "abc", "  ab  ab\n".trim().get(..2).unwrap()]);
    assert!(redactor.is_empty());
    assert_eq!(redactor.text("abc"), Cow::Borrowed("abc"));
    let mut value = json!({"abc": 1});
    redactor.value(&mut value);
    assert_eq!(value, json!({"abc": 1}));
    assert!(redactor.automaton.get().is_none());
}

#[test]
fn text_without_a_secret_is_not_copied() {
    let redactor = Redactor::new([SECRET]);
    assert!(matches!(
        redactor.text("nothing here"),
        Cow::Borrowed("nothing here")
    ));
    assert!(matches!(redactor.text(""), Cow::Borrowed("")));
}

#[test]
fn a_secret_added_later_is_masked() {
    let mut redactor = Redactor::new(["first!"]);
    assert_eq!(redactor.text("first! second!"), "*** second!");
    redactor.add("second!");
    assert_eq!(redactor.text("first! second!"), "*** ***");
}

#[test]
fn lines_of_a_secret_are_secrets() {
    let key = "-----BEGIN KEY-----\r\nMIIEvQIBADAN\nshort\n-----END KEY-----\n";
    let redactor = Redactor::new([key]);
    assert_eq!(
        redactor.text("read MIIEvQIBADAN and short"),
        "read *** and short"
    );
    assert_eq!(redactor.text(key.trim()), "***");
    assert_masked(&redactor, &json!(key).to_string()[1..].replace('"', ""));
    let stripped = Redactor::new(["token\n"]);
    assert_eq!(stripped.text("token=token;"), "***=***;");
}

#[test]
fn secrets_that_overlap_leave_nothing() {
    let redactor = Redactor::new(["abcdef", "defghi", "cdefg"]);
    assert_eq!(redactor.text("xabcdefghix"), "x***x");
    assert_eq!(redactor.text("xcdefghix"), "x***x");
    assert_eq!(Redactor::new(["aaaa"]).text("aaaaaaaaab"), "***b");
}

#[test]
fn values_are_masked_deeply() {
    let redactor = Redactor::new([SECRET, "123456", "same-1", "same-2"]);
    let mut value = json!({
        "list": [{"text": format!("<{SECRET}>"), "n": 1_234_567, "f": 0.25, "b": true, "z": null}],
        "same-1": 1, "same-2": [2], "x same-1 x": 3,
    });
    redactor.value(&mut value);
    assert_eq!(
        value,
        json!({
            "list": [{"text": "<***>", "n": "***7", "f": 0.25, "b": true, "z": null}],
            "***": 1, "****": [2], "x *** x": 3,
        })
    );
}

#[test]
fn what_our_cut_left_of_a_secret_is_masked() {
    let redactor = Redactor::new(["correct-horse", "orre-staple", "staple-hor"]);
    for (head, tail, masked) in [
        ("is correct-ho", "rse battery", "is ***\n\nrse battery"),
        ("is correct-horse", "se ok", "is ***\n\nse ok"),
        ("is corr", "horse", "is ***\n\n***"),
        ("is cor", "rse", "is cor\n\nrse"),
        (
            "correct-horse corre",
            "-horse correct-horse",
            "*** ***\n\n*** ***",
        ),
        ("is corre", "-horse", "is ***\n\n***"),
        ("plain", "text", "plain\n\ntext"),
    ] {
        let middle = "-".repeat(50);
        let mut capture = Capture::with_sizes(head.len(), tail.len());
        capture.push(format!("{head}{middle}{tail}").as_bytes());
        let mut captured = capture.take();
        redactor.captured(&mut captured);
        let marker = "[... 50 bytes omitted ...]";
        assert_eq!(captured.text.replace(marker, ""), masked);
        assert_eq!(
            captured.text[captured.gap.unwrap()],
            format!("\n{marker}\n")
        );
    }
}

#[test]
fn a_whole_stream_is_masked() {
    let mut captured = CapturedText::new(format!("{SECRET}\ncorrect"));
    Redactor::new([SECRET, "correct-horse"]).captured(&mut captured);
    assert_eq!(
        (captured.text.as_str(), captured.gap),
        ("***\ncorrect", None)
    );
}

#[test]
fn debug_shows_no_secret() {
    let redactor = Redactor::new(["hunter2!"]);
    assert_eq!(redactor.text("hunter2!"), "***");
    assert!(!format!("{redactor:?}").contains("hunter"));
}

/// Decodes every piece of `text` from every offset, as base64 of either alphabet.
fn decoded_pieces(text: &str) -> Vec<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let mut decoded = Vec::new();
    for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
        let engine = GeneralPurpose::new(&alphabet, config);
        for piece in text.split("***") {
            for start in 0..piece.len().min(4) {
                let piece = &piece.as_bytes()[start..];
                let usable = piece.len() - usize::from(piece.len() % 4 == 1);
                decoded.extend(engine.decode(&piece[..usable]).ok());
            }
        }
    }
    decoded
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

fn secret() -> impl Strategy<Value = String> {
    // Asterisks are excluded, since the mask would complete such a secret.
    prop_oneof![
        "[!-)+-~]{4,20}",
        "[^*\\s\u{0}]{4,12}",
        "[a-z]{2,8} [a-z/+]{2,8}"
    ]
}

fn around() -> impl Strategy<Value = String> {
    prop_oneof!["[ -)+-~]{0,12}", "[^*]{0,6}"]
}

proptest! {
    #[test]
    fn no_form_of_a_secret_survives(secret in secret(), before in around(), after in around()) {
        let redactor = Redactor::new([secret.as_str()]);
        let raw = format!("{before}{secret}{after}");
        prop_assert!(!redactor.text(&raw).contains(&secret));

        let json = json!(raw).to_string();
        let masked = redactor.text(&json).into_owned();
        let escaped = json!(secret).to_string();
        prop_assert!(!masked.contains(&escaped[1..escaped.len() - 1]), "{}", masked);

        let hex = |text: &str, upper: bool| -> String {
            let digits = text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
            if upper { digits.to_uppercase() } else { digits }
        };
        for upper in [false, true] {
            prop_assert!(!redactor.text(&hex(&raw, upper)).contains(&hex(&secret, upper)));
        }
        let url = |text: &str| text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        }).collect::<String>();
        prop_assert!(!redactor.text(&url(&raw)).contains(&url(&secret)));
    }

    #[test]
    fn no_base64_of_a_text_gives_a_secret_away(
        secret in secret(),
        before in prop::collection::vec(any::<u8>(), 0..10),
        after in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let redactor = Redactor::new([secret.as_str()]);
        let bytes = [before.as_slice(), secret.as_bytes(), after.as_slice()].concat();
        for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
            for padding in [false, true] {
                let config = GeneralPurposeConfig::new().with_encode_padding(padding);
                let encoded = GeneralPurpose::new(&alphabet, config).encode(&bytes);
                prop_assert!(decoded_pieces(&encoded).iter().any(|bytes| holds(bytes, &secret)), "the test sees it");
                let masked = redactor.text(&encoded);
                prop_assert!(!decoded_pieces(&masked).iter().any(|bytes| holds(bytes, &secret)), "{}", masked);
            }
        }
    }

    #[test]
    fn what_is_no_secret_stays(text in "[a-y ]{0,60}") {
        let redactor = Redactor::new(["zzzz-zzzz", "other secret z"]);
        prop_assert!(matches!(redactor.text(&text), Cow::Borrowed(_)));
    }

    #[test]
    fn no_piece_of_a_secret_survives_a_cut(
        secret in "[!-)+-~]{8,20}",
        sizes in (0_usize..40, 0_usize..40),
        noise in "[ ]{0,30}",
    ) {
        let redactor = Redactor::new([secret.as_str()]);
        let mut capture = Capture::with_sizes(sizes.0, sizes.1);
        capture.push(format!("{secret}{noise}{secret}{noise}{secret}").as_bytes());
        let mut captured = capture.take();
        redactor.captured(&mut captured);
        if let Some(gap) = captured.gap {
            let (head, tail) = (&captured.text[..gap.start], &captured.text[gap.end..]);
            for at in 0..secret.len() - 4 {
                let piece = &secret[at..at + 4];
                prop_assert!(!head.contains(piece) && !tail.contains(piece), "{}", captured.text);
            }
        }
    }

    #[test]
    fn masked_values_hold_no_secret(secret in secret(), value in crate::json::tests::any_value()) {
        let redactor = Redactor::new([secret.as_str()]);
        let mut masked = json!([value, {secret.clone(): [secret.clone()]}]);
        redactor.value(&mut masked);
        let mut texts = vec![];
        collect(&masked, &mut texts);
        prop_assert!(texts.iter().all(|text| !text.contains(&secret)));
    }
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(object) => {
            for (key, value) in object {
                texts.push(key.clone());
                collect(value, texts);
            }
        }
        Value::String(text) => texts.push(text.clone()),
        other => texts.push(other.to_string()),
    }
}
