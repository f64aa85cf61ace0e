//! One test a rule, named after it; properties of the search; and its oracle, which reads from every `{` anew.

use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::documents::{Documents, Trust, documents, is_one_value};
use super::{Found, JsonInNoise, OutputParser, ParsedOutput};
use crate::executor::{Capture, CapturedText, RawOutput};
use crate::limits;

fn raw(stdout: CapturedText) -> RawOutput {
    RawOutput {
        stdout,
        ..RawOutput::default()
    }
}

fn parse(stdout: &str) -> ParsedOutput {
    JsonInNoise.parse(&raw(CapturedText::new(stdout)))
}

fn parse_interrupted(stdout: &str) -> ParsedOutput {
    let mut output = raw(CapturedText::new(stdout));
    output.interrupted = true;
    JsonInNoise.parse(&output)
}

fn parse_captured(mut capture: Capture, bytes: &[u8]) -> ParsedOutput {
    capture.push(bytes);
    JsonInNoise.parse(&raw(capture.take()))
}

fn parse_returned(value: Value) -> ParsedOutput {
    let mut output = raw(CapturedText::new("{\"printed\": 1}\n"));
    output.returned = Some(value);
    JsonInNoise.parse(&output)
}

fn value(parsed: &ParsedOutput) -> Value {
    parsed.value.clone().map_or(Value::Null, Value::Object)
}

#[track_caller]
fn assert_embedded(stdout: &str, expected: &Value, seen: usize) {
    let parsed = parse(stdout);
    assert_eq!(value(&parsed), *expected, "{stdout}");
    assert_eq!(parsed.found, Found::Embedded, "{stdout}");
    assert_eq!(parsed.documents_seen, seen, "{stdout}");
}

#[track_caller]
fn assert_nothing(stdout: &str) {
    assert_eq!(parse(stdout), ParsedOutput::default(), "{stdout}");
}

#[track_caller]
fn assert_rejected(parsed: &ParsedOutput, problem: &str) {
    assert_eq!(parsed.value, None);
    let Found::Rejected(why) = &parsed.found else {
        panic!("{parsed:?}");
    };
    assert_eq!(why.to_string(), problem);
}

#[test]
fn o3_the_returned_value_is_the_result() {
    let parsed = parse_returned(json!({"a": 1}));
    assert_eq!(
        (value(&parsed), &parsed.found),
        (json!({"a": 1}), &Found::Returned)
    );
    for other in [json!(null), json!([1]), json!("x"), json!(40)] {
        assert_eq!(
            value(&parse_returned(other.clone())),
            json!({"value": other})
        );
    }
}

#[test]
fn o3_a_whole_object_is_taken_as_it_is() {
    for stdout in ["{\"a\": 1}", " \n\t{\n \"a\": 1\n}\r\n\n", "{\"a\":\n1}"] {
        let parsed = parse(stdout);
        assert_eq!(
            (value(&parsed), parsed.documents_seen),
            (json!({"a": 1}), 1),
            "{stdout}"
        );
        assert_eq!(parsed.found, Found::Exact, "{stdout}");
    }
}

#[test]
fn o3_any_other_whole_value_is_wrapped() {
    for (stdout, whole) in [
        ("[1, {\"a\": 2}]\n", json!([1, {"a": 2}])),
        ("40\n", json!(40)),
        ("\"text\"", json!("text")),
        ("null", json!(null)),
        ("true\n", json!(true)),
        ("[\n{}\n]", json!([{}])),
    ] {
        let parsed = parse(stdout);
        assert_eq!(
            (value(&parsed), parsed.found),
            (json!({"value": whole}), Found::Exact),
            "{stdout}"
        );
    }
}

#[test]
fn o3_wrapping_counts_as_a_level() {
    let max = limits::JSON_DEPTH_MAX;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(parse(&nested(max - 1)).found, Found::Exact);
    let pointer = format!("/value{}", "/0".repeat(max - 1));
    assert_rejected(
        &parse(&nested(max)),
        &format!("{pointer}: nested deeper than 32 levels"),
    );
}

