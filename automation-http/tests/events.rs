//! A run as a stream of events: what comes, where it resumes, and how many streams there may be.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::{CapturedText, Ending, FnExecutor, Invocation, Outcome, RunEvent};
use automation_core::storage::MemoryStorage;
use automation_core::{Page, Storage, TenantId};
use automation_http::StreamLimits;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::{App, config};
use tokio::sync::Notify;
use tower::ServiceExt;

/// Runs that report, wait to be released, report again and return a result.
fn reporting(release: &Arc<Notify>) -> FnExecutor {
    let release = Arc::clone(release);
    FnExecutor::new(move |invocation: Invocation| {
        let release = Arc::clone(&release);
        async move {
            let log = |text: &str| {
                invocation.host.emit(RunEvent::Log {
                    text: text.to_owned(),
                })
            };
            log("first\nline");
            let text = "half".to_owned();
            invocation.host.emit(RunEvent::Progress {
                fraction: 0.5,
                text,
            });
            release.notified().await;
            log("last");
            let mut outcome = Outcome::new(Ending::Completed);
            outcome.output.stdout = CapturedText::new("{\"freed\": 1}\n");
            outcome
        }
    })
}

async fn started(app: &App) -> String {
    let body = json!({"script_name": "slow.py"});
    let answer = app.post("/api/automation/manual?wait=0", &body).await;
    answer.data_of(StatusCode::ACCEPTED);
    answer.header("location").unwrap().to_owned()
}

async fn open(app: &App, place: &str, last: Option<&str>) -> Response<Body> {
    let request = support::request("GET", &format!("{place}/events"));
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    let request = request.body(Body::empty()).unwrap();
    app.router.clone().oneshot(request).await.unwrap()
}

/// One event of a stream; a comment has no name.
#[derive(Debug, Default, PartialEq)]
struct Told {
    name: String,
    id: Option<String>,
    data: Value,
}

fn parse(block: &str) -> Told {
    let mut told = Told::default();
    for line in block.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("event", name) => told.name = name.to_owned(),
            ("id", id) => told.id = Some(id.to_owned()),
            ("data", data) => told.data = serde_json::from_str(data).unwrap(),
            _ => assert!(line.starts_with(':'), "{line:?}"),
        }
    }
    told
}

/// Reads a stream event by event.
struct Reader(Body, String);

impl Reader {
    fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert_eq!(headers["cache-control"], "no-store");
        Self(response.into_body(), String::new())
    }

    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((block, rest)) = self.1.split_once("\n\n") {
                let told = parse(block);
                self.1 = rest.to_owned();
                return Some(told);
            }
            let frame = self.0.frame().await?.unwrap().into_data().unwrap();
            self.1.push_str(std::str::from_utf8(&frame).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while let Some(told) = self.next().await {
            all.push(told);
        }
        all
    }
}

fn names(all: &[Told]) -> Vec<&str> {
    all.iter().map(|told| told.name.as_str()).collect()
}

