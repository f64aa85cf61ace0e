//! Asking again: idempotency keys, and runs that are repeated.

mod support;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{App, request};

fn keyed(keys: &[&str], body: &Value) -> Request<Body> {
    let mut asked = request("POST", "/api/automation/manual");
    for key in keys {
        asked = asked.header("Idempotency-Key", *key);
    }
    asked
        .header("Content-Type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

#[tokio::test]
async fn one_key_is_one_run_and_another_body_a_conflict() {
    let app = App::new();
    let body = json!({"script_name": "disk_cleanup.py"});
    let first = app.send(keyed(&["a-1"], &body)).await.data();
    let second = app.send(keyed(&["a-1"], &body)).await.data();
    assert_eq!(first["automation_id"], second["automation_id"]);
    let other = json!({"script_name": "disk_cleanup.py", "dry_run": true});
    let refused = app.send(keyed(&["a-1"], &other)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.json()["code"], "conflict");
    for keys in [&["a b"][..], &["a", "b"]] {
        let refused = app.send(keyed(keys, &body)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{keys:?}");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/idempotency_key");
    }
}

#[tokio::test]
async fn what_failed_is_repeated_and_what_completed_is_not() {
    let app = App::new();
    let manual = "/api/automation/manual";
    let failed = app
        .post(manual, &json!({"script_name": "vpn_restart.py"}))
        .await
        .data();
    let id = failed["automation_id"].as_str().unwrap();
    let path = format!("/api/automation/executions/{id}/retry");
    let again = app.post_text(&path, Body::empty()).await.data();
    assert_eq!(
        (&again["attempt"], &again["parent_id"]),
        (&json!(2), &json!(id))
    );
    assert_eq!(again["execution_type"], "retry");
    let done = app
        .post(manual, &json!({"script_name": "disk_cleanup.py"}))
        .await
        .data();
    let id = done["automation_id"].as_str().unwrap();
    let cases = [
        (id, StatusCode::CONFLICT),
        ("nonsense", StatusCode::BAD_REQUEST),
        (
            "0190a000-0000-7000-8000-000000000000",
            StatusCode::NOT_FOUND,
        ),
    ];
    for (id, status) in cases {
        let path = format!("/api/automation/executions/{id}/retry");
        assert_eq!(
            app.post_text(&path, Body::empty()).await.status,
            status,
            "{id}"
        );
    }
}