#[test]
fn o3_a_byte_order_mark_is_no_text() {
    assert_eq!(parse("\u{feff}{\"a\": 1}").found, Found::Exact);
    let captured = parse_captured(Capture::default(), "\u{feff}{\"a\": 1}\n".as_bytes());
    assert_eq!(captured.found, Found::Exact);
}

#[test]
fn o4_an_object_among_lines_of_text() {
    let result = json!({"ok": true, "text": "a } b { c \" \\"});
    let pretty = format!("{result:#}");
    for stdout in [
        format!("Starting\n{result}\nDone\n"),
        format!("Starting\n\n  {pretty}  \t\r\nDone\n"),
        format!("{pretty}\nDone"),
        format!("log [1] {{ok}}\n{pretty}"),
    ] {
        assert_embedded(&stdout, &result, 1);
    }
}

#[test]
fn o4_both_ends_have_to_be_at_the_ends_of_lines() {
    for stdout in [
        "result: {\"a\": 1}\n",
        "x {\"a\": 1}\n",
        "{\"a\": 1} trailing\n",
        "{\"a\": 1};\n",
        "{\"a\": 1}{\"b\": 2}\n",
        "10%\r{\"a\": 1}\n",
        "\u{a0}{\"a\": 1}\n.",
    ] {
        assert_nothing(stdout);
    }
}

#[test]
fn o4_a_broken_beginning_hides_nothing_behind_it() {
    for stdout in [
        "{\n{\"a\": 1}\n",
        "{ starting }\n{\"a\": 1}\n",
        "{\"x\": \"unclosed\n{\"a\": 1}\n",
        "{\"x\": [\n{\"a\": 1}\n",
        "{\"x\": [1, 2\n  {\"a\": 1}\n",
        "{\"x\": tru\n{\"a\": 1}\nend",
        "{'python': 'dict'}\n{\"a\": 1}\n",
    ] {
        assert_embedded(stdout, &json!({"a": 1}), 1);
    }
}

#[test]
fn o4_an_object_inside_another_does_not_count() {
    let outer = json!({"list": [{"a": 1}, {"b": {}}], "o": {}});
    assert_embedded(&format!("log\n{outer:#}\n"), &outer, 1);
    let lines = "log\n{\"x\":\n{\"a\": 1}\n}\n";
    assert_embedded(lines, &json!({"x": {"a": 1}}), 1);
}

#[test]
fn o5_of_several_objects_the_last_wins() {
    assert_embedded("{\"a\": 1}\n{\"b\": 2}\n", &json!({"b": 2}), 2);
    assert_embedded(
        "{\"a\": 1}\nlog\n{\n\"b\": 2\n}\nlog\n{\"c\": 3}\nlog",
        &json!({"c": 3}),
        3,
    );
    assert_embedded(&"{}\n".repeat(100), &json!({}), 100);
}

#[test]
fn o5_arrays_and_scalars_are_never_picked_out_of_noise() {
    for stdout in [
        "[INFO] started\n",
        "log\n40\n",
        "log\n[1, 2]\n",
        "[1]\n[2]\n",
        "log\n\"text\"\n",
        "true\nfalse\n",
        "[##  ]\n",
    ] {
        assert_nothing(stdout);
    }
}

#[test]
fn o4_the_lines_that_mislead_filters() {
    let result = json!({"ok": true});
    for stdout in [
        format!("[INFO] starting\n{result}\n"),
        format!("{{\"first\": 1}}\n{result}\n"),
        format!("{result}\nfinished {{ok}}\n"),
        format!("{result}\n{{ok}}\n"),
        format!("[##  ] 50%\n{result}\n[####] 100%\n"),
        format!("[1, 2]\n{result}\n"),
    ] {
        let parsed = parse(&stdout);
        assert_eq!(
            (value(&parsed), parsed.found),
            (result.clone(), Found::Embedded),
            "{stdout}"
        );
    }
    assert_nothing(&format!("INFO: {result}\n"));
}

