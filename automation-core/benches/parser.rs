//! What a run's output passes on its way: capture, redaction, the parser on hostile and on typical output (rule
//! O11: 1 MiB in at most 10 ms), and the strict JSON reader beside `serde_json`.
//!
//! Run with `cargo bench -p automation-core --bench parser`.

use automation_core::executor::{Capture, CapturedText, RawOutput};
use automation_core::json;
use automation_core::parser::{JsonInNoise, OutputParser};
use automation_core::redact::Redactor;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

fn main() {
    divan::main();
}

/// A text that is made when it is needed.
type Named = (&'static str, fn() -> String);

/// Hostile output of 1 MiB, by name.
const HOSTILE: [Named; 14] = [
    ("array_of_nested_lines", || {
        format!("[\n{}", repeated("{\"a\":[\n"))
    }),
    ("closed_lines", || {
        "{\"a\":\n".repeat(MIB / 8) + &"}\n".repeat(MIB / 8)
    }),
    ("nested", || repeated("{\"a\":[")),
    ("nested_lines", || repeated("{\"a\":[\n")),
    ("braces_in_strings", || repeated("{\"{[}]\\\"\":\"}\n{\"}")),
    ("brace_lines", || repeated("{\n")),
    ("long_line", || format!("{{\"a\":[{}", repeated("1,"))),
    ("quoted_objects", || repeated("\"{}\"")),
    ("empty_object_lines", || repeated("{}\n")),
    ("backslashes", || repeated("\\")),
    ("backslashes_in_a_string", || {
        format!("{{\"{}", repeated("\\"))
    }),
    ("broken_object_lines", || repeated("{\"a\":1,}\n")),
    ("blanks", || format!("{{{}", repeated(" "))),
    ("control_lines", || repeated("::progress 5\n")),
];

fn repeated(text: &str) -> String {
    text.repeat(MIB / text.len())
}

fn output(stdout: impl Into<String>) -> RawOutput {
    RawOutput {
        stdout: CapturedText::new(stdout),
        ..RawOutput::default()
    }
}

#[divan::bench(args = HOSTILE.map(|(name, _)| name))]
fn hostile(bencher: Bencher<'_, '_>, name: &str) {
    let text = HOSTILE.iter().find(|(known, _)| *known == name);
    let output = output(text.map(|(_, text)| text()).unwrap_or_default());
    bencher
        .counter(BytesCount::new(output.stdout.text.len()))
        .bench(|| JsonInNoise.parse(black_box(&output)));
}

/// What a script of ours prints: a few lines of log and a result.
fn typical() -> String {
    let log = "[INFO] cleaning /var/tmp: 42 files, 1.5 GiB\n::progress 40 caches\n".repeat(10);
    format!("{log}{:#}\n", result())
}

fn result() -> Value {
    let action =
        json!({"action": "clear_temp", "path": "/tmp/x", "files": 42, "freed_gb": 1.5, "ok": true});
    json!({"status": "completed", "actions": vec![action; 20], "space_freed_gb": 30.25, "note": "café \"x\"\n"})
}

#[divan::bench]
fn typical_output(bencher: Bencher<'_, '_>) {
    let output = output(typical());
    bencher
        .counter(BytesCount::new(output.stdout.text.len()))
        .bench(|| JsonInNoise.parse(black_box(&output)));
}

/// A mebibyte of log lines, and a result behind them.
#[divan::bench]
fn long_log(bencher: Bencher<'_, '_>) {
    let output = output(repeated("2026-01-01T00:00:00Z INFO removed {\"file\": 1}\n") + &typical());
    bencher
        .counter(BytesCount::new(output.stdout.text.len()))
        .bench(|| JsonInNoise.parse(black_box(&output)));
}

/// A captured stream of 8 MiB in lines.
#[divan::bench]
fn capture_lines(bencher: Bencher<'_, '_>) {
    let line = b"2026-01-01T00:00:00Z INFO removed one file of the cache\n";
    let lines = 8 * MIB / line.len();
    bencher
        .counter(BytesCount::new(lines * line.len()))
        .bench(|| {
            let mut capture = Capture::default();
            for _ in 0..lines {
                capture.push(black_box(line));
            }
            capture.take()
        });
}

fn secrets(count: usize) -> Vec<String> {
    let letters = |n: usize| char::from(b'a' + (n * 7 % 26) as u8);
    (0..count)
        .map(|n| {
            (n..n + 20)
                .map(letters)
                .chain(n.to_string().chars())
                .collect()
        })
        .collect()
}

/// A mebibyte of log without a secret in it, searched for this many.
#[divan::bench(args = [0, 1, 5, 100])]
fn redact_log(bencher: Bencher<'_, '_>, count: usize) {
    let secrets = secrets(count);
    let redactor = Redactor::new(secrets.iter().map(String::as_str));
    let log = repeated("2026-01-01T00:00:00Z INFO removed {\"file\": 1}\n");
    bencher
        .counter(BytesCount::new(log.len()))
        .bench(|| redactor.text(black_box(&log)).len());
}

/// A new redactor and its first use, as a run with this many secrets pays for them.
#[divan::bench(args = [0, 1, 5, 100])]
fn redact_start(bencher: Bencher<'_, '_>, count: usize) {
    let secrets = secrets(count);
    bencher.bench(|| {
        let redactor = Redactor::new(black_box(&secrets).iter().map(String::as_str));
        redactor.text(black_box("ok")).len()
    });
}

/// Documents for both readers, by name.
const DOCUMENTS: [Named; 4] = [
    ("request", || {
        json!({"ticket_id": "T-1", "ticket": {"id": "T-1", "user_id": "u", "issue_text": "PC is slow since Monday"},
            "classification": {"category": "Device Slow", "automation_possible": true, "confidence": 0.93}})
        .to_string()
    }),
    ("result", || format!("{:#}", result())),
    ("numbers", || {
        json!((0..4000).map(|n| f64::from(n) * 1.37).collect::<Vec<_>>()).to_string()
    }),
    ("long_strings", || {
        json!(vec!["plain text without escapes ".repeat(40); 100]).to_string()
    }),
];

fn document(name: &str) -> Vec<u8> {
    let text = DOCUMENTS.iter().find(|(known, _)| *known == name);
    text.map(|(_, text)| text())
        .unwrap_or_default()
        .into_bytes()
}

#[divan::bench(args = DOCUMENTS.map(|(name, _)| name))]
fn strict_reader(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = document(name);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| json::read(black_box(&bytes)));
}

#[divan::bench(args = DOCUMENTS.map(|(name, _)| name))]
fn serde_json_reader(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = document(name);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench(|| serde_json::from_slice::<Value>(black_box(&bytes)));
}

/// The check of a value that came from Python.
#[divan::bench]
fn check_result(bencher: Bencher<'_, '_>) {
    let value = result();
    bencher.bench(|| json::check(black_box(&value)));
}
