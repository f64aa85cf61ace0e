//! How scripts end, and what is said of it.

use automation_core::Reason;
use automation_core::executor::Ending;

use crate::support::{Case, executor, failure, run};

#[tokio::test]
async fn exits_mean_what_they_mean_to_a_shell() {
    let executor = executor();
    for (argument, code, stderr) in [
        ("", 0, ""),
        ("None", 0, ""),
        ("0", 0, ""),
        ("False", 0, ""),
        ("3", 3, ""),
        ("True", 1, ""),
        ("-1", 255, ""),
        ("259", 3, ""),
        ("10**30", 255, ""),
        ("'no disk'", 1, "no disk\n"),
        ("('a', 1)", 1, "('a', 1)\n"),
        ("''", 1, "\n"),
    ] {
        let source = format!("import sys\nsys.exit({argument})\n");
        let outcome = Case::new(&source).run(&executor).await;
        assert_eq!(outcome.exit_code, Some(code), "{argument}");
        assert_eq!(outcome.output.stderr.text, stderr, "{argument}");
        if code == 0 {
            assert_eq!(outcome.ending, Ending::Completed, "{argument}");
        } else {
            let message = format!("exit code {code}");
            assert_eq!(failure(&outcome), (Reason::ExitCode, message.as_str()));
        }
    }
}

#[tokio::test]
async fn a_traceback_is_the_interpreters_own() {
    let source = "def divide(a, b):\n    return a // b\n\ntry:\n    divide(1, 0)\n\
                  except ZeroDivisionError as error:\n    raise ValueError('no such user') from error\n";
    let outcome = run(source).await;
    assert_eq!(
        failure(&outcome),
        (Reason::Exception, "ValueError: no such user")
    );
    assert_eq!(outcome.exit_code, Some(1));
    let by_hand = by_hand(source);
    assert!(
        by_hand.contains("probe.py\", line 2, in divide"),
        "{by_hand}"
    );
    assert_eq!(outcome.output.stderr.text, by_hand);
}

/// Returns what the interpreter of the build writes to standard error.
fn by_hand(source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe.py");
    std::fs::write(&path, source).unwrap();
    let output = std::process::Command::new(env!("AUTOMATION_BUILD_PYTHON"))
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // Before 3.11 the interpreter named the module `__main__`, which its `traceback` leaves out.
    text.replace(path.to_str().unwrap(), "/srv/scripts/probe.py")
        .replace("\n__main__.", "\n")
}

#[tokio::test]
async fn every_kind_of_traceback_is_as_by_hand() {
    let executor = executor();
    for source in [
        "x = = 1\n",
        "def f():\n  x\n y\n",
        "raise KeyError('a')\n",
        "class Odd(Exception):\n    pass\nraise Odd\n",
        "import json\njson.loads('{')\n",
        "def f(): f()\nf()\n",
        "raise SystemError('x') from None\n",
        "assert 1 == 2, 'no'\n",
        "import sys\nsys.stderr.write('before\\n')\n1/0\n",
        "raise KeyboardInterrupt\n",
    ] {
        // Sources at one path, as other tests have them, would show each other's lines.
        let path = "/srv/scripts/by_hand.py";
        let outcome = Case::at(path, source).run(&executor).await;
        let expected = by_hand(source).replace("/srv/scripts/probe.py", path);
        assert_eq!(outcome.output.stderr.text, expected, "{source}");
        assert_eq!(failure(&outcome).0, Reason::Exception, "{source}");
    }
}

#[tokio::test]
async fn a_failure_is_the_tracebacks_last_line() {
    let executor = executor();
    for (source, message) in [
        ("raise ValueError", "ValueError"),
        (
            "raise OSError(2, 'gone', '/x')",
            "FileNotFoundError: [Errno 2] gone: '/x'",
        ),
        ("class Odd(Exception): pass\nraise Odd('x')", "Odd: x"),
        (
            "import json\njson.loads('{')",
            "json.decoder.JSONDecodeError: Expecting property name \
          enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("x = = 1", "SyntaxError: invalid syntax (probe.py, line 1)"),
        ("raise BaseException('b')", "BaseException: b"),
        (
            "class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad\n",
            "Bad: <exception str() failed>",
        ),
    ] {
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(failure(&outcome), (Reason::Exception, message), "{source}");
    }
}

#[tokio::test]
async fn lines_are_those_that_ran_whatever_is_in_the_file_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probe.py");
    std::fs::write(&path, "# edited since\n").unwrap();
    let executor = executor();
    for text in ["one", "two"] {
        let source = format!("raise ValueError('{text}')\n");
        let outcome = Case::at(path.to_str().unwrap(), &source)
            .run(&executor)
            .await;
        let stderr = outcome.output.stderr.text;
        assert!(
            stderr.contains(&format!("    raise ValueError('{text}')\n")),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn frames_of_ours_are_not_shown() {
    let outcome = run("import os\nos.environ['a'] = 1\n").await;
    let stderr = outcome.output.stderr.text;
    assert!(!stderr.contains("<automation>"), "{stderr}");
    assert!(
        stderr.ends_with("TypeError: str expected, not int\n"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_excepthook_serves_its_run_only() {
    let source =
        "import sys\nsys.excepthook = lambda kind, error, trace: print('hook', error)\n1/0\n";
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "hook division by zero\n");
    assert_eq!(outcome.output.stderr.text, "");
    assert_eq!(failure(&outcome).1, "ZeroDivisionError: division by zero");
    let outcome = Case::new("1/0").run(&executor).await;
    assert!(outcome.output.stderr.text.starts_with("Traceback"));
}

#[tokio::test]
async fn an_exception_group_is_shown_whole() {
    let source = "raise ExceptionGroup('many', [ValueError('a'), KeyError('b')])\n";
    let outcome = run(source).await;
    assert_eq!(outcome.output.stderr.text, by_hand(source));
}

#[tokio::test]
async fn times_and_usage_are_measured() {
    let source = "import time\nend = time.perf_counter() + 0.1\nwhile time.perf_counter() < end: pass\ntime.sleep(0.1)\n";
    let outcome = run(source).await;
    assert!(outcome.duration.as_millis() >= 200, "{outcome:?}");
    let cpu = outcome.usage.cpu_us.unwrap();
    assert!((10_000..190_000).contains(&cpu), "{cpu}");
}

/// A long message is cut once it is free of secrets, which are not known here.
#[tokio::test]
async fn a_message_is_whole_and_one_that_is_no_text_is_kept() {
    let outcome = run("raise ValueError('x' * 1_000_000)").await;
    assert_eq!(failure(&outcome).1.len(), "ValueError: ".len() + 1_000_000);
    let outcome = run("raise ValueError('\\udc80')").await;
    assert_eq!(failure(&outcome).1, "ValueError: \\udc80");
}
