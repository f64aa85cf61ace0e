//! How often a client may ask for runs, and how it is told.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use automation_http::{HttpConfig, RateLimit};
use axum::body::Body;
use axum::extract::ConnectInfo;
use support::{Answer, App, config, request};

fn limited(requests: u32) -> HttpConfig {
    config().with_rate_limit(Some(RateLimit::new(
        NonZeroU32::new(requests).unwrap(),
        Duration::from_secs(900),
    )))
}

/// Asks for a run as the client behind `peer`.
async fn execute_from(app: &App, peer: &str, forwarded: &str) -> Answer {
    let mut request = request("POST", "/api/automation/execute")
        .header("content-type", "application/json")
        .header("x-forwarded-for", forwarded)
        .body(Body::from(
            support::ticket("T-1", "Device Slow").to_string(),
        ))
        .unwrap();
    let peer = SocketAddr::new(peer.parse().unwrap(), 4711);
    request.extensions_mut().insert(ConnectInfo(peer));
    app.send(request).await
}

fn remaining(answer: &Answer) -> u32 {
    answer
        .header("ratelimit-remaining")
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn fifty_in_fifteen_minutes_is_the_default() {
    let app = App::with(HttpConfig::new(support::FRONTEND.parse().unwrap()));
    for run in 1..=50 {
        let answer = execute_from(&app, "127.0.0.1", "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(remaining(&answer), 50 - run);
        assert_eq!(answer.header("ratelimit-limit"), Some("50"));
        assert_eq!(answer.header("ratelimit-policy"), Some("50;w=900"));
        let reset: u64 = answer.header("ratelimit-reset").unwrap().parse().unwrap();
        assert!((880..=900).contains(&reset), "{reset}");
    }
    let refused = execute_from(&app, "127.0.0.1", "").await;
    refused.error(429, "quota_exceeded");
    assert_eq!(
        (remaining(&refused), refused.header("retry-after")),
        (0, refused.header("ratelimit-reset"))
    );
    assert_eq!(
        execute_from(&app, "127.0.0.2", "").await.status,
        200,
        "another client"
    );
    assert_eq!(
        app.get("/api/automation/stats").await.data()["total_automations"],
        51
    );
}

#[tokio::test]
async fn runs_share_one_limit_and_reads_have_none() {
    let app = App::with(limited(3));
    assert_eq!(app.execute("T-1").await.status, 200);
    assert_eq!(app.post_text("/api/automation/test", "").await.status, 200);
    assert_eq!(
        app.post(
            "/api/automation/manual",
            &serde_json::json!({"script_name": "disk_cleanup.py"})
        )
        .await
        .status,
        200
    );
    for path in [
        "/api/automation/execute",
        "/api/automation/manual",
        "/api/automation/test",
    ] {
        app.post_text(path, "{}").await.error(429, "quota_exceeded");
    }
    for _ in 0..10 {
        for path in [
            "/api/automation/stats",
            "/api/automation/scripts",
            "/api/automation/logs/T-1",
            "/api/automation/python/check",
            "/health",
        ] {
            let answer = app.get(path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("ratelimit-limit")),
                (200, None),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn refused_requests_count_too() {
    let app = App::with(limited(2));
    app.post_text("/api/automation/execute", "rubbish")
        .await
        .error(400, "invalid_request");
    let answer = app.post_text("/api/automation/execute", "rubbish").await;
    assert_eq!(remaining(&answer), 0);
    app.execute("T-1").await.error(429, "quota_exceeded");
}

#[tokio::test]
async fn the_frontend_can_read_that_it_is_limited() {
    let app = App::with(limited(1));
    app.execute("T-1").await.data();
    let request = request("POST", "/api/automation/execute")
        .header("origin", support::FRONTEND)
        .body(Body::empty())
        .unwrap();
    let answer = app.send(request).await;
    answer.error(429, "quota_exceeded");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some(support::FRONTEND)
    );
}

#[tokio::test]
async fn a_forwarded_client_is_believed_of_trusted_proxies_only() {
    let app = App::with(limited(1).with_trusted_proxies(["10.0.0.0/8".parse().unwrap()]));
    assert_eq!(
        execute_from(&app, "10.0.0.1", "203.0.113.1").await.status,
        200
    );
    assert_eq!(
        execute_from(&app, "10.0.0.1", "203.0.113.2").await.status,
        200
    );
    assert_eq!(
        execute_from(&app, "10.0.0.2", "203.0.113.1").await.status,
        429,
        "the same client through another proxy"
    );
    assert_eq!(
        execute_from(&app, "10.0.0.1", "1.1.1.1, 203.0.113.2")
            .await
            .status,
        429,
        "a client can't name itself"
    );
    assert_eq!(
        execute_from(&app, "192.0.2.1", "203.0.113.7").await.status,
        200
    );
    assert_eq!(
        execute_from(&app, "192.0.2.1", "203.0.113.8").await.status,
        429,
        "not a proxy"
    );
}

#[tokio::test]
async fn without_a_limit_nothing_is_told() {
    let answer = App::with(config()).execute("T-1").await;
    assert_eq!(answer.header("ratelimit-limit"), None);
}
