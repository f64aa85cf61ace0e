//! A completed run whose result is not what its script promises has failed (O8).

use automation_core::executor::{Ending, Failure, FnExecutor, Invocation, Outcome};
use automation_core::secret::{Secret, Secrets};
use automation_core::{
    Automation, Execution, ManualRequest, Reason, Script, ScriptRegistry, StatsQuery, Status,
};
use serde_json::json;

use crate::support::*;

const PROMISING: &str = r#"# /// script
# [tool.automation.output_schema]
# type = "object"
# required = ["freed"]
# [tool.automation.output_schema.properties.freed]
# type = "number"
# minimum = 0
# [tool.automation.output_schema.properties.by_place]
# additionalProperties = { type = "integer" }
# ///
"#;

fn automation(outcome: impl Fn(Invocation) -> Outcome + Send + Sync + 'static) -> Automation {
    let script = Script::parse("promise.py", PROMISING.as_bytes()).unwrap();
    let executor = FnExecutor::new(move |invocation| {
        let outcome = outcome(invocation);
        async { outcome }
    });
    Automation::builder()
        .scripts(ScriptRegistry::from_scripts([script]))
        .executor(executor)
        .secrets(Secrets::new().with("token", Secret::new("to/ken~8765")))
        .build()
        .unwrap()
}

async fn run(outcome: impl Fn(Invocation) -> Outcome + Send + Sync + 'static) -> Execution {
    let automation = automation(outcome);
    automation
        .manual(ManualRequest::new("promise.py"))
        .await
        .unwrap()
}

fn verdict(run: &Execution) -> (Status, Option<Reason>, Option<&str>) {
    (run.status, run.reason, run.error.as_deref())
}

#[tokio::test]
async fn a_result_that_fits_completes() {
    let run = run(|_| printing(r#"{"freed": 2.5, "by_place": {"/tmp": 3}}"#)).await;
    assert_eq!(verdict(&run), (Status::Completed, None, None));
}

#[tokio::test]
async fn a_result_that_does_not_fit_fails_with_the_place_and_keeps_the_text() {
    let cases = [
        (r#"{"freed": "much"}"#, "/freed: expected number"),
        (r#"{"freed": -1}"#, "/freed: expected at least 0"),
        (
            r#"{"freed": 1, "by_place": {"a/b": "x"}}"#,
            "/by_place/a~1b: expected integer",
        ),
        (r#"{"total": 1}"#, r#"it: "freed" is a required property"#),
        ("[1]", r#"it: "freed" is a required property"#),
    ];
    for (text, problem) in cases {
        let run = run(move |_| printing(text)).await;
        let error = format!("the result does not fit the output schema: {problem}");
        assert_eq!(
            verdict(&run),
            (
                Status::Failed,
                Some(Reason::InvalidOutput),
                Some(error.as_str())
            ),
            "{text}"
        );
        assert_eq!(run.output, text);
        assert!(run.parsed_output.is_some(), "{text}");
    }
}

#[tokio::test]
async fn no_result_does_not_fit_and_says_why_there_is_none() {
    let none = run(|_| printing("done\n")).await;
    let error = "no result, and the script has an output schema";
    assert_eq!(
        verdict(&none),
        (Status::Failed, Some(Reason::InvalidOutput), Some(error))
    );
    assert_eq!((none.output.as_str(), none.parsed_output), ("done\n", None));
    let rejected = run(|_| printing(r#"{"freed": 1, "freed": 2}"#)).await;
    let said = rejected.error.unwrap();
    assert!(
        said.starts_with(&format!("{error}: duplicate key")),
        "{said}"
    );
}

#[tokio::test]
async fn what_failed_or_was_cancelled_keeps_its_own_reason() {
    let failed = run(|_| {
        let mut outcome = printing("{}");
        outcome.ending = Ending::Failed(Failure::new(Reason::ExitCode, "exit code 1"));
        outcome
    });
    assert_eq!(
        verdict(&failed.await),
        (Status::Failed, Some(Reason::ExitCode), Some("exit code 1"))
    );
    let cancelled = run(|_| Outcome::new(Ending::Cancelled)).await;
    assert_eq!(cancelled.status, Status::Cancelled);
}

#[tokio::test]
async fn the_run_counts_as_failed() {
    let automation = automation(|_| printing("{}"));
    automation
        .manual(ManualRequest::new("promise.py"))
        .await
        .unwrap();
    let all = automation.stats(StatsQuery::default()).await.unwrap().all;
    assert_eq!((all.total, all.failed), (1, 1));
}

/// A pointer escapes `/` and `~`, and the redactor does not know secrets in that form.
#[tokio::test]
async fn no_secret_of_the_result_is_told() {
    for named in [false, true] {
        let run = run(move |invocation| {
            let token = invocation.host.secret("token").unwrap();
            let token = token.expose();
            let result = if named {
                json!({"freed": 1, "by_place": {token: "x"}})
            } else {
                json!({"freed": token})
            };
            printing(result.to_string())
        });
        let run = run.await;
        assert_eq!(run.reason, Some(Reason::InvalidOutput));
        let told = run.error.clone().unwrap();
        assert!(!told.contains("8765"), "{told}");
        assert!(!format!("{run:?}").contains("8765"));
        let place = if named { "/by_place/***: " } else { "/freed: " };
        assert!(told.contains(place), "{told}");
    }
}
