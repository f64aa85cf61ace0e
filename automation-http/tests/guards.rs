//! Who is let in: hosts, origins, and what browsers are told about it.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use automation_http::HttpConfig;
use axum::body::Body;
use axum::http::Request;
use support::{App, FRONTEND, config, request};

async fn with_origin(app: &App, method: &str, path: &str, origin: &str) -> support::Answer {
    let body = if method == "POST" {
        Body::from(support::ticket("T-1", "Device Slow").to_string())
    } else {
        Body::empty()
    };
    let request = request(method, path)
        .header("origin", origin)
        .header("content-type", "application/json")
        .body(body);
    app.send(request.unwrap()).await
}

const FOREIGN: [&str; 40] = [
    "null",
    "*",
    "",
    " ",
    "http://localhost",
    "http://localhost:80",
    "http://localhost:3001",
    "http://localhost:30000",
    "http://localhost:3000/",
    "http://localhost:3000/x",
    "http://localhost:3000?",
    "http://localhost:3000#",
    "http://localhost:3000.",
    "https://localhost:3000",
    "HTTP://localhost:3000",
    "http://LOCALHOST:3000",
    "http://Localhost:3000",
    "http://localhost.:3000",
    "http://a.localhost:3000",
    "http://localhost.evil.example:3000",
    "http://evil.example",
    "http://evil.example:3000",
    "http://evil.example/?http://localhost:3000",
    "http://localhost:3000@evil.example",
    "http://user@localhost:3000",
    "http://127.0.0.1:3000",
    "http://[::1]:3000",
    "http://0.0.0.0:3000",
    "http://localhost:03000",
    "http://localhost:3000:3000",
    "//localhost:3000",
    "localhost:3000",
    "localhost",
    "file://",
    "chrome-extension://abcdef",
    "ws://localhost:3000",
    "http://localhost:3000, http://localhost:3000",
    "http://localhost:3000 http://localhost:3000",
    "http://localhost:3000,",
    "data:text/html,x",
];

#[tokio::test]
async fn only_the_frontends_origin_is_let_in() {
    let app = App::new();
    for origin in FOREIGN {
        for (method, path) in [
            ("GET", "/api/automation/stats"),
            ("POST", "/api/automation/execute"),
            ("OPTIONS", "/api/automation/execute"),
            ("GET", "/health"),
            ("GET", "/none"),
        ] {
            let answer = with_origin(&app, method, path, origin).await;
            answer.error(403, "forbidden");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                None,
                "{method} {origin}"
            );
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                None,
                "{method} {origin}"
            );
        }
    }
    let stats = app.get("/api/automation/stats").await.data();
    assert_eq!(
        stats["total_automations"], 0,
        "no foreign page started a run"
    );
}

#[tokio::test]
async fn the_frontend_is_let_in_and_told_so() {
    let app = App::new();
    for (method, path, status) in [
        ("GET", "/api/automation/stats", 200),
        ("POST", "/api/automation/execute", 200),
        ("GET", "/none", 404),
    ] {
        let answer = with_origin(&app, method, path, FRONTEND).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(FRONTEND));
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            Some("true")
        );
        assert!(
            answer
                .header("vary")
                .unwrap()
                .to_ascii_lowercase()
                .contains("origin"),
            "{answer:?}"
        );
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in [
            "ratelimit-remaining",
            "ratelimit-reset",
            "retry-after",
            "x-request-id",
        ] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}

#[tokio::test]
async fn a_preflight_names_the_methods_and_headers() {
    let preflight = request("OPTIONS", "/api/automation/execute")
        .header("origin", FRONTEND)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .body(Body::empty())
        .unwrap();
    let answer = App::new().send(preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(FRONTEND));
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("GET,POST,PUT,DELETE,OPTIONS")
    );
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("content-type,authorization")
    );
}

#[tokio::test]
async fn two_origins_are_one_too_many() {
    let both = request("GET", "/health")
        .header("origin", FRONTEND)
        .header("origin", "http://evil.example")
        .body(Body::empty())
        .unwrap();
    App::new().send(both).await.error(403, "forbidden");
}

