//! Every error: its status, its code, its one body, and what it does not tell.
#![expect(
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use automation_core::conformance::fault::{Fault, FaultyStorage};
use automation_core::{Clock, MemoryStorage};
use axum::body::Body;
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use support::{App, request, ticket};

#[tokio::test]
async fn missing_fields_are_all_named() {
    let app = App::new();
    let answer = app.post("/api/automation/execute", &json!({})).await;
    answer.error(400, "invalid_request");
    assert_eq!(
        answer.pointers(),
        ["/ticket_id", "/ticket", "/classification"]
    );
    let answer = app
        .post(
            "/api/automation/execute",
            &json!({"ticket_id": "T", "ticket": {}, "classification": {}}),
        )
        .await;
    answer.error(400, "invalid_request");
    assert_eq!(
        answer.pointers(),
        [
            "/classification/category",
            "/classification/automation_possible"
        ]
    );
    let answer = app.post("/api/automation/manual", &json!({})).await;
    answer.error(400, "invalid_request");
    assert_eq!(answer.pointers(), ["/script_name"]);
}

#[tokio::test]
async fn bodies_that_are_not_strict_json_objects_are_400() {
    let app = App::new();
    let nested = format!("{{\"a\": {}1{}}}", "[".repeat(40), "]".repeat(40));
    let nodes = format!("{{\"a\": [{}1]}}", "1,".repeat(20_000));
    for body in [
        "",
        " ",
        "{",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{}{}",
        "{\"a\": NaN}",
        "{\"a\": 1e999}",
        "{'a': 1}",
        "{\"a\": 1,}",
        "// x\n{}",
        "{\"a\": 1, \"a\": 2}",
        "{\"a\": 1, \"\\u0061\": 2}",
        "{\"a\": \"\\u0000\"}",
        "{\"a\": \"\\ud800\"}",
        "{\"a\": 9007199254740992}",
        "\u{feff}\u{feff}{}",
        " \u{feff}{}",
        &nested,
        &nodes,
    ] {
        for path in ["/api/automation/execute", "/api/automation/manual"] {
            let answer = app.post_text(path, body.to_owned()).await;
            answer.error(400, "invalid_request");
            assert_eq!(answer.pointers(), [""], "{body:.40}");
        }
    }
    let deep = format!("{{\"a\": {}", "[".repeat(250_000));
    app.post_text("/api/automation/manual", deep)
        .await
        .error(400, "invalid_request");
    let bytes: &'static [u8] = b"{\"a\": \"\xff\"}";
    app.post_text("/api/automation/manual", bytes)
        .await
        .error(400, "invalid_request");
}

/// A body of one gigabyte in chunks, which counts how many were fetched.
struct Gigabyte {
    fetched: Arc<AtomicUsize>,
}

impl hyper::body::Body for Gigabyte {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = Bytes::from_static(&[b' '; 64 * 1024]);
        let more = self.fetched.fetch_add(1, Ordering::Relaxed) < 16 * 1024;
        Poll::Ready(more.then(|| Ok(Frame::data(chunk))))
    }
}

#[tokio::test]
async fn large_bodies_are_413_and_not_read_to_their_end() {
    let app = App::new();
    let large = format!("{{\"script_name\": \"{}\"}}", "x".repeat(300 * 1024));
    app.post_text("/api/automation/manual", large)
        .await
        .error(413, "body_too_large");
    let fetched = Arc::new(AtomicUsize::new(0));
    let body = Body::new(Gigabyte {
        fetched: Arc::clone(&fetched),
    });
    app.post_text("/api/automation/manual", body)
        .await
        .error(413, "body_too_large");
    let fetched = fetched.load(Ordering::Relaxed);
    assert!(fetched <= 10, "{fetched} chunks of 64 KiB were fetched");
}

