//! Each breach of the profile by name, and properties against `serde_json` as the second reader.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{JsonErrorKind, check, check_object, read, read_object, read_request};
use crate::limits;

fn breach(text: impl AsRef<[u8]>) -> (JsonErrorKind, usize) {
    let error = read(text.as_ref()).unwrap_err();
    (error.kind, error.offset)
}

fn message(text: impl AsRef<[u8]>) -> String {
    read(text.as_ref()).unwrap_err().to_string()
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

fn nested_value(depth: usize) -> Value {
    (1..depth).fold(json!([]), |inner, _| json!([inner]))
}

#[test]
fn what_is_valid_is_read_as_written() {
    let text = r#" {"a" : [1, -2.5e1, true, false, null, "x\u00e9\ud83d\ude00\n\/"], "": {}} "#;
    let value = json!({"a": [1, -25.0, true, false, null, "xé😀\n/"], "": {}});
    assert_eq!(read(text.as_bytes()).unwrap(), value);
    assert_eq!(
        read(b"-0").unwrap().to_string(),
        "0",
        "an integer, as Python reads it"
    );
    assert_eq!(read(b"1.0").unwrap().to_string(), "1.0", "stays a float");
    assert_eq!(read(b"1e-400").unwrap(), json!(0.0));
}

#[test]
fn depth_ends_at_its_limit() {
    let max = limits::JSON_DEPTH_MAX;
    assert_eq!(read(nested(max).as_bytes()).unwrap(), nested_value(max));
    assert_eq!(breach(nested(max + 1)), (JsonErrorKind::TooDeep, max));
    assert_eq!(
        breach("[".repeat(100_000)),
        (JsonErrorKind::TooDeep, max),
        "before it is found unclosed"
    );
    assert_eq!(check(&nested_value(max)), Ok(()));
    let problem = check(&nested_value(max + 1)).unwrap_err();
    assert_eq!(problem.pointer, "/0".repeat(max));
}

#[test]
fn nodes_are_values_and_keys() {
    let max = limits::JSON_NODES_MAX;
    let array = |values: usize| format!("[{}]", vec!["0"; values].join(","));
    let loose: Value = serde_json::from_str(&array(max - 1)).unwrap();
    assert_eq!(read(array(max - 1).as_bytes()).as_ref(), Ok(&loose));
    assert_eq!(check(&loose), Ok(()));
    assert_eq!(breach(array(max)).0, JsonErrorKind::TooManyNodes);
    let object = |keys: usize| {
        let members: Vec<_> = (0..keys).map(|key| format!("\"{key}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    for (keys, fits) in [((max - 1) / 2, true), (max / 2, false)] {
        let text = object(keys);
        let loose: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read(text.as_bytes()).is_ok(), fits, "{keys}");
        assert_eq!(check(&loose).is_ok(), fits, "{keys}");
        assert_eq!(
            check_object(loose.as_object().unwrap()).is_ok(),
            fits,
            "{keys}"
        );
    }
}

#[test]
fn bytes_end_at_their_limit() {
    let max = limits::JSON_BYTES_MAX;
    let text = format!("\"{}\"", "x".repeat(max - 2));
    assert!(read(text.as_bytes()).is_ok());
    assert_eq!(breach(format!("{text} ")), (JsonErrorKind::TooLong, max));
    assert_eq!(check(&json!("x".repeat(max - 2))), Ok(()));
    assert!(check(&json!("x".repeat(max - 1))).is_err());
    assert!(check(&json!("\n".repeat(max / 2))).is_err(), "as escaped");
}

#[test]
fn duplicate_keys_are_compared_decoded() {
    assert_eq!(
        message(r#"{"a":1,"\u0061":2}"#),
        "duplicate key \"a\" at byte 7"
    );
    assert!(
        read(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok(),
        "other objects"
    );
    let long = "k".repeat(1000);
    let text = message(format!("{{\"{long}\":1,\"{long}\":2}}"));
    assert!(text.len() < 100, "{text}");
}

#[test]
fn numbers_are_the_same_everywhere() {
    for text in ["NaN", "[Infinity]", "-Infinity"] {
        assert_eq!(breach(text).0, JsonErrorKind::NotFinite, "{text}");
    }
    for text in [
        "1e309",
        "-1e400",
        "1e9999999999999999999",
        &format!("{}.0", "9".repeat(310)),
    ] {
        assert_eq!(breach(text).0, JsonErrorKind::NumberOverflow, "{text}");
    }
    for text in [
        "9007199254740991",
        "-9007199254740991",
        "1.7976931348623157e308",
    ] {
        assert!(read(text.as_bytes()).is_ok(), "{text}");
    }
    let huge = "9".repeat(5000);
    for text in [
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551615",
        &huge,
    ] {
        assert_eq!(breach(text), (JsonErrorKind::IntegerOverflow, 0), "{text}");
    }
    assert_eq!(check(&json!(limits::JSON_INTEGER_MAX)), Ok(()));
    for number in [
        json!(limits::JSON_INTEGER_MAX + 1),
        json!(-(1_i64 << 53)),
        json!(u64::MAX),
    ] {
        let problem = check(&json!({"a/b": {"~": number}})).unwrap_err();
        assert_eq!(problem.pointer, "/a~1b/~0");
    }
}

#[test]
fn floats_are_the_nearest_ones() {
    for text in [
        "0.1",
        "2.2250738585072011e-308",
        "123456789.123456789",
        "5e-324",
        "7.2057594037927933e16",
    ] {
        let value = read(text.as_bytes()).unwrap();
        assert_eq!(
            value.as_f64().unwrap().to_bits(),
            text.parse::<f64>().unwrap().to_bits()
        );
    }
}

#[test]
fn nul_and_lone_surrogates_are_refused_as_keys_and_values() {
    for (text, offset) in [
        ("\"ab\0\"", 3),
        (r#""ab\u0000""#, 3),
        (r#"{"\u0000":1}"#, 2),
    ] {
        assert_eq!(
            breach(text),
            (JsonErrorKind::NulCharacter, offset),
            "{text:?}"
        );
    }
    for text in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\ud800\ud800""#,
        r#""\ud800\ue000""#,
        r#""\udc00\ud800""#,
    ] {
        assert_eq!(breach(text), (JsonErrorKind::LoneSurrogate, 1), "{text}");
    }
    assert_eq!(check(&json!({"a\0": 1})).unwrap_err().pointer, "/a\0");
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    assert_eq!(breach(b"\"a\xff\""), (JsonErrorKind::InvalidUtf8, 2));
    assert_eq!(
        breach(b"\"\xed\xa0\x80\""),
        (JsonErrorKind::InvalidUtf8, 1),
        "a surrogate"
    );
    assert_eq!(breach("\u{feff}{}").1, 0, "no byte order mark");
}

#[test]
fn only_one_document() {
    for (text, offset) in [
        ("{} {}", 3),
        ("1 x", 2),
        ("01", 1),
        ("[]]", 2),
        ("nullnull", 4),
    ] {
        assert_eq!(
            breach(text),
            (JsonErrorKind::TrailingText, offset),
            "{text}"
        );
    }
}

#[test]
fn syntax_errors_say_what_was_expected() {
    for (text, expected) in [
        ("", "invalid JSON: unexpected end at byte 0"),
        ("  ", "invalid JSON: unexpected end at byte 2"),
        ("[1,", "invalid JSON: unexpected end at byte 3"),
        ("\"ab", "invalid JSON: unexpected end at byte 3"),
        ("tru", "invalid JSON: unexpected end at byte 3"),
        ("[1,]", "invalid JSON: expected a value at byte 3"),
        ("[1 2]", "invalid JSON: expected a comma or ] at byte 3"),
        (
            "{,}",
            "invalid JSON: expected a key in double quotes at byte 1",
        ),
        (
            "{'a':1}",
            "invalid JSON: expected a key in double quotes at byte 1",
        ),
        ("{\"a\" 1}", "invalid JSON: expected a colon at byte 5"),
        (
            "{\"a\":1,}",
            "invalid JSON: expected a key in double quotes at byte 7",
        ),
        ("{\"a\":1]", "invalid JSON: expected a comma or } at byte 6"),
        ("\"\\x\"", "invalid JSON: expected a valid escape at byte 2"),
        (
            "\"a\nb\"",
            "invalid JSON: expected control characters to be escaped at byte 2",
        ),
        ("None", "invalid JSON: expected a value at byte 1"),
    ] {
        assert_eq!(message(text), expected, "{text:?}");
    }
}

#[test]
fn an_object_is_asked_for_where_one_is_needed() {
    assert_eq!(
        read_object(b"{\"a\":1}").unwrap(),
        Map::from_iter([("a".to_owned(), json!(1))])
    );
    let error = read_object(b"  [1]").unwrap_err();
    assert_eq!((error.kind, error.offset), (JsonErrorKind::NotAnObject, 2));
    let problem = read_request(b"[]").unwrap_err();
    assert_eq!(problem.to_string(), "expected an object at byte 0");
}

/// Any value of the profile.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let max = limits::JSON_INTEGER_MAX;
    let text = "([a-z{}\\[\\]\":,\\\\/ \n]|[^\0]){0,12}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-max..=max).prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Text that is nearly JSON.
fn near_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\"",
        "1",
        "-",
        "0",
        ".5",
        "e1",
        "true",
        "nul",
        " ",
        "\n",
        "\\",
        "\\u0041",
        "\"\\ud83d\\ude00\"",
        "é",
        "\u{1}",
    ]);
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_value()) {
        prop_assert_eq!(check(&value), Ok(()));
        for text in [value.to_string(), format!("{value:#}")] {
            prop_assert_eq!(read(text.as_bytes()), Ok(value.clone()));
        }
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads(text in near_json()) {
        match (read(text.as_bytes()), serde_json::from_str::<Value>(&text)) {
            (Ok(strict), loose) => {
                prop_assert_eq!(check(&strict), Ok(()));
                // `-0` is the one number that the two read differently.
                prop_assume!(!text.contains("-0"));
                prop_assert_eq!(Some(strict), loose.ok());
            }
            (Err(error), Ok(_)) => {
                prop_assert!(matches!(error.kind, JsonErrorKind::DuplicateKey { .. }), "{}", error);
            }
            (Err(error), Err(_)) => prop_assert!(error.offset <= text.len()),
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = read(&bytes) {
            prop_assert_eq!(check(&value), Ok(()));
        }
    }

    #[test]
    fn a_cut_document_is_never_whole(value in any_value(), cut in any::<prop::sample::Index>()) {
        let text = json!({"v": value}).to_string();
        prop_assert!(read(&text.as_bytes()[..cut.index(text.len())]).is_err());
    }
}
