//! What clients see of scripts that are kept out of the process, and how they are released.

mod support;

use std::num::NonZeroU32;
use std::time::Duration;

use automation_http::RateLimit;
use axum::body::Body;
use serde_json::{Value, json};
use support::{App, FRONTEND, request};

const RELEASE: &str = "/api/automation/scripts/leaks.py/release";

async fn leak(app: &App) -> Value {
    app.post(
        "/api/automation/manual",
        &json!({"script_name": "leaks.py"}),
    )
    .await
    .data()
}

async fn shown(app: &App) -> Value {
    let scripts = app.get("/api/automation/scripts").await.data();
    let mut scripts = scripts.as_array().expect("scripts are a list").iter();
    scripts
        .find(|script| script["script"] == "leaks.py")
        .expect("the script is listed")
        .clone()
}

#[tokio::test]
async fn a_concern_is_shown_on_the_run_and_its_script_until_the_release() {
    let app = App::new();
    assert_eq!(shown(&app).await["quarantine"], Value::Null);
    let run = leak(&app).await;
    assert_eq!(
        (&run["concern"], &run["isolation"]),
        (&json!("contaminated"), &json!("in-process"))
    );
    let script = shown(&app).await;
    let quarantine = &script["quarantine"];
    assert_eq!(
        (
            &quarantine["concern"],
            &quarantine["consequence"],
            &quarantine["automation_id"]
        ),
        (
            &json!("contaminated"),
            &json!("tolerated"),
            &run["automation_id"]
        )
    );
    assert_eq!(quarantine["version"], script["version"]);
    assert_eq!(app.get("/health").await.json()["quarantined"], 1);

    let answer = app.post_text(RELEASE, Body::empty()).await;
    assert_eq!(answer.message(), "Released 1 versions from quarantine");
    assert_eq!(answer.data(), json!([quarantine]));
    assert_eq!(shown(&app).await["quarantine"], Value::Null);
    assert_eq!(app.get("/health").await.json()["quarantined"], 0);
}

#[tokio::test]
async fn a_version_is_released_by_itself_and_a_body_does_not_matter() {
    let app = App::new();
    leak(&app).await;
    let version = shown(&app).await["version"].as_str().unwrap().to_owned();
    let path = format!("/api/automation/scripts/{version}/release/");
    app.post(&path, &json!({})).await.data();
    assert_eq!(shown(&app).await["quarantine"], Value::Null);
}

#[tokio::test]
async fn a_release_that_means_nothing_is_an_error() {
    let app = App::new();
    app.post_text(RELEASE, Body::empty())
        .await
        .error(409, "conflict");
    let absent = "/api/automation/scripts/absent.py/release";
    app.post_text(absent, Body::empty())
        .await
        .error(404, "script_not_found");
    app.get(RELEASE).await.error(405, "method_not_allowed");
}

#[tokio::test]
async fn a_release_is_guarded_as_other_posts_are() {
    let app = App::new();
    leak(&app).await;
    let foreign = request("POST", RELEASE).header("origin", "https://evil.example");
    app.send(foreign.body(Body::empty()).unwrap())
        .await
        .error(403, "forbidden");
    let ours = request("POST", RELEASE).header("origin", FRONTEND);
    app.send(ours.body(Body::empty()).unwrap()).await.data();

    let limit = RateLimit::new(NonZeroU32::MIN, Duration::from_secs(60));
    let limited = App::with(support::config().with_rate_limit(Some(limit)));
    leak(&limited).await;
    limited
        .post_text(RELEASE, Body::empty())
        .await
        .error(429, "quota_exceeded");
}