#[tokio::test]
async fn a_run_is_told_from_its_status_to_its_end() {
    let release = Arc::new(Notify::new());
    let app = App::running(reporting(&release), config());
    let place = started(&app).await;
    let mut stream = Reader::new(open(&app, &place, None).await);
    let status = stream.next().await.unwrap();
    assert_eq!(
        (status.name.as_str(), status.id, &status.data["status"]),
        ("status", None, &json!("running"))
    );
    let log = stream.next().await.unwrap();
    assert_eq!((log.name.as_str(), log.id.as_deref()), ("log", Some("1")));
    assert_eq!(log.data["data"]["text"], "first\nline");
    assert_eq!(log.data["seq"], 1);
    let progress = stream.next().await.unwrap();
    assert_eq!(
        (progress.name.as_str(), progress.id.as_deref()),
        ("progress", Some("2"))
    );
    assert_eq!(
        progress.data["data"],
        json!({"fraction": 0.5, "text": "half"})
    );
    release.notify_one();
    let rest = stream.rest().await;
    assert_eq!(names(&rest), ["log", "status", "result", "end"]);
    assert_eq!(rest[1].data["status"], "completed");
    assert_eq!(rest[2].data["parsed_output"], json!({"freed": 1}));
    assert_eq!(
        (&rest[2].data["success"], &rest[2].data["exit_code"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(
        (rest[3].id.as_deref(), &rest[3].data["status"]),
        (Some("end"), &json!("completed"))
    );
}

#[tokio::test]
async fn a_stream_resumes_behind_what_the_client_has() {
    let release = Arc::new(Notify::new());
    let app = App::running(reporting(&release), config());
    let place = started(&app).await;
    let mut open_run = Reader::new(open(&app, &place, Some("1")).await);
    assert_eq!(open_run.next().await.unwrap().name, "status");
    assert_eq!(open_run.next().await.unwrap().id.as_deref(), Some("2"));
    release.notify_one();
    open_run.rest().await;
    for (last, rest) in [
        (
            None,
            &["log", "progress", "log", "status", "result", "end"][..],
        ),
        (
            Some("0"),
            &["log", "progress", "log", "status", "result", "end"][..],
        ),
        (Some("2"), &["log", "status", "result", "end"][..]),
        (Some("3"), &["status", "result", "end"][..]),
    ] {
        let stream = Reader::new(open(&app, &place, last).await);
        assert_eq!(names(&stream.rest().await), rest, "{last:?}");
    }
    let over = open(&app, &place, Some("end")).await;
    assert_eq!(
        over.status(),
        StatusCode::NO_CONTENT,
        "browsers stop asking"
    );
    for last in ["", "x", "-1", "4294967296"] {
        assert_eq!(
            open(&app, &place, Some(last)).await.status(),
            400,
            "{last:?}"
        );
    }
}

#[tokio::test]
async fn a_run_that_reports_nothing_writes_no_event() {
    let storage = Arc::new(MemoryStorage::default());
    let app = App::over(Arc::clone(&storage) as Arc<dyn Storage>, config());
    let ran = app.execute("T-1").await.data();
    let id = ran["automation_id"].as_str().unwrap();
    let place = format!("/api/automation/executions/{id}");
    let stream = Reader::new(open(&app, &place, None).await);
    assert_eq!(names(&stream.rest().await), ["status", "result", "end"]);
    let (tenant, page) = (TenantId::default(), Page::default());
    let events = storage.events(&tenant, id.parse().unwrap(), &page);
    assert_eq!(events.await.unwrap().items, []);
}

#[tokio::test]
async fn a_run_that_waits_for_its_turn_says_so_and_when_it_has_it() {
    let release = Arc::new(Notify::new());
    let app = App::running(reporting(&release), config());
    for _ in 0..2 {
        started(&app).await;
    }
    let place = started(&app).await;
    let mut stream = Reader::new(open(&app, &place, None).await);
    assert_eq!(stream.next().await.unwrap().data["status"], "starting");
    release.notify_one();
    assert_eq!(stream.next().await.unwrap().data["status"], "running");
}

fn limits(streams_max: usize, per_client_max: usize) -> StreamLimits {
    let mut limits = StreamLimits::default();
    limits.streams_max = streams_max;
    limits.per_client_max = per_client_max;
    limits
}

#[tokio::test]
async fn streams_are_bounded_and_given_back() {
    for (limits, cause) in [
        (limits(2, 9), "2 streams of events are open"),
        (limits(9, 2), "this client has 2 streams of events open"),
    ] {
        let app = App::running(
            reporting(&Arc::new(Notify::new())),
            config().with_streams(limits),
        );
        let place = started(&app).await;
        let held = [
            open(&app, &place, None).await,
            open(&app, &place, None).await,
        ];
        let refused = app.get(&format!("{place}/events")).await;
        assert_eq!(refused.error(503, "overloaded")["detail"], cause);
        assert_eq!(refused.header("retry-after"), Some("5"));
        drop(held);
        assert_eq!(open(&app, &place, None).await.status(), 200);
        let unknown = "/api/automation/executions/01890000-0000-7000-8000-000000000000";
        for _ in 0..3 {
            assert_eq!(
                open(&app, unknown, None).await.status(),
                404,
                "it holds no place"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_shows_that_it_is_alive_and_does_not_live_for_ever() {
    let mut limits = StreamLimits::default();
    limits.heartbeat = Duration::from_secs(15);
    limits.time_max = Duration::from_secs(40);
    let app = App::running(
        reporting(&Arc::new(Notify::new())),
        config().with_streams(limits),
    );
    let place = started(&app).await;
    let mut stream = Reader::new(open(&app, &place, Some("2")).await);
    assert_eq!(stream.next().await.unwrap().name, "status");
    let began = tokio::time::Instant::now();
    for seconds in [15, 30] {
        assert_eq!(stream.next().await.unwrap(), Told::default(), "a comment");
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    assert_eq!(stream.next().await, None);
    assert_eq!(began.elapsed().as_secs(), 40);
}
