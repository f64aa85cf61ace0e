//! `ctx.run_cmd`.

use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Executor, RunEvent};
use serde_json::json;

use crate::Tested;
use crate::support::{Case, executor, failure, stdout};

async fn said(body: &str) -> String {
    stdout(&format!(
        "from automation import ctx\nimport subprocess, sys, os\n{body}"
    ))
    .await
}

#[tokio::test]
async fn output_is_captured_and_returned() {
    let body = "r = ctx.run_cmd(['sh', '-c', 'printf é; echo err >&2'])\n\
                print(r.returncode, r.stdout, r.stderr.strip(), r.args[0], type(r).__name__)\n\
                r = ctx.run_cmd(['cat'], input='in\\n')\nprint(r.stdout, end='')\n\
                print(ctx.run_cmd(['cat']).stdout == '')\n\
                print(ctx.run_cmd(['sh', '-c', 'echo $A; pwd'], env={'A': 'x'}, cwd='/').stdout.split())\n\
                os.environ['B'] = 'mine'\nprint(ctx.run_cmd(['sh', '-c', 'echo $B']).stdout, end='')\n\
                print(ctx.run_cmd(('false',), check=False).returncode)\n\
                print(ctx.run_cmd(['head', '-c', '3'], input=b'x' * 1000000).stdout)\n";
    let expected = "0 é err sh CompletedProcess\nin\nTrue\n['x', '/']\nmine\n1\nxxx\n";
    assert_eq!(said(body).await, expected);
}

#[tokio::test]
async fn only_lists_of_texts_are_taken() {
    let body = "for bad in ('ls -l', b'ls', 5, [], ['ls', 5], None):\n    try:\n        ctx.run_cmd(bad)\n    \
                except (TypeError, ValueError) as error:\n        print(type(error).__name__, error)\n";
    let list = "run_cmd takes a list, for instance [\"systemctl\", \"status\", name], not";
    let expected = format!(
        "TypeError {list} str: no shell reads it\nTypeError {list} bytes: no shell reads it\n\
         TypeError {list} int: no shell reads it\n\
         ValueError run_cmd takes a list that begins with a program, and this one is empty\n\
         TypeError run_cmd takes a list of texts, and item 1 is of type int\n\
         TypeError {list} NoneType: no shell reads it\n"
    );
    assert_eq!(said(body).await, expected);
}

#[tokio::test]
async fn a_failure_shows_the_end_of_standard_error_and_no_argument() {
    let body = "try:\n    ctx.run_cmd(['sh', '-c', 'echo $0 reason >&2; exit 3', 'the'])\n\
                except subprocess.CalledProcessError as error:\n    print(error, error.returncode, repr(error.stderr))\n\
                try:\n    ctx.run_cmd(['sh', '-c', 'kill -9 $$'])\n\
                except subprocess.CalledProcessError as error:\n    print(error)\n\
                try:\n    ctx.run_cmd(['sleep', '60'], timeout=0.2)\n\
                except subprocess.TimeoutExpired as error:\n    print(error)\n\
                try:\n    ctx.run_cmd(['no-such-program'])\nexcept FileNotFoundError as error:\n    print(error)\n";
    let expected = "sh ended with exit code 3: the reason 3 'the reason\\n'\n\
                    sh ended with signal 9 (SIGKILL) and wrote no error\n\
                    sleep did not end within 0.2 s and was killed\n\
                    [Errno 2] No such file or directory: 'no-such-program'\n";
    assert_eq!(said(body).await, expected);
    let outcome = Case::new("from automation import ctx\nctx.run_cmd(['false'])")
        .run(&executor())
        .await;
    assert_eq!(
        failure(&outcome),
        (
            Reason::Exception,
            "automation.CommandFailed: false ended with exit code 1 and wrote no error"
        )
    );
    let frames = outcome.output.stderr.text.matches("File ").count();
    assert_eq!(frames, 1, "{}", outcome.output.stderr.text);
}

#[tokio::test]
async fn output_is_bounded() {
    let body = "r = ctx.run_cmd(['sh', '-c', 'head -c 3000000 /dev/zero; head -c 1048576 /dev/zero >&2'])\n\
                print(len(r.stdout), r.stdout.endswith('\\n[output cut after 1 MiB]\\n'), len(r.stderr))\n";
    let mark = "\n[output cut after 1 MiB]\n".len();
    assert_eq!(
        said(body).await,
        format!("{} True 1048576\n", 1_048_576 + mark)
    );
}

#[tokio::test]
async fn what_a_program_leaves_in_the_background_is_not_waited_for() {
    let start = Instant::now();
    let body = "print(ctx.run_cmd(['sh', '-c', 'sleep 20 & echo started']).stdout, end='')\n";
    assert_eq!(said(body).await, "started\n");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_end_of_the_run_kills_the_whole_tree() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("pid");
    let source = format!(
        "from automation import ctx\nctx.run_cmd(['sh', '-c', 'sleep 77 & echo $! > {}; wait'])\n",
        mark.display()
    );
    // With the time for it that scripts have: others may compute meanwhile.
    let executor = Tested::builder().build().unwrap();
    let outcome = Case::new(&source)
        .within(Duration::from_secs(1))
        .run(&executor)
        .await;
    assert_eq!(failure(&outcome).0, Reason::Timeout);
    assert!(!outcome.still_running);
    let pid = std::fs::read_to_string(&mark).unwrap();
    // A zombie that nobody has buried yet has no command.
    let command = std::path::Path::new("/proc")
        .join(pid.trim())
        .join("cmdline");
    let lives = || std::fs::read_to_string(&command).is_ok_and(|line| line.contains("sleep"));
    let begin = Instant::now();
    while lives() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Both ways of telling how far a run is arrive as events, in the order in which they were told.
#[tokio::test]
async fn progress_arrives_by_line_and_by_call() {
    let source = "from automation import ctx\nprint('::progress 40 half way', flush=True)\nctx.progress(0.5, 'more')\n";
    let case = Case::new(source);
    let host = std::sync::Arc::clone(&case.host);
    assert_eq!(case.run(&executor()).await.ending, Ending::Completed);
    let progress = |fraction, text: &str| RunEvent::Progress {
        fraction,
        text: text.to_owned(),
    };
    assert_eq!(
        *host.events.lock(),
        [progress(0.4, "half way"), progress(0.5, "more")]
    );
}

#[tokio::test]
async fn run_entries_have_it_by_argument_too() {
    let source = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\nfrom automation import ctx as imported\n\
                  def run(ctx):\n    return [ctx is imported, ctx.run_cmd(['echo', 'x']).stdout]\n";
    let executor = executor();
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(
        outcome.output.returned,
        Some(json!([true, "x\n"])),
        "{outcome:?}"
    );
    assert_eq!(executor.health().await.busy, 0);
}
