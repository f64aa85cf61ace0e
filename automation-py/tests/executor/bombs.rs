//! Sources that ask too much of a parser or a compiler end in diagnostics, within bounded time.

use std::time::{Duration, Instant};

use automation_core::script::{Diagnostic, Severity};
use automation_core::{Executor, Script};
use automation_py::PythonExecutor;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::support::executor;

const LENGTH: usize = 200 * 1024;

fn inspect(executor: &PythonExecutor, source: &str) -> Vec<Diagnostic> {
    let script = Script::parse("probe.py", source.as_bytes()).unwrap();
    executor.inspect(&script).unwrap().diagnostics
}

fn repeated(unit: &str) -> String {
    unit.repeat(LENGTH / unit.len())
}

fn nested(levels: usize, line: &str) -> String {
    let lines = (0..levels).map(|level| format!("{}{line}\n", " ".repeat(level)));
    lines.collect::<String>() + &" ".repeat(levels) + "pass\n"
}

fn wrapped(levels: usize, before: &str, after: &str) -> String {
    format!("x = {}y{}\n", before.repeat(levels), after.repeat(levels))
}

/// Returns sources that each Python must be kept from, or refuses.
fn refused() -> Vec<(&'static str, String)> {
    let finally = |levels: usize, body: &str| {
        let mut lines: Vec<_> = (0..levels)
            .map(|level| format!("{0}try: a()\n{0}finally:\n", " ".repeat(level)))
            .collect();
        lines.push(format!("{}{body}\n", " ".repeat(levels)));
        lines.concat()
    };
    let exits = "  if a: return 1\n".repeat(8000);
    vec![
        ("parentheses", "(".repeat(LENGTH)),
        ("brackets", format!("x = {}", "[".repeat(LENGTH))),
        ("closed brackets", wrapped(150, "[", "]")),
        ("braces", wrapped(120, "{1:", "}")),
        (
            "in an f-string",
            format!("x = f'{{{}1}}'", "(".repeat(LENGTH)),
        ),
        ("minus", format!("x = {}1", "-".repeat(LENGTH))),
        ("not", format!("x = {}1", repeated("not "))),
        ("lambda", format!("x = {}1", repeated("lambda:"))),
        ("attributes", format!("x = a{}", repeated(".b"))),
        ("calls", format!("x = a{}", repeated("()"))),
        ("subscripts", format!("x = a{}", repeated("[0]"))),
        ("sums", format!("x = {}1", repeated("1+"))),
        ("joined texts", format!("x = {}'a'", repeated("'a'+"))),
        ("powers", format!("x = {}1", repeated("1**-"))),
        ("comparisons", format!("x = {}a", repeated("a<"))),
        ("modules", format!("import {}a", repeated("a."))),
        ("blocks", nested(300, "if a:")),
        ("functions", nested(300, "def f():")),
        ("finally", finally(18, "pass")),
        (
            "exits of finally",
            format!(
                "def f():\n try:\n{exits} finally:\n{}",
                "  b()\n".repeat(8000)
            ),
        ),
        ("comprehensions", wrapped(25, "[", " for x in y]")),
        (
            "comprehensions in blocks",
            format!(
                "{}{}[[[a for a in b] for a in b] for a in b]\n",
                nested(18, "with a:").trim_end_matches("pass\n"),
                ""
            ),
        ),
        (
            "keywords",
            format!(
                "f({})",
                (0..14_000).map(|n| format!("a{n}=1,")).collect::<String>()
            ),
        ),
        ("digits", format!("x = {}", "1".repeat(LENGTH))),
        ("statements", repeated("a;")),
    ]
}

#[test]
fn bombs_are_errors_with_a_place_and_in_time() {
    let executor = executor();
    for (name, source) in refused() {
        let start = Instant::now();
        let found = inspect(&executor, &source);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(found[0].severity, Severity::Error, "{name}: {found:?}");
    }
}

