//! What scripts write and read.

use automation_core::executor::{Ending, RunEvent};

use crate::support::{Case, executor, run, stdout};

#[tokio::test]
async fn text_and_bytes_keep_their_order() {
    let source = r"
import sys
print('a', 1, sep='-', flush=True)
sys.stdout.buffer.write(b'b\n')
sys.stdout.buffer.write(memoryview(bytearray(b'c\n')))
sys.stdout.buffer.writelines([b'd', b'\n'])
print('e', file=sys.stdout)
sys.stdout.writelines(['f', '\n'])
print(sys.stdout.write('four'))
";
    assert_eq!(stdout(source).await, "a-1\nb\nc\nd\ne\nf\nfour4\n");
}

#[tokio::test]
async fn bytes_that_are_not_text_are_kept_apart_from_text() {
    let outcome = run("import sys\nsys.stdout.buffer.write(b'caf\\xe9')").await;
    assert_eq!(outcome.output.stdout.text, "caf\u{fffd}");
    assert!(outcome.output.stdout.invalid_utf8);
}

#[tokio::test]
async fn print_never_fails_on_what_is_no_character() {
    let source = "print('ä \\U0001F600 \\udc80')\nprint('\\ud83d', 'x')";
    assert_eq!(stdout(source).await, "ä \u{1F600} \\udc80\n\\ud83d x\n");
}

#[tokio::test]
async fn redirections_stay_in_their_run() {
    let source = r#"
import contextlib, io, sys
first, second = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(first), contextlib.redirect_stderr(second):
    print('inner')
    print('error', file=sys.stderr)
print(repr(first.getvalue()), repr(second.getvalue()))
sys.stdout = io.StringIO()
print('lost')
"#;
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "'inner\\n' 'error\\n'\n");
    let next = Case::new("print('seen')").run(&executor).await;
    assert_eq!(next.output.stdout.text, "seen\n");
}

#[tokio::test]
async fn a_stream_of_the_scripts_own_may_wrap_ours() {
    let source = r#"
import io, sys
class Tee:
    def __init__(self, under): self.under = under
    def write(self, text): return self.under.write(text.upper())
    def flush(self): self.under.flush()
sys.stdout = Tee(sys.stdout)
print('tee')
sys.stdout = sys.__stdout__
sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-16-le')
print('ab')
"#;
    // The last text is flushed for the script, as the interpreter does when it ends.
    assert_eq!(stdout(source).await, "TEE\na\0b\0\n\0");
}

#[tokio::test]
async fn a_script_without_a_stdout_prints_into_the_void() {
    let source = "import sys\nsys.stdout = None\nprint('x')\nsys.stderr.write('here')";
    let outcome = run(source).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.output.stdout.text, "");
    assert_eq!(outcome.output.stderr.text, "here");
}

#[tokio::test]
async fn standard_input_is_empty() {
    let source = r#"
import sys
try:
    input('name? ')
except EOFError as error:
    print(type(error).__name__)
print(repr(sys.stdin.read()), sys.stdin.buffer.read(), list(sys.stdin), sys.stdin.isatty())
"#;
    assert_eq!(stdout(source).await, "name? EOFError\n'' b'' [] False\n");
}

#[tokio::test]
async fn logging_set_up_by_one_run_serves_the_next() {
    let source = "import logging, sys\nlogging.basicConfig(level=logging.INFO, format='%(message)s')\n\
                  logging.info('run %s', sys.argv[1])\n";
    let executor = executor();
    for run in ["1", "2"] {
        let case = Case::new(source).with(serde_json::json!({ "run": run }));
        let outcome = case.run(&executor).await;
        let expected = format!("run {{\"run\":\"{run}\"}}\n");
        assert_eq!(outcome.output.stderr.text, expected);
    }
}

#[tokio::test]
async fn warnings_go_to_the_runs_stderr() {
    let outcome = run("import warnings\nwarnings.warn('careful')").await;
    let text = outcome.output.stderr.text;
    assert!(
        text.starts_with("/srv/scripts/probe.py:2: UserWarning: careful\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_child_may_have_its_errors_in_its_output() {
    let source = "import subprocess\n\
                  done = subprocess.run(['sh', '-c', 'echo e >&2'], stderr=subprocess.STDOUT, stdout=subprocess.PIPE)\n\
                  print(done.stdout)\nsubprocess.run(['true'], stderr=subprocess.STDOUT, check=True)\n";
    assert_eq!(stdout(source).await, "b'e\\n'\n");
}

#[tokio::test]
async fn progress_lines_are_told_as_they_are_written() {
    let source =
        "print('::progress 40 half', 'way')\nprint('x ::progress 50')\nprint('::progress 100')\n";
    let case = Case::new(source);
    let host = std::sync::Arc::clone(&case.host);
    let outcome = case.run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed);
    let progress = |fraction, text: &str| RunEvent::Progress {
        fraction,
        text: text.to_owned(),
    };
    let expected = [progress(0.4, "half way"), progress(1.0, "")];
    assert_eq!(*host.events.lock(), expected);
}

#[tokio::test]
async fn an_output_bomb_is_bounded() {
    let outcome = run("for _ in range(4):\n    print('x' * 1_000_000)").await;
    let stdout = outcome.output.stdout;
    assert_eq!(stdout.bytes_total, 4_000_004);
    assert!(stdout.is_truncated() && stdout.text.len() < 1_100_000);
}

#[tokio::test]
async fn a_small_bound_keeps_both_ends() {
    let mut case = Case::new("print('first, much in between, last', end='')");
    case.invocation.limits.stream_bytes = 8;
    let stdout = case.run(&executor()).await.output.stdout;
    assert_eq!(stdout.text, "firs\n[... 20 bytes omitted ...]\nlast");
    assert!(stdout.is_truncated());
    assert_eq!(stdout.bytes_total, 28);
}
