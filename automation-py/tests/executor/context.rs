//! `automation.ctx`.

use std::sync::Arc;

use automation_core::executor::{Executor, RunEvent};
use serde_json::json;

use crate::support::{Case, Recorder, executor, failure, stdout};

#[tokio::test]
async fn it_shows_the_run() {
    let source = r#"
from automation import ctx
import automation
print(ctx.parameters, ctx.ticket, ctx.classification, ctx.dry_run, ctx.cancelled)
print(len(ctx.execution_id), 0 < ctx.remaining() <= 30, automation.ctx is ctx)
ctx.parameters['a'] = 2
print(ctx.parameters)
"#;
    let case = Case::new(source)
        .with(json!({ "a": 1, "f": 1.5, "n": null, "l": [true] }))
        .ticket(json!({ "id": "T-1" }));
    let outcome = case.run(&executor()).await;
    let expected = "{'a': 1, 'f': 1.5, 'l': [True], 'n': None} {'id': 'T-1'} {'category': 'Device Slow'} \
                    False False\n36 True True\n{'a': 2, 'f': 1.5, 'l': [True], 'n': None}\n";
    assert_eq!(outcome.output.stdout.text, expected, "{outcome:?}");
}

#[tokio::test]
async fn it_tells_the_host() {
    let source = r#"
from automation import ctx
ctx.progress(0.25)
ctx.progress(1, text='done')
ctx.log('a line')
ctx.log(42)
for bad in (-0.1, 1.1, float('nan')):
    try:
        ctx.progress(bad)
    except ValueError as error:
        print(error)
"#;
    let case = Case::new(source);
    let host = Arc::clone(&case.host);
    let outcome = case.run(&executor()).await;
    let progress = |fraction, text: &str| RunEvent::Progress {
        fraction,
        text: text.to_owned(),
    };
    let log = |text: &str| RunEvent::Log {
        text: text.to_owned(),
    };
    assert_eq!(
        *host.events.lock(),
        [
            progress(0.25, ""),
            progress(1.0, "done"),
            log("a line"),
            log("42")
        ]
    );
    let expected = "fraction is -0.1, expected 0 to 1\nfraction is 1.1, expected 0 to 1\n\
                    fraction is NaN, expected 0 to 1\n";
    assert_eq!(outcome.output.stdout.text, expected);
}

#[tokio::test]
async fn secrets_come_by_name_or_fail_by_kind() {
    let source = r#"
from automation import ctx
print(len(ctx.secret('token')))
for name in ('absent', 'broken', '../x'):
    try:
        ctx.secret(name)
    except Exception as error:
        print(type(error).__name__, error)
"#;
    let expected = "8\nLookupError secret \"absent\" is not configured\n\
                    OSError secret \"broken\" can't be read: no permission\n\
                    ValueError \"../x\" is not a secret's name: letters, digits and _ are, at most 64\n";
    assert_eq!(stdout(source).await, expected);
}

#[tokio::test]
async fn a_dry_run_is_told() {
    let mut case = Case::new("from automation import ctx\nprint(ctx.dry_run)");
    let host = Arc::new(Recorder {
        dry_run: true,
        ..Recorder::default()
    });
    case.invocation.host = host;
    assert_eq!(case.run(&executor()).await.output.stdout.text, "True\n");
}

#[tokio::test]
async fn what_a_script_does_not_catch_fails_it() {
    let case = Case::new("from automation import ctx\nctx.secret('absent')");
    let outcome = case.run(&executor()).await;
    assert_eq!(
        failure(&outcome).1,
        "LookupError: secret \"absent\" is not configured"
    );
}

#[tokio::test]
async fn a_defect_of_ours_is_an_error_and_the_worker_lives_on() {
    let executor = crate::Tested::builder().workers(1).build().unwrap();
    let case = Case::new("from automation import ctx\nctx.secret('panic')");
    let error = executor
        .execute(case.invocation, case.cancel)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the executor failed: the host has a defect"
    );
    let outcome = Case::new("import sys\nprint(sys.argv[0])")
        .run(&executor)
        .await;
    assert_eq!(outcome.output.stdout.text, "/srv/scripts/probe.py\n");
    assert_eq!(executor.health().await.busy, 0);
}