/// What these ask for is never computed, or is little.
#[test]
fn folding_bombs_and_long_sources_are_no_danger() {
    let executor = executor();
    for source in [
        "x = 1 << 10**9\n".to_owned(),
        "x = 'a' * 10**10\n".to_owned(),
        "x = 10**10**10\n".to_owned(),
        "x = ((0,) * 1000,) * 1000\n".to_owned(),
        "x = '%1000000000d' % 1\n".to_owned(),
        format!("x = 0x{}\n", "f".repeat(LENGTH)),
        format!("x = 1e{}\n", "9".repeat(4000)),
        format!("x = ({})\n", repeated("'a' ")),
        format!("x = [{}]\n", repeated("1,")),
        format!("x = \"\"\"{}\"\"\"\n", repeated("([{'")),
        repeated("# ((((((((\n"),
        format!("if a:\n pass\n{}", "elif a:\n pass\n".repeat(200)),
    ] {
        let start = Instant::now();
        let found = inspect(&executor, &source);
        assert!(found.is_empty(), "{}: {found:?}", &source[..20]);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Returns one text after another of what Python is made of, and of what it is not.
fn soup() -> impl Strategy<Value = String> {
    let parts = vec![
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "f'",
        "f\"\"\"",
        "'",
        "\"",
        "\"\"\"",
        "\\",
        "\n",
        "\r",
        "\n    ",
        "\t",
        ":",
        ";",
        ",",
        ".",
        "=",
        "->",
        "**",
        "*",
        "@",
        "!",
        "def run(ctx, ",
        "class A",
        "lambda ",
        "if ",
        "else ",
        "for ",
        " in ",
        "try",
        "finally",
        "except ",
        "with ",
        "match ",
        "case ",
        "import ",
        "from ",
        "return ",
        "yield ",
        "await ",
        "async ",
        "global ",
        "nonlocal ",
        "x",
        "é",
        "\u{1F600}",
        "0x",
        "1e",
        "9",
        "None",
        "...",
        "#",
        " ",
        "os._exit",
        "Literal",
        "str",
        "|",
        "\x0c",
        "\u{feff}",
        "\u{2028}",
        "# automation: allow(",
        "# coding: ",
    ];
    prop::collection::vec(select(parts), 0..60).prop_map(|parts| parts.concat())
}

/// Returns a bundled script in which a piece was moved, doubled or lost.
fn mutated() -> impl Strategy<Value = String> {
    let scripts = [
        include_str!("../../../scripts/disk_cleanup.py"),
        include_str!("../../../scripts/vpn_restart.py"),
    ];
    let pieces = (0..4000usize, 0..200usize, 0..4000usize);
    (
        select(scripts.to_vec()),
        prop::collection::vec(pieces, 1..4),
        soup(),
    )
        .prop_map(|(script, pieces, soup)| {
            let mut text: Vec<char> = script.chars().take(6000).collect();
            for (from, length, to) in pieces {
                let (from, to) = (from.min(text.len()), to.min(text.len()));
                let piece = text[from..(from + length).min(text.len())].to_vec();
                text.splice(to..to, piece);
            }
            text.into_iter().collect::<String>() + &soup
        })
}

#[test]
fn any_source_ends_in_diagnostics() {
    let executor = executor();
    let entry = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\n";
    let check = |source: String| {
        if let Ok(script) = Script::parse("probe.py", source.as_bytes()) {
            for found in executor.inspect(&script).unwrap().diagnostics {
                let lines = u32::try_from(source.split(['\n', '\r']).count()).unwrap();
                prop_assert!(
                    found
                        .line
                        .is_none_or(|line| (1..=lines + 1).contains(&line)),
                    "{found}"
                );
                prop_assert!(!found.message.is_empty());
            }
        }
        Ok(())
    };
    let mut runner = TestRunner::new(Config::with_cases(150));
    runner.run(&soup(), check).unwrap();
    runner
        .run(
            &soup().prop_map(|soup| format!("{entry}def run(ctx, {soup}): pass")),
            check,
        )
        .unwrap();
    let mut runner = TestRunner::new(Config::with_cases(40));
    runner.run(&mutated(), check).unwrap();
}