#[tokio::test]
async fn reads_of_other_sites_are_refused() {
    let app = App::new();
    for (site, origin, status) in [
        ("cross-site", None, 403),
        ("same-site", None, 403),
        ("cross-site", Some("http://evil.example"), 403),
        ("cross-site", Some(FRONTEND), 200),
        ("same-site", Some(FRONTEND), 200),
        ("same-origin", None, 200),
        ("none", None, 200),
    ] {
        let mut read = request("GET", "/api/automation/stats").header("sec-fetch-site", site);
        if let Some(origin) = origin {
            read = read.header("origin", origin);
        }
        let answer = app.send(read.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{site} {origin:?}");
    }
}

async fn with_host(config: HttpConfig, host: &str) -> support::Answer {
    let request = Request::builder()
        .uri("/health")
        .header("host", host)
        .body(Body::empty())
        .unwrap();
    App::with(config).send(request).await
}

#[tokio::test]
async fn hosts_are_loopback_unless_allowed() {
    for host in [
        "localhost",
        "localhost:3003",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:3003",
        "127.255.0.1",
        "[::1]",
        "[::1]:3003",
    ] {
        assert_eq!(with_host(config(), host).await.status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:3003",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost.",
        "192.0.2.1",
        "0.0.0.0",
        "0.0.0.0:3003",
        "[::]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "user@localhost",
        "localhost@evil.example",
        "evil.example@localhost",
    ] {
        with_host(config(), host).await.error(403, "forbidden");
    }
    for host in [
        "",
        " ",
        "a b",
        "/",
        "localhost/x",
        "http://localhost",
        "[::1",
    ] {
        let answer = with_host(config(), host).await;
        assert!(
            [400, 403].contains(&answer.status.as_u16()),
            "{host}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_bound_address_and_allowed_hosts_are_let_in() {
    let allowed = || {
        config().with_allowed_hosts(["Desk.Example".parse().unwrap(), "10.0.0.5".parse().unwrap()])
    };
    for (host, status) in [
        ("desk.example", 200),
        ("DESK.EXAMPLE:3003", 200),
        ("10.0.0.5:80", 200),
        ("x.desk.example", 403),
        ("10.0.0.6", 403),
    ] {
        assert_eq!(with_host(allowed(), host).await.status, status, "{host}");
    }
    for (bound, host, status) in [
        ("192.0.2.1", "192.0.2.1:3003", 200),
        ("192.0.2.1", "192.0.2.2:3003", 403),
        ("2001:db8::1", "[2001:db8:0::1]:3003", 200),
        ("0.0.0.0", "0.0.0.0:3003", 403),
        ("0.0.0.0", "localhost:3003", 200),
    ] {
        let config = config().with_bound(bound.parse().unwrap());
        assert_eq!(
            with_host(config, host).await.status,
            status,
            "{bound} {host}"
        );
    }
}

#[tokio::test]
async fn there_is_exactly_one_host() {
    let app = App::new();
    app.send(
        Request::builder()
            .uri("/health")
            .body(Body::empty())
            .unwrap(),
    )
    .await
    .error(400, "invalid_request");
    let two = Request::builder()
        .uri("/health")
        .header("host", "localhost")
        .header("host", "localhost")
        .body(Body::empty())
        .unwrap();
    app.send(two).await.error(400, "invalid_request");
    let absolute = |uri: &str, host: &str| {
        Request::builder()
            .uri(uri)
            .header("host", host)
            .body(Body::empty())
            .unwrap()
    };
    app.send(absolute("http://evil.example/health", "localhost"))
        .await
        .error(403, "forbidden");
    app.send(absolute("http://localhost/health", "evil.example"))
        .await
        .error(403, "forbidden");
    assert_eq!(
        app.send(absolute("http://localhost:3003/health", "localhost:3003"))
            .await
            .status,
        200
    );
}
