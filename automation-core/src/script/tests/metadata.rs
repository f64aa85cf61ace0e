//! What the metadata block says, and every way in which it can be wrong.

use std::time::Duration;

use super::super::{Entry, Isolation, Metadata, RetryPolicy, Risk, Script};
use super::{errors, parse, warnings};
use crate::execution::{Effect, Reason};
use crate::executor::RunLimits;
use crate::limits;

/// Checks that a block has exactly one fault, which reads so.
#[track_caller]
fn one_error(toml: &str, expected: &str) {
    assert_eq!(errors(toml), [format!("x.py:{expected}")], "{toml}");
}

#[test]
fn every_key_is_read() {
    let script = parse(
        r#"requires-python = ">=3.9, <4"
dependencies = ["requests>=2", "ldap3", "x[y] @ https://example.org/x.whl"]
[tool.uv]
anything = true
[tool.automation]
category = "Device Slow"
order = -5
description = "Disk cleanup"
timeout_seconds = 1.5
memory_mb = 64
isolation = "process"
risk = "high"
idempotent = true
cpu_seconds = 2.5
output_kib = 16
children_max = 0
deny = ["network", "write"]
entry = "run"
context_argv = false
[tool.automation.parameters.x]
type = "string""#,
    )
    .unwrap();
    assert_eq!(
        *script.metadata(),
        Metadata {
            category: Some("Device Slow".into()),
            order: -5,
            description: "Disk cleanup".into(),
            timeout: Some(Duration::from_millis(1500)),
            cpu: Some(Duration::from_millis(2500)),
            memory_mb: Some(64),
            stream_bytes: Some(16 * 1024),
            children_max: Some(0),
            deny: vec![Effect::Network, Effect::Write],
            isolation: Isolation::Process,
            risk: Risk::High,
            idempotent: true,
            retry: None,
            entry: Entry::Run,
            context_argv: false,
            requires_python: Some(">=3.9, <4".into()),
            dependencies: vec![
                "requests>=2".into(),
                "ldap3".into(),
                "x[y] @ https://example.org/x.whl".into()
            ],
        }
    );
    assert!(script.parameters().has("x"));
    assert!(script.warnings().is_empty());
}

#[test]
fn a_script_that_says_nothing_is_run_by_name_only_and_takes_nothing() {
    for bytes in [
        &b"print('{}')\n"[..],
        b"",
        b"# /// script\n# ///\n",
        b"# /// script\n# requires-python = \">=3.9\"\n# [tool.other]\n# risk = 3\n# ///\n",
        b"# /// script\n# [tool.automation]\n# ///\n",
    ] {
        let script = Script::parse("x.py", bytes).unwrap();
        let said = Metadata {
            requires_python: script.metadata().requires_python.clone(),
            ..Metadata::default()
        };
        assert_eq!(*script.metadata(), said);
        assert_eq!(said.order, 100);
        assert_eq!(RunLimits::of(&said), RunLimits::default());
        assert_eq!(script.parameters().schema()["additionalProperties"], false);
        assert!(script.parameters().types().is_empty());
    }
}

#[test]
fn wrong_values_name_key_value_and_what_is_expected() {
    for (line, expected) in [
        (
            "category = \"\"",
            "4:14: [tool.automation]: category is \"\", expected a name of 1 to 128 characters, none of them a control character",
        ),
        (
            "category = \"a\\u001b[0m\"",
            "4:14: [tool.automation]: category is \"a\\u{1b}[0m\", expected a name of 1 to 128 characters, none of them a control character",
        ),
        (
            "order = 1.5",
            "4:11: [tool.automation]: order is 1.5, expected a whole number",
        ),
        (
            "order = 3_000_000_000",
            "4:11: [tool.automation]: order is 3000000000, expected a whole number",
        ),
        (
            "description = 3",
            "4:17: [tool.automation]: description is 3, expected a string",
        ),
        (
            "cpu_seconds = 0",
            "4:17: [tool.automation]: cpu_seconds is 0, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "output_kib = 0",
            "4:16: [tool.automation]: output_kib is 0, expected a whole number of KiB from 1 to 16384",
        ),
        (
            "children_max = -1",
            "4:18: [tool.automation]: children_max is -1, expected a whole number, 0 for none",
        ),
        (
            "deny = [\"disk\"]",
            "4:11: [tool.automation]: deny holds \"disk\", expected one of \"subprocess\", \"network\", \"write\", \"native\"",
        ),
        (
            "timeout_seconds = 0",
            "4:21: [tool.automation]: timeout_seconds is 0, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "timeout_seconds = -1",
            "4:21: [tool.automation]: timeout_seconds is -1, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "timeout_seconds = inf",
            "4:21: [tool.automation]: timeout_seconds is inf, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "timeout_seconds = nan",
            "4:21: [tool.automation]: timeout_seconds is nan, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "timeout_seconds = 86401",
            "4:21: [tool.automation]: timeout_seconds is 86401, expected a number of seconds from 0.001 to 86400",
        ),
        (
            "timeout_seconds = \"300\"",
            "4:21: [tool.automation]: timeout_seconds is \"300\", expected a number of seconds from 0.001 to 86400",
        ),
        (
            "memory_mb = 0",
            "4:15: [tool.automation]: memory_mb is 0, expected a whole number of MiB from 1 to 1048576",
        ),
        (
            "memory_mb = 1_048_577",
            "4:15: [tool.automation]: memory_mb is 1048577, expected a whole number of MiB from 1 to 1048576",
        ),
        (
            "memory_mb = 64.0",
            "4:15: [tool.automation]: memory_mb is 64.0, expected a whole number of MiB from 1 to 1048576",
        ),
        (
            "isolation = \"thread\"",
            "4:15: [tool.automation]: isolation is \"thread\", expected \"in-process\" or \"process\"",
        ),
        (
            "risk = \"High\"",
            "4:10: [tool.automation]: risk is \"High\", expected \"low\" or \"high\"",
        ),
        (
            "idempotent = 1",
            "4:16: [tool.automation]: idempotent is 1, expected true or false",
        ),
        (
            "entry = \"main\"",
            "4:11: [tool.automation]: entry is \"main\", expected \"plain\" or \"run\"",
        ),
        (
            "context_argv = []",
            "4:18: [tool.automation]: context_argv is an empty array, expected true or false",
        ),
        (
            "parameters = 1979-05-27",
            "4:16: [tool.automation]: parameters is 1979-05-27, expected a table",
        ),
    ] {
        one_error(&format!("[tool.automation]\n{line}"), expected);
    }
}

