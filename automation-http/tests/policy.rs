//! What clients see of the policy, of people's stops and overrides, and of quotas.

mod support;

use std::sync::Arc;

use automation_core::{Automation, MemoryStorage, Policy};
use automation_http::router;
use serde_json::{Value, json};
use support::{App, config, executor, scripts};

const STOP: &str = "/api/automation/stop";
const RESUME: &str = "/api/automation/resume";
const MANUAL: &str = "/api/automation/manual";

fn app(policy: &str) -> App {
    let automation = Automation::builder()
        .scripts(scripts())
        .executor(executor())
        .shared_storage(Arc::new(MemoryStorage::new()))
        .policy(Policy::from_toml(policy).expect("the policy is valid"))
        .build()
        .expect("the parts fit");
    App {
        router: router(automation.clone(), config()),
        automation,
    }
}

fn ticket(confidence: &Value) -> Value {
    json!({
        "ticket_id": "T-1",
        "ticket": {"id": "T-1", "priority": "high"},
        "classification": {"category": "Device Slow", "automation_possible": true, "confidence": confidence},
    })
}

#[tokio::test]
async fn the_decision_can_be_asked_for_and_is_shown_on_the_run() {
    let app =
        app("confidence_min = 0.7\n[[priorities]]\nticket_priorities = [\"high\"]\npriority = 2");
    let route = app
        .post("/api/automation/route", &ticket(&json!(0.8)))
        .await
        .data();
    let decision =
        "the only script of category \"Device Slow\"; confidence 0.8 is at least 0.7; priority 2";
    let expected = [
        ("script", json!("disk_cleanup.py")),
        ("decision", json!(decision)),
        ("priority", json!(2)),
        ("needs_approval", json!(false)),
        ("fallbacks", json!([])),
    ];
    for (field, expected) in expected {
        assert_eq!(route[field], expected, "{field}");
    }
    let run = app
        .post("/api/automation/execute", &ticket(&json!(0.8)))
        .await
        .data();
    assert_eq!(run["decision"], decision);
    let unsure = app
        .post("/api/automation/route", &ticket(&Value::Null))
        .await;
    assert_eq!(unsure.status, 422);
    assert_eq!(unsure.json()["code"], "automation_not_possible");
}

#[tokio::test]
async fn a_stop_is_named_shown_and_resumed() {
    let app = app("");
    let who = json!({"scope": "script", "name": "disk_cleanup.py", "actor": "jdoe", "reason": "a bad patch"});
    let stopped = app.post(STOP, &who).await;
    assert_eq!(stopped.status, 200, "{}", stopped.json());
    let health = app.get("/health").await.json();
    let shown = &health["stopped"][0];
    assert_eq!(
        (&shown["scope"], &shown["name"]),
        (&json!("script"), &json!("disk_cleanup.py"))
    );
    assert_eq!(
        (&shown["actor"], &shown["reason"]),
        (&json!("jdoe"), &json!("a bad patch"))
    );
    let refused = app
        .post("/api/automation/execute", &ticket(&json!(1)))
        .await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (503, &json!("stopped"))
    );
    let sentence = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        sentence.contains("stopped by jdoe") && sentence.ends_with("a bad patch"),
        "{sentence}"
    );
    assert_eq!(app.post(RESUME, &who).await.status, 200);
    assert_eq!(app.post(RESUME, &who).await.status, 409);
    assert_eq!(
        app.post("/api/automation/execute", &ticket(&json!(1)))
            .await
            .status,
        200
    );
}

/// A document that lacks something must never stop more than was meant.
#[tokio::test]
async fn a_stop_without_scope_name_or_reason_stops_nothing() {
    let app = app("");
    for (document, pointer) in [
        (json!({"actor": "a", "reason": "b"}), "/scope"),
        (
            json!({"scope": "everything", "actor": "a", "reason": "b"}),
            "/scope",
        ),
        (
            json!({"scope": "script", "actor": "a", "reason": "b"}),
            "/name",
        ),
        (
            json!({"scope": "category", "name": null, "actor": "a", "reason": "b"}),
            "/name",
        ),
        (json!({"scope": "all", "reason": "b"}), "/actor"),
        (json!({"scope": "all", "actor": "a"}), "/reason"),
        (
            json!({"scope": "all", "actor": "a", "reason": " "}),
            "/reason",
        ),
    ] {
        let refused = app.post(STOP, &document).await;
        assert_eq!(refused.status, 400, "{document}");
        assert_eq!(
            refused.json()["errors"][0]["pointer"],
            pointer,
            "{document}"
        );
    }
    assert_eq!(app.get("/health").await.json()["stopped"], json!([]));
}

#[tokio::test]
async fn a_quota_is_429_with_the_time_after_which_to_come_back() {
    let app = app("[[quotas]]\nname = \"hourly\"\nruns = 1\nwindow_seconds = 3600");
    let request = json!({"script_name": "disk_cleanup.py"});
    assert_eq!(app.post(MANUAL, &request).await.status, 200);
    let refused = app.post(MANUAL, &request).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (429, &json!("quota_exceeded"))
    );
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3590..=3600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_override_names_who_and_why() {
    let app = app("[scripts.\"disk_cleanup.py\"]\nenabled = false\nreason = \"not now\"");
    let plain = json!({"script_name": "disk_cleanup.py"});
    let refused = app.post(MANUAL, &plain).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (409, &json!("refused_by_policy"))
    );
    let half = json!({"script_name": "disk_cleanup.py", "override": {"reason": "now"}});
    let half = app.post(MANUAL, &half).await;
    assert_eq!(
        (half.status.as_u16(), &half.json()["errors"][0]["pointer"]),
        (400, &json!("/override/actor"))
    );
    let whole =
        json!({"script_name": "disk_cleanup.py", "override": {"actor": "jdoe", "reason": "now"}});
    let run = app.post(MANUAL, &whole).await.data();
    assert_eq!(run["decision"], "forced against the policy by jdoe: now");

    let mut forced = ticket(&json!(0.1));
    forced["classification"]["automation_possible"] = json!(false);
    forced["override"] = json!({
        "actor": "jdoe", "reason": "by phone", "script_name": "disk_cleanup.py", "parameters": {"min_free_space_gb": 9},
    });
    let run = app.post("/api/automation/execute", &forced).await.data();
    assert_eq!(run["script_used"], "disk_cleanup.py");
}

#[tokio::test]
async fn a_category_that_nothing_serves_is_told_why() {
    let app = app("[[routes]]\ncategory = \"Printer\"\nscripts = [\"printer.py\"]");
    let mut request = ticket(&json!(1));
    request["classification"]["category"] = json!("Printer");
    let refused = app.post("/api/automation/route", &request).await;
    assert_eq!(refused.status, 404);
    let sentence = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(
        sentence.ends_with("of those that the policy names, \"printer.py\" is not there"),
        "{sentence}"
    );
}