#[test]
fn o6_nothing_is_guessed_or_repaired() {
    for stdout in [
        "",
        "\n \n",
        "plain text\n",
        "{'a': 1}\n",
        "{\"a\": 1,}\n",
        "{\"a\": [1,]}\n",
        "{\"a\": [1}}\n",
        "{\"a\": 1]\n",
        "{\"a\": 1\n",
        "{a: 1}\n",
        "{\"a\": None}\n",
        "{\"a\": 01}\n",
        "{\"a\": 1 /* one */}\n",
        "{\"a\": \"line\nbreak\"}\n",
    ] {
        assert_nothing(stdout);
    }
}

#[test]
fn o7_what_breaks_the_profile_is_rejected_and_not_replaced() {
    for (document, problem) in [
        (r#"{"a": 1, "a": 2}"#, "duplicate key \"a\" at byte 23"),
        (r#"{"a": NaN}"#, "NaN or Infinity (not JSON) at byte 20"),
        (
            r#"{"a": -Infinity}"#,
            "NaN or Infinity (not JSON) at byte 20",
        ),
        (r#"{"a": 1e999}"#, "number too large at byte 20"),
        (
            r#"{"a": 9007199254740992}"#,
            "integer beyond ±9007199254740991 (send it as a string) at byte 20",
        ),
        (r#"{"a": "\u0000"}"#, "character U+0000 at byte 21"),
        (r#"{"a": "\ud800"}"#, "lone surrogate at byte 21"),
    ] {
        let parsed = parse(&format!("{{\"good\": 1}}\n\n {document}\ndone\n"));
        assert_rejected(&parsed, problem);
        assert_eq!(parsed.documents_seen, 2);
    }
    let long = format!(
        "log\n{{\"a\": \"{}\"}}\n",
        "x".repeat(limits::JSON_BYTES_MAX)
    );
    assert_rejected(&parse(&long), "longer than 262144 bytes at byte 262148");
    assert_rejected(
        &parse("{\"a\": NaN}"),
        "NaN or Infinity (not JSON) at byte 6",
    );
    assert_rejected(
        &parse_returned(json!({"a": [1, "\0"]})),
        "/a/1: character U+0000",
    );
}

#[test]
fn o7_a_result_with_lost_bytes_is_rejected() {
    let parsed = parse_captured(Capture::default(), b"log\n{\"a\": \"caf\xe9\"}\n");
    assert_rejected(&parsed, "invalid UTF-8 at byte 14");
    let parsed = parse_captured(Capture::default(), b"caf\xe9\n{\"a\": 1}\n");
    assert_eq!(value(&parsed), json!({"a": 1}), "lost elsewhere");
    assert_eq!(
        value(&parse("{\"a\": \"\u{fffd}\"}")),
        json!({"a": "\u{fffd}"}),
        "printed as such"
    );
}

#[test]
fn o9_control_lines_are_no_text() {
    let parsed = parse("::progress 10\n{\"a\": 1}\n::progress 100 done\n");
    assert_eq!(
        (value(&parsed), parsed.found),
        (json!({"a": 1}), Found::Exact)
    );
    let parsed = parse("::progress 10\n40\n");
    assert_eq!(value(&parsed), json!({"value": 40}));
    assert_embedded(
        "log\n{\"a\":\n::progress 50 {half}\r\n1}\n",
        &json!({"a": 1}),
        1,
    );
    assert_embedded("{\"a\": 1}\n::progress 101\n", &json!({"a": 1}), 1);
    assert_nothing("{\"a\":\n::result 50\n1}\n");
}

#[test]
fn o10_an_interrupted_run_has_a_result_if_it_was_complete() {
    for stdout in [
        "{\"a\": 1}\n",
        "{\"a\": 1}",
        "log\n{\"a\": 1}\nlog {\n",
        "{\"a\": 1}\n{\"b\": ",
    ] {
        assert_eq!(
            value(&parse_interrupted(stdout)),
            json!({"a": 1}),
            "{stdout}"
        );
    }
    assert_eq!(
        value(&parse_interrupted("{\"x\": [\n!\n{\"a\": 1}\n")),
        json!({"a": 1})
    );
    assert_eq!(parse_interrupted("[1]").found, Found::Exact);
    for stdout in [
        "4",
        "true",
        "\"text\"",
        "[1",
        "{\"a\": 1",
        "{\"a\": [\n{\"b\": 2}\n",
        "{\"a\" :\n{\"b\": 2}\n",
        "{\"a\": [\n{\"b\": 2},\n{\"b\": 3}\n",
        "{\"a\": [\n{\"b\": 2}\ncleaning up\n",
    ] {
        assert_eq!(
            parse_interrupted(stdout),
            ParsedOutput::default(),
            "{stdout}"
        );
    }
}

#[test]
fn o10_a_truncated_text_has_a_result_if_it_is_all_behind_the_gap() {
    let capture = || Capture::with_sizes(10, 40);
    let noise = "noise noise noise noise\n".repeat(10);
    let parsed = parse_captured(capture(), format!("{noise}{{\"a\": 1}}\ndone\n").as_bytes());
    assert_eq!(
        (value(&parsed), parsed.found),
        (json!({"a": 1}), Found::Embedded)
    );
    for stdout in [
        format!("{{\"a\":1}}\n{noise}"),
        format!("{{\"a\":\n{noise}1}}\n"),
        format!("{{\"a\":\"{}\"}}\n", "x".repeat(1000)),
        format!("[{}1]\n", "1,".repeat(1000)),
        format!("{noise}x{{\"0123456789\":1,\"0123456789abc\":\"0123\"}}\n"),
        format!("{noise}x{{\"0123456789\":1,\n\"0123456789a\":\n{{\"a\":1}}}}\n"),
        format!(
            "{{\"list\": [{}],\n \"key\" :\n{{\"c\":1}}\n}}\n",
            "\n{\"b\":1},".repeat(100)
        ),
        format!(
            "{{\"list\": [{}\n {{\"c\":1}}]}}\n",
            "\n{\"b\":1},".repeat(100)
        ),
        format!(
            "{{\"list\": [{}\n {{\"c\":1}}\n]}}\n",
            "\n{\"b\":1},".repeat(100)
        ),
    ] {
        let parsed = parse_captured(capture(), stdout.as_bytes());
        assert_eq!(parsed, ParsedOutput::default(), "{stdout}");
    }
}

#[test]
fn o10_an_element_of_a_document_that_lost_both_ends_is_no_result() {
    let elements = "{\"b\":1}\n,\n".repeat(50);
    let stdout = format!("{{\"list\": [\n{elements}{{\"c\":1}}\n");
    for tail in 8..40 {
        let mut capture = Capture::with_sizes(10, tail);
        capture.push(stdout.as_bytes());
        let mut output = raw(capture.take());
        output.interrupted = true;
        assert_eq!(
            JsonInNoise.parse(&output),
            ParsedOutput::default(),
            "{tail}"
        );
    }
}

/// A text, made from its size in bytes.
type Sized = (&'static str, fn(usize) -> String);

/// What O11 names, and more of its kind.
fn adversarial() -> Vec<Sized> {
    vec![
        ("nested", |n| "{\"a\":[".repeat(n / 6)),
        ("nested lines", |n| "{\"a\":[\n".repeat(n / 7)),
        ("nested and broken", |n| "{\"a\":[\n".repeat(n / 7) + "!"),
        ("closed lines", |n| {
            "{\"a\":\n".repeat(n / 9) + &"}\n".repeat(n / 9)
        }),
        ("braces in strings", |n| {
            "{\"{[}]\\\"\":\"}\n{\"}".repeat(n / 17)
        }),
        ("braces", |n| "{\n".repeat(n / 2)),
        ("empty objects", |n| "{}\n".repeat(n / 3)),
        ("quoted objects", |n| "\"{}\"".repeat(n / 4)),
        ("long line", |n| "{\"a\":[".to_owned() + &"1,".repeat(n / 2)),
        ("backslashes", |n| "\\".repeat(n)),
        ("backslashes in a string", |n| {
            "{\"".to_owned() + &"\\".repeat(n)
        }),
        ("blanks", |n| "{ ".to_owned() + &" ".repeat(n)),
        ("blank lines", |n| "{}".to_owned() + &"\n".repeat(n) + "{}"),
        ("closings among blanks", |n| {
            "{\"a\":\n".repeat(n / 16) + &"}         ".repeat(n / 16)
        }),
        ("control lines", |n| {
            "{\"a\":\n::progress 5\n".repeat(n / 19)
        }),
        ("broken objects", |n| "{\"a\":1,}\n".repeat(n / 9)),
        ("broken late", |n| {
            "{\"a\":\n".repeat(n / 12) + &"{}x".repeat(n / 6)
        }),
    ]
}

#[test]
fn o11_the_search_is_linear() {
    // Both sizes fit into a slice of processor time, so that other tests slow both alike.
    const SMALL: usize = 2 * 1024;
    const FACTOR: u32 = 32;
    let fastest = |text: &str| {
        let output = raw(CapturedText::new(text));
        let time = |_| {
            let start = Instant::now();
            let parsed = JsonInNoise.parse(&output);
            (start.elapsed(), parsed.documents_seen).0
        };
        (0..5).map(time).min().unwrap_or(Duration::MAX)
    };
    for (name, text) in adversarial() {
        let small = fastest(&text(SMALL));
        let large = fastest(&text(SMALL * FACTOR as usize));
        // A quadratic one takes 1024 times as long.
        assert!(
            large < small * FACTOR * 8,
            "{name}: {small:?}, then {large:?}"
        );
    }
}

#[test]
fn o11_depth_costs_no_stack() {
    let deep = "{\"a\":\n".repeat(200_000) + "1" + &"}\n".repeat(200_000);
    assert_rejected(&parse(&deep), "longer than 262144 bytes at byte 262144");
    let broken = "{\"a\":\n".repeat(200_000) + "!\n{\"ok\": 1}";
    assert_embedded(&broken, &json!({"ok": 1}), 1);
}

/// What the rules say, without regard to cost.
fn oracle(text: &str) -> Documents {
    let mut found = Documents::default();
    let mut at = 0;
    while at < text.len() {
        match document_at(text, at) {
            Some(range) => {
                at = range.end;
                found.seen += 1;
                found.last = Some(range);
            }
            None => at += 1,
        }
    }
    found
}

fn document_at(text: &str, start: usize) -> Option<Range<usize>> {
    let blank = |text: &str| text.bytes().all(|byte| b" \t\r".contains(&byte));
    let line_start = text.as_bytes()[..start]
        .iter()
        .rposition(|&byte| byte == b'\n');
    if text.as_bytes()[start] != b'{' || !blank(&text[line_start.map_or(0, |at| at + 1)..start]) {
        return None;
    }
    let ends = text[start..]
        .match_indices('}')
        .map(|(at, _)| start + at + 1);
    let end = ends
        .into_iter()
        .find(|&end| is_one_value(&text.as_bytes()[start..end]))?;
    let line_end = text[end..].find('\n').map_or(text.len(), |at| end + at);
    blank(&text[end..line_end]).then_some(start..end)
}

/// Text that is nearly documents.
fn near_documents() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "{",
        "}",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"a\":",
        "1",
        "\n",
        "\n",
        "\n",
        " ",
        "\r",
        "\t",
        "x",
        "\"",
        "\\",
        "{}",
        "{\"a\":",
        "{\"a\":{}}",
        "\n{\"a\":\n",
        "\n}\n",
        "NaN",
        "é",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

/// JSON with one character replaced, doubled or left out.
fn slightly_wrong() -> impl Strategy<Value = String> {
    let edit = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "1", "\\", ",]", "x", "",
    ]);
    let value = crate::json::tests::any_value();
    (value, any::<prop::sample::Index>(), edit).prop_map(|(value, at, edit)| {
        let mut characters: Vec<_> = value.to_string().chars().map(String::from).collect();
        let at = at.index(characters.len());
        edit.clone_into(&mut characters[at]);
        characters.concat()
    })
}

/// A line that does not begin with `{`.
fn noise_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^{\n\u{feff}\r\t ][^\n]{0,20}",
        prop::sample::select(vec![
            "",
            "[INFO] x",
            "40",
            "}",
            "]",
            "[## ]",
            "\"",
            "done {ok}",
            "a: {",
            "::progress 4",
            "\\",
        ])
        .prop_map(str::to_owned),
    ]
    .prop_map(|line| line + "\n")
}

fn noise() -> impl Strategy<Value = String> {
    prop::collection::vec(noise_line(), 0..4).prop_map(|lines| lines.concat())
}

fn document() -> impl Strategy<Value = Value> {
    crate::json::tests::any_value().prop_map(|value| json!({"id": 1, "list": [{"v": value}]}))
}

fn printed() -> impl Strategy<Value = (Value, String)> {
    (document(), any::<bool>()).prop_map(|(value, pretty)| {
        let text = if pretty {
            format!("{value:#}\n")
        } else {
            format!("{value}\n")
        };
        (value, text)
    })
}

proptest! {
    #[test]
    fn the_search_finds_what_the_rules_say(text in near_documents()) {
        prop_assert_eq!(documents(text.as_bytes(), 0, Trust::Whole), oracle(&text), "{:?}", text);
    }

    #[test]
    fn the_search_and_the_strict_reader_agree_on_the_grammar(
        text in prop_oneof![near_documents(), slightly_wrong()],
    ) {
        use crate::json::JsonErrorKind::{Incomplete, Syntax, TrailingText};
        let is_value = is_one_value(text.as_bytes());
        match crate::json::read(text.as_bytes()).map_err(|error| error.kind) {
            Ok(_) => prop_assert!(is_value),
            Err(Syntax { .. } | Incomplete | TrailingText) => prop_assert!(!is_value),
            Err(_) => {}
        }
    }

    #[test]
    fn noise_around_a_document_changes_nothing(
        before in noise(),
        (value, text) in printed(),
        after in noise(),
    ) {
        let parsed = parse(&format!("{before}{text}{after}"));
        prop_assert_eq!(parsed.value.map(Value::Object), Some(value));
    }

    #[test]
    fn a_kill_at_any_byte_leaves_a_complete_document_or_none(
        documents in prop::collection::vec((noise(), printed()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let text: String = documents.iter().map(|(noise, (_, text))| noise.clone() + text).collect();
        let mut cut = cut.index(text.len());
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        if let Some(object) = parse_interrupted(&text[..cut]).value {
            let object = Value::Object(object);
            prop_assert!(documents.iter().any(|(_, (value, _))| *value == object), "{}", object);
        }
    }

    #[test]
    fn a_truncated_text_gives_a_complete_document_or_none(
        documents in prop::collection::vec((noise(), printed()), 1..4),
        (head, tail) in (0_usize..200, 0_usize..300),
    ) {
        let text: String = documents.iter().map(|(noise, (_, text))| noise.clone() + text).collect();
        let parsed = parse_captured(Capture::with_sizes(head, tail), text.as_bytes());
        if let Some(object) = parsed.value {
            let object = Value::Object(object);
            prop_assert!(documents.iter().any(|(_, (value, _))| *value == object), "{}", object);
        }
    }

    #[test]
    fn the_answer_is_one_that_can_be_stored(text in near_documents(), interrupted: bool) {
        let mut output = raw(CapturedText::new(text));
        output.interrupted = interrupted;
        let parsed = JsonInNoise.parse(&output);
        prop_assert_eq!(parsed.value.is_some(), matches!(parsed.found, Found::Exact | Found::Embedded));
        if let Some(object) = parsed.value {
            prop_assert_eq!(crate::json::check_object(&object), Ok(()));
        }
    }
}
