//! What a script did to the world and to the process is told and recorded, in order and redacted.

use automation_core::executor::{FnExecutor, Invocation, RunEvent};
use automation_core::secret::{Secret, Secrets};
use automation_core::{Concern, Effect, EventKind, ManualRequest, Page, TenantId, Update};
use serde_json::json;

use crate::support::*;

fn effect(effect: Effect, target: &str, denied: bool) -> RunEvent {
    RunEvent::Effect {
        effect,
        target: target.to_owned(),
        denied,
    }
}

#[tokio::test]
async fn effects_and_contamination_are_events_of_the_run() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        let token = invocation.host.secret("api_token").unwrap();
        let host = &invocation.host;
        host.emit(effect(Effect::Subprocess, "/bin/true", false));
        host.emit(effect(
            Effect::Network,
            &format!("10.0.0.1:443 {}", token.expose()),
            true,
        ));
        host.emit(RunEvent::Contamination {
            text: format!("json.dumps was replaced by {}", token.expose()),
        });
        let mut outcome = printing("{}");
        outcome.concern = Some(Concern::Contaminated);
        outcome
    });
    let automation = builder(executor, &storage)
        .secrets(Secrets::new().with("API_TOKEN", Secret::new("token-8765")))
        .build()
        .unwrap();
    let run = automation
        .manual(ManualRequest::new("plain.py"))
        .await
        .unwrap();
    assert_eq!(run.concern, Some(Concern::Contaminated));

    let recorded = storage
        .events(&TenantId::default(), run.id, &Page::default())
        .await
        .unwrap();
    let told: Vec<_> = recorded
        .items
        .iter()
        .map(|event| (event.seq, event.kind, event.data.clone()))
        .collect();
    let expected = [
        (
            1,
            EventKind::Effect,
            json!({"effect": "subprocess", "target": "/bin/true", "denied": false}),
        ),
        (
            2,
            EventKind::Effect,
            json!({"effect": "network", "target": "10.0.0.1:443 ***", "denied": true}),
        ),
        (
            3,
            EventKind::Contamination,
            json!({"text": "json.dumps was replaced by ***"}),
        ),
    ];
    assert_eq!(told, expected);

    let mut watch = automation.watch(run.id).await.unwrap();
    for event in recorded.items {
        assert_eq!(watch.next().await.unwrap(), Some(Update::Event(event)));
    }
    assert_eq!(
        watch.next().await.unwrap(),
        Some(Update::Ended(Box::new(run)))
    );
}
