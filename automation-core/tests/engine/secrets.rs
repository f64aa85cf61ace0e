//! Secrets appear nowhere (P9).

use automation_core::executor::{CapturedText, Ending, Failure, FnExecutor, Invocation, RunEvent};
use automation_core::secret::{Secret, Secrets};
use automation_core::{ManualRequest, Page, Reason, TenantId};
use serde_json::{Map, json};

use crate::support::*;

#[tokio::test]
async fn secrets_are_masked_wherever_they_are_recorded() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let password = invocation.parameters["password"]
            .as_str()
            .unwrap()
            .to_owned();
        let both = format!("{} {password}", token.expose());
        invocation.host.emit(RunEvent::Log {
            text: format!("log {both}"),
        });
        let mut outcome =
            printing(json!({ "both": both, "hex": "746f6b656e2d38373635" }).to_string());
        outcome.output.stderr = CapturedText::new(format!("stderr {both}"));
        outcome.ending = Ending::Failed(Failure::new(Reason::Exception, format!("error {both}")));
        outcome
    });
    let secrets = Secrets::new().with("API_TOKEN", Secret::new("token-8765"));
    let automation = builder(executor, &storage)
        .secrets(secrets)
        .build()
        .unwrap();
    let parameters = Map::from_iter([("password".to_owned(), json!("hunter2!"))]);
    let request = ManualRequest::new("login.py").with_parameters(parameters);
    let execution = automation.manual(request).await.unwrap();
    let events = storage
        .events(&TenantId::default(), execution.id, &Page::default())
        .await
        .unwrap()
        .items;
    let recorded = format!("{execution:?} {events:?}");
    for secret in ["hunter2!", "token-8765", "746f6b656e2d38373635"] {
        assert!(!recorded.contains(secret), "{secret} in {recorded}");
    }
    assert_eq!(execution.parameters["password"], "***");
    assert_eq!(execution.error.as_deref(), Some("error *** ***"));
    assert_eq!(events[0].data["text"], "log *** ***");
}

#[tokio::test]
async fn a_secret_at_the_cut_of_a_long_line_is_masked_too() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let text = format!("{}{}", "x".repeat(16 * 1024 - 5), token.expose());
        invocation.host.emit(RunEvent::Log { text });
        printing("")
    });
    let secrets = Secrets::new().with("API_TOKEN", Secret::new("token-8765"));
    let automation = builder(executor, &storage)
        .secrets(secrets)
        .build()
        .unwrap();
    let execution = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    let events = storage
        .events(&TenantId::default(), execution.id, &Page::default())
        .await
        .unwrap();
    assert!(
        events.items[0].data["text"]
            .as_str()
            .unwrap()
            .ends_with("x***")
    );
}

#[tokio::test]
async fn a_secret_at_the_cut_of_a_long_reason_is_masked_too() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let message = format!("{}{}{}", "x".repeat(4091), token.expose(), "y".repeat(9));
        let mut outcome = printing("");
        outcome.ending = Ending::Failed(Failure::new(Reason::Exception, message));
        outcome
    });
    let secrets = Secrets::new().with("API_TOKEN", Secret::new("token-8765"));
    let automation = builder(executor, &storage)
        .secrets(secrets)
        .build()
        .unwrap();
    let execution = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    let expected = format!("{}***yy...", "x".repeat(4091));
    assert_eq!(execution.error.as_deref(), Some(expected.as_str()));
}