#[test]
fn limits_themselves_are_accepted() {
    for line in [
        "timeout_seconds = 86400",
        "timeout_seconds = 0.001",
        "memory_mb = 1",
        "memory_mb = 1_048_576",
        "memory_mb = 0x40",
    ] {
        parse(&format!("[tool.automation]\n{line}")).unwrap();
    }
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_known_key() {
    one_error(
        "[tool.automation]\ntimout_seconds = 3",
        "4:3: [tool.automation]: unknown key \"timout_seconds\", did you mean \"timeout_seconds\"?",
    );
    one_error(
        "[tool.automation]\nContext-Argv = true",
        "4:3: [tool.automation]: unknown key \"Context-Argv\", did you mean \"context_argv\"?",
    );
    one_error(
        "[tool.automation]\nowner = \"ana\"",
        "4:3: [tool.automation]: unknown key \"owner\", expected one of category, order, description, timeout_seconds, \
         memory_mb, cpu_seconds, output_kib, children_max, isolation, risk, entry, deny, idempotent, context_argv, parameters, output_schema, retry",
    );
}

#[test]
fn our_keys_in_the_wrong_table_do_not_pass_unseen() {
    one_error(
        "risk = \"high\"",
        "3:3: outside [tool.automation]: unknown key \"risk\", expected one of requires-python, dependencies, tool",
    );
    one_error(
        "[automation]\nrisk = \"high\"",
        "3:4: outside [tool.automation]: unknown key \"automation\", expected one of requires-python, dependencies, tool",
    );
    one_error(
        "[tool.automaton]\nrisk = \"high\"",
        "3:9: [tool.automaton] is unknown, did you mean [tool.automation]?",
    );
    one_error(
        "[tool]\nautomation = 3",
        "4:16: [tool]: automation is 3, expected a table",
    );
    one_error(
        "tool = 3",
        "3:10: outside [tool.automation]: tool is 3, expected a table",
    );
}

#[test]
fn what_the_standard_defines_is_checked_for_sanity() {
    one_error(
        "requires-python = \"3.9\"",
        "3:21: outside [tool.automation]: requires-python is \"3.9\", expected Python versions, for instance \">=3.9\"",
    );
    one_error(
        "requires-python = \">=\"",
        "3:21: outside [tool.automation]: requires-python is \">=\", expected Python versions, for instance \">=3.9\"",
    );
    one_error(
        "dependencies = \"requests\"",
        "3:18: outside [tool.automation]: dependencies is \"requests\", expected a list of packages",
    );
    one_error(
        "dependencies = [\n  \"requests\",\n  \"-rf\",\n]",
        "5:5: outside [tool.automation]: dependencies holds \"-rf\", expected a package, for instance \"requests>=2\"",
    );
    for versions in [">=3.9", "~=3.11.0", "==3.12.*", ">3,!=3.10,<3.14"] {
        parse(&format!("requires-python = \"{versions}\"")).unwrap();
    }
    for packages in [
        "a",
        "a.b-c_d",
        "a ; python_version < '3.11'",
        "a[x]>=1,<2",
        "a(>1)",
        "a~=1.0",
    ] {
        parse(&format!("dependencies = [\"{packages}\"]")).unwrap();
    }
    for packages in [
        "",
        "-a",
        "a-",
        "./a",
        "https://example.org/a.whl",
        "a\\nb",
        "a b\\n--pre",
    ] {
        assert_eq!(
            errors(&format!("dependencies = [\"{packages}\"]")).len(),
            1,
            "{packages}"
        );
    }
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    one_error(
        "[tool.automation]\nrisk = high",
        "4:10: the metadata block is not TOML: string values must be quoted, expected literal string",
    );
    one_error(
        "a = 1\na = 2",
        "4:3: the metadata block is not TOML: duplicate key",
    );
    let deep = format!("[tool.automation]\nx = {}", "[".repeat(100_000));
    assert!(errors(&deep)[0].starts_with("x.py:4:"));
}

#[test]
fn every_fault_is_reported_at_once_and_in_the_order_of_the_file() {
    let found =
        errors("zebra = 1\n[tool.automation]\nrisk = 1\nentry = 2\nalpha = 3\nidempotent = 4");
    let places: Vec<_> = found.iter().map(|error| &error[5..7]).collect();
    assert_eq!(places, ["3:", "5:", "6:", "7:", "8:"]);
}

#[test]
fn doubtful_metadata_is_a_warning() {
    assert_eq!(
        warnings("[tool.automation]\ncontext_argv = true\nentry = \"run\""),
        [
            "x.py:4:18: [tool.automation]: context_argv has no effect with entry = \"run\": `run` gets the ticket from `ctx`"
        ]
    );
    let script = Script::parse("x.py", b"import os\n#/// script\n# risk = 1\n# ///\n").unwrap();
    assert_eq!(
        script.warnings()[0].to_string(),
        "x.py:2:1: not the start of a metadata block, which is exactly `# /// script`"
    );
}

#[test]
fn files_that_are_no_source_are_refused() {
    let huge = vec![b'#'; limits::SCRIPT_BYTES_MAX + 1];
    for (path, bytes, expected) in [
        (
            "x.py",
            &b"a = 1\nb = '\xff'\n"[..],
            "x.py:2: byte 0xff is not UTF-8, expected a file saved as UTF-8",
        ),
        ("x.py", b"\xff\xfea\0", "x.py:1: a NUL byte, expected text"),
        ("x.py", b"a\n\nb\0", "x.py:3: a NUL byte, expected text"),
        (
            "x.py",
            &huge,
            "x.py: larger than 256 KiB, expected a smaller file",
        ),
        (
            "a/b c.py",
            b"",
            "b c.py: \"b c.py\" is not a script's name: expected a letter or a digit, then at most 63 letters, digits, _ or -, then .py",
        ),
        (
            "..",
            b"",
            ": \"\" is not a script's name: expected a letter or a digit, then at most 63 letters, digits, _ or -, then .py",
        ),
    ] {
        let found = Script::parse(path, bytes).unwrap_err();
        assert_eq!(found[0].to_string(), expected);
        assert_eq!(found.len(), 1);
    }
    assert!(Script::parse("x.py", &huge[1..]).is_ok());
}

#[test]
fn the_version_is_that_of_sha256sum_and_a_byte_order_mark_is_part_of_it() {
    let plain = Script::parse("x.py", b"").unwrap();
    assert_eq!(
        **plain.version(),
        *"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let marked = Script::parse(
        "x.py",
        b"\xef\xbb\xbf# /// script\n# [tool.automation]\n# order = 1\n# ///\n",
    )
    .unwrap();
    assert_eq!(marked.metadata().order, 1);
    assert!(marked.source().starts_with("# ///"));
    assert_ne!(
        Script::parse("x.py", b"\xef\xbb\xbf").unwrap().version(),
        plain.version()
    );
}

#[test]
fn a_retry_policy_is_read_with_its_defaults() {
    let retry = |toml: &str| {
        let toml = format!("[tool.automation]\n{toml}");
        parse(&toml).unwrap().metadata().retry.clone()
    };
    assert_eq!(retry(""), None);
    assert_eq!(retry("retry = {}"), Some(RetryPolicy::default()));
    let given = "retry = { max = 5, backoff = 2.5, jitter = 0, on = [\"timeout\", \"orphaned\"] }\nidempotent = true";
    let expected = RetryPolicy {
        max: 5,
        backoff: Duration::from_millis(2500),
        jitter: 0.0,
        on: vec![Reason::Timeout, Reason::Orphaned],
    };
    assert_eq!(retry(given), Some(expected));
}

#[test]
fn what_a_retry_policy_can_not_be_is_said() {
    for (toml, expected) in [
        ("retry = 3", "retry is 3, expected a table"),
        (
            "retry = { max = 0 }",
            "max is 0, expected a whole number from 1 to 100",
        ),
        (
            "retry = { backoff = 7200 }",
            "backoff is 7200, expected a number of seconds from 0 to 3600",
        ),
        (
            "retry = { jitter = 1.5 }",
            "jitter is 1.5, expected a number from 0 to 1",
        ),
        (
            "retry = { on = [\"orphaned\"] }",
            "that needs idempotent = true",
        ),
        (
            "retry = { on = [\"cancelled_by_request\"] }",
            "on holds \"cancelled_by_request\", expected one of",
        ),
        ("retry = { tries = 3 }", "unknown key \"tries\""),
    ] {
        let found = errors(&format!("[tool.automation]\n{toml}"));
        assert!(
            found.iter().any(|error| error.contains(expected)),
            "{toml}: {found:?}"
        );
    }
}