#[tokio::test]
async fn bodies_of_another_type_are_415() {
    let app = App::new();
    let body = ticket("T-1", "Device Slow").to_string();
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/ld+json",
        "json",
        "",
    ] {
        for path in [
            "/api/automation/execute",
            "/api/automation/manual",
            "/api/automation/test",
        ] {
            let request = request("POST", path)
                .header("content-type", content_type)
                .body(Body::from(body.clone()))
                .unwrap();
            app.send(request).await.error(415, "unsupported_media_type");
        }
    }
    let request_without = request("POST", "/api/automation/execute")
        .body(Body::from(body.clone()))
        .unwrap();
    app.send(request_without)
        .await
        .error(415, "unsupported_media_type");
    for content_type in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        " application/json ;x=y",
        "application/json; x=y; Charset=\"UTF-8\"",
    ] {
        let request = request("POST", "/api/automation/execute")
            .header("content-type", content_type)
            .body(Body::from(body.clone()))
            .unwrap();
        assert_eq!(
            app.send(request).await.data()["success"],
            true,
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn bodies_in_another_encoding_are_415() {
    let app = App::new();
    for (name, value, status) in [
        ("content-encoding", "identity", 200),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "identity, br", 415),
        ("content-type", "application/json; charset=latin1", 415),
        ("content-type", "application/json;charset=\"utf-16\"", 415),
    ] {
        for path in ["/api/automation/execute", "/api/automation/test"] {
            let mut request = request("POST", path)
                .header("content-type", "application/json")
                .body(Body::from(ticket("T-1", "Device Slow").to_string()))
                .unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
            let answer = app.send(request).await;
            assert_eq!(answer.status, status, "{value}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn long_paths_are_repeated_in_part() {
    let app = App::new();
    let path = format!("/{}", "x".repeat(10_000));
    for (method, path) in [
        ("GET", path.clone()),
        ("PUT", format!("/api/automation/logs{path}")),
    ] {
        let request = request(method, &path).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert!(
            answer.text.contains("xxx") && answer.text.len() < 3000,
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_is_422() {
    let app = App::new();
    let mut not_possible = ticket("T-1", "Device Slow");
    not_possible["classification"]["automation_possible"] = json!(false);
    app.post("/api/automation/execute", &not_possible)
        .await
        .error(422, "automation_not_possible");
    for (parameters, pointer) in [
        (
            json!({"min_free_space_gb": "5"}),
            "/parameters/min_free_space_gb",
        ),
        (
            json!({"min_free_space_gb": -1}),
            "/parameters/min_free_space_gb",
        ),
        (json!({"clear_temp": 1}), "/parameters/clear_temp"),
        (
            json!({"min_free_space_gb": true}),
            "/parameters/min_free_space_gb",
        ),
    ] {
        let body = json!({"script_name": "disk_cleanup.py", "parameters": parameters});
        let answer = app.post("/api/automation/manual", &body).await;
        answer.error(422, "invalid_parameters");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    for key in [
        "unknown",
        "__class__",
        "__proto__",
        "constructor",
        "a\nb",
        "",
    ] {
        let body = json!({"script_name": "disk_cleanup.py", "parameters": {key: 1}});
        app.post("/api/automation/manual", &body)
            .await
            .error(422, "invalid_parameters");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let app = App::new();
    app.post("/api/automation/execute", &ticket("T-1", "Printer"))
        .await
        .error(404, "no_script_for_category");
    for name in [
        "none.py",
        "../disk_cleanup.py",
        "/etc/passwd",
        "disk_cleanup",
        "DISK_CLEANUP.PY",
        "disk_cleanup.py\u{0441}",
        "%2e%2e%2fx.py",
        "CON",
        "disk_cleanup.py.",
    ] {
        app.post("/api/automation/manual", &json!({"script_name": name}))
            .await
            .error(404, "script_not_found");
    }
    app.get("/api/automation/logs/none")
        .await
        .error(404, "ticket_not_found");
    for path in [
        "/",
        "/api",
        "/api/automation",
        "/api/automation/",
        "/api/automation/stats//",
        "/api//automation/stats",
        "//api/automation/stats",
        "/api/automation/logs",
        "/api/automation/logs/",
        "/api/automation/logs/a/b",
        "/API/automation/stats",
        "/api/automation/%73tats/x",
        "/api/automation/../automation/stats",
        "/.env",
        "/api/automation/execute//",
        "/metric",
    ] {
        app.get(path).await.error(404, "route_not_found");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_and_name_the_right_one() {
    let app = App::new();
    for (method, path, allowed) in [
        ("GET", "/api/automation/execute", "POST"),
        ("PUT", "/api/automation/manual", "POST"),
        ("DELETE", "/api/automation/test", "POST"),
        ("POST", "/api/automation/stats", "GET,HEAD"),
        ("PATCH", "/health", "GET,HEAD"),
        ("TRACE", "/health", "GET,HEAD"),
    ] {
        let answer = app
            .send(request(method, path).body(Body::empty()).unwrap())
            .await;
        answer.error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let answer = App::new()
        .send(
            request("HEAD", "/api/automation/stats")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
}

#[tokio::test]
async fn ids_and_queries_that_can_not_be_are_400() {
    let app = App::new();
    let long = "x".repeat(129);
    for id in ["%00", "a%0Ab", "%FF", "%20x", "x%20", "%C2%85", &long] {
        app.get(&format!("/api/automation/logs/{id}"))
            .await
            .error(400, "invalid_request");
    }
    app.execute("T-1").await.data();
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=x",
        "limit=1&limit=2",
        "cursor=x",
        "status=done",
        "status=",
        "status=Failed",
    ] {
        app.get(&format!("/api/automation/logs/T-1?{query}"))
            .await
            .error(400, "invalid_request");
    }
    for query in [
        "since=yesterday",
        "since=2026-02-30",
        "since=",
        "since=2026-01-01&since=2026-01-02",
    ] {
        app.get(&format!("/api/automation/stats?{query}"))
            .await
            .error(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_storage_that_is_away_is_503_with_a_time() {
    let storage =
        FaultyStorage::new(Arc::new(MemoryStorage::default()), 1, Fault::Refused).for_calls(10_000);
    let app = App::over(Arc::new(storage), support::config());
    let secret = "fault";
    for answer in [
        app.execute("T-1").await,
        app.get("/api/automation/stats").await,
        app.get("/api/automation/logs/T-1").await,
    ] {
        let body = answer.error(503, "storage");
        assert_eq!(
            body["message"],
            "the storage is unavailable, try again later"
        );
        assert!(
            body.get("cause").is_none() && !answer.text.contains(secret),
            "{body}"
        );
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn causes_are_shown_in_development_only() {
    let storage = || {
        Arc::new(
            FaultyStorage::new(Arc::new(MemoryStorage::default()), 1, Fault::Refused)
                .for_calls(10_000),
        )
    };
    let shown = App::over(storage(), support::config().with_exposed_errors(true))
        .get("/api/automation/stats")
        .await;
    assert!(shown.json()["cause"].is_string(), "{shown:?}");
    let hidden = App::over(storage(), support::config())
        .get("/api/automation/stats")
        .await;
    assert_eq!(hidden.json().get("cause"), None);
}

/// A clock that makes `/health` panic.
#[derive(Debug)]
struct BrokenClock;

impl Clock for BrokenClock {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        panic!("the clock at /dev/secret broke")
    }
}

#[tokio::test]
async fn a_panic_is_500_and_says_nothing() {
    let app = App::with(support::config().with_clock(Arc::new(BrokenClock)));
    let request = request("GET", "/health").header("origin", support::FRONTEND);
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    answer.error(500, "internal");
    assert!(!answer.text.contains("secret"), "{answer:?}");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some(support::FRONTEND),
        "the frontend can read it"
    );
    assert_eq!(app.get("/api/automation/stats").await.status, 200);
}

#[tokio::test]
async fn after_a_shutdown_it_is_503() {
    let app = App::new();
    app.automation.shutdown(Duration::ZERO).await.unwrap();
    let answer = app.execute("T-1").await;
    answer.error(503, "closed");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn problem_json_is_for_clients_that_ask_for_it() {
    let app = App::new();
    let asking = request("GET", "/none")
        .header("accept", "application/problem+json")
        .body(Body::empty())
        .unwrap();
    let answer = app.send(asking).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["type"]),
        (&json!(404), &json!("urn:automation:error:route_not_found"))
    );
    assert_eq!(body["errors"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_security_headers() {
    let app = App::new();
    let given = request("GET", "/health")
        .header("x-request-id", "req-1")
        .body(Body::empty())
        .unwrap();
    assert_eq!(app.send(given).await.header("x-request-id"), Some("req-1"));
    let foreign = request("GET", "/health")
        .header("origin", "http://evil.example")
        .body(Body::empty())
        .unwrap();
    let preflight = request("OPTIONS", "/health")
        .header("origin", support::FRONTEND)
        .body(Body::empty())
        .unwrap();
    for answer in [
        app.get("/health").await,
        app.get("/none").await,
        app.send(foreign).await,
        app.send(preflight).await,
    ] {
        assert!(
            answer
                .header("x-request-id")
                .is_some_and(|id| id.len() == 36),
            "{answer:?}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        for name in ["x-powered-by", "server"] {
            assert_eq!(answer.header(name), None);
        }
    }
}
