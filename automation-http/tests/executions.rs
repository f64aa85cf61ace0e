//! Runs by their own ids: asked for without waiting, looked at, cancelled, downloaded.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use automation_core::ManualClock;
use automation_core::executor::{CapturedText, Ending, FnExecutor, Invocation, Outcome};
use automation_http::RateLimit;
use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Answer, App, config};
use tokio::sync::Notify;

/// Runs wait until they are released or cancelled.
fn held(release: &Arc<Notify>) -> App {
    let release = Arc::clone(release);
    let executor = FnExecutor::new(move |_: Invocation| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            Outcome::new(Ending::Completed)
        }
    });
    App::running(executor, config())
}

fn location(answer: &Answer) -> String {
    let id = answer.json()["data"]["automation_id"].clone();
    let place = answer.header("location").unwrap().to_owned();
    assert_eq!(
        place,
        format!("/api/automation/executions/{}", id.as_str().unwrap())
    );
    place
}

fn slow() -> Value {
    json!({"script_name": "slow.py"})
}

#[tokio::test]
async fn who_does_not_wait_is_told_where_to_look() {
    let release = Arc::new(Notify::new());
    let app = held(&release);
    let answer = app.post("/api/automation/manual?wait=0", &slow()).await;
    let data = answer.data_of(StatusCode::ACCEPTED);
    assert_eq!(answer.message(), "Automation accepted, it is running");
    assert_eq!(
        (&data["status"], &data["success"], &data["execution_time"]),
        (&json!("running"), &Value::Null, &Value::Null)
    );
    let place = location(&answer);
    assert_eq!(app.get(&place).await.data()["status"], "running");
    release.notify_one();
    let events = app.get(&format!("{place}/events")).await;
    assert_eq!(events.status, 200);
    let data = app.get(&place).await.data();
    assert_eq!(
        (&data["status"], &data["success"]),
        (&json!("completed"), &json!(true))
    );
}

#[tokio::test]
async fn an_execute_that_takes_longer_than_the_wait_goes_on() {
    let release = Arc::new(Notify::new());
    let app = held(&release);
    let ticket = support::ticket("T-1", "Device Slow");
    let asked = app.post("/api/automation/execute?wait=1", &ticket).await;
    let place = location(&asked);
    assert_eq!(asked.data_of(StatusCode::ACCEPTED)["ticket_id"], "T-1");
    release.notify_one();
    app.get(&format!("{place}/events")).await;
    assert_eq!(app.get(&place).await.data()["execution_type"], "automated");
}

#[tokio::test]
async fn a_run_that_ends_within_the_wait_is_answered_as_ever() {
    let app = App::new();
    for wait in ["30s", "30", "1h"] {
        let path = format!("/api/automation/execute?wait={wait}");
        let ticket = support::ticket("T-1", "Device Slow");
        let answer = app.post(&path, &ticket).await;
        assert_eq!(answer.message(), "Automation completed successfully");
        assert_eq!(answer.data()["success"], true);
        assert_eq!(answer.header("location"), None);
    }
}

#[tokio::test]
async fn a_wait_that_is_none_is_refused_before_anything_runs() {
    let app = App::new();
    for wait in ["", "soon", "-1", "2h", "1.5"] {
        let path = format!("/api/automation/manual?wait={wait}");
        let answer = app.post(&path, &slow()).await;
        answer.error(400, "invalid_request");
        assert_eq!(answer.pointers(), ["/wait"], "{wait}");
    }
    app.post("/api/automation/manual?wait=1&wait=2", &slow())
        .await
        .error(400, "invalid_request");
    let stats = app.get("/api/automation/stats").await.data();
    assert_eq!(stats["total_automations"], 0);
}

#[tokio::test]
async fn an_execution_is_shown_whole() {
    let app = App::new();
    let ran = app.execute("T-1").await.data();
    let id = ran["automation_id"].as_str().unwrap();
    let data = app
        .get(&format!("/api/automation/executions/{id}"))
        .await
        .data();
    for (field, value) in [
        ("id", &ran["automation_id"]),
        ("output", &ran["output"]),
        ("parsed_output", &ran["parsed_output"]),
        ("script_version", &ran["script_version"]),
        ("trigger", &json!("ticket")),
        ("success", &json!(true)),
    ] {
        assert_eq!(&data[field], value, "{field}");
    }
    assert_eq!(data["parameters"]["min_free_space_gb"], 5);
}

#[tokio::test]
async fn what_is_no_execution_is_named() {
    let app = App::new();
    let unknown = "01890000-0000-7000-8000-000000000000";
    for (path, method) in [
        ("", "GET"),
        ("/cancel", "POST"),
        ("/output", "GET"),
        ("/events", "GET"),
    ] {
        for (id, status, code) in [
            (unknown, 404, "execution_not_found"),
            ("1", 400, "invalid_request"),
            ("..%2F", 400, "invalid_request"),
            ("%FF", 400, "invalid_request"),
        ] {
            let path = format!("/api/automation/executions/{id}{path}");
            let request = support::request(method, &path).body(axum::body::Body::empty());
            app.send(request.unwrap()).await.error(status, code);
        }
    }
}

#[tokio::test]
async fn a_cancel_answers_with_what_became_of_the_run() {
    let app = held(&Arc::new(Notify::new()));
    let place = location(&app.post("/api/automation/manual?wait=0", &slow()).await);
    for _ in 0..2 {
        let request = support::request("POST", &format!("{place}/cancel"));
        let answer = app
            .send(request.body(axum::body::Body::empty()).unwrap())
            .await;
        assert_eq!(answer.message(), "Automation cancelled");
        let data = answer.data();
        assert_eq!(
            (&data["status"], &data["reason"]),
            (&json!("cancelled"), &json!("cancelled_by_request"))
        );
    }
}

#[tokio::test]
async fn a_cancel_is_never_told_to_wait() {
    let limit = RateLimit::new(1.try_into().unwrap(), Duration::from_secs(60));
    let app = App::with(config().with_rate_limit(Some(limit)));
    let ran = app.execute("T-1").await.data();
    app.execute("T-1").await.error(429, "quota_exceeded");
    let id = ran["automation_id"].as_str().unwrap();
    let cancelled = app
        .post_text(&format!("/api/automation/executions/{id}/cancel"), "")
        .await;
    assert_eq!(
        cancelled.data()["status"],
        "completed",
        "it had ended by itself"
    );
}

#[tokio::test]
async fn output_is_a_file() {
    let executor = FnExecutor::new(|_: Invocation| async {
        let mut outcome = Outcome::new(Ending::Completed);
        outcome.output.stdout = CapturedText::new("<script>alert('ä')</script>\n{}\n");
        outcome.output.stderr = CapturedText::new("oh\n");
        outcome
    });
    let app = App::running(executor, config());
    let ran = app.execute("T-1").await.data();
    let id = ran["automation_id"].as_str().unwrap();
    let path = format!("/api/automation/executions/{id}/output");
    for (query, name, text) in [
        ("", "stdout", "<script>alert('ä')</script>\n{}\n"),
        (
            "?stream=stdout",
            "stdout",
            "<script>alert('ä')</script>\n{}\n",
        ),
        ("?stream=stderr", "stderr", "oh\n"),
    ] {
        let answer = app.get(&format!("{path}{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, text));
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-output-truncated"), Some("false"));
        let file = format!("attachment; filename=\"{id}.{name}.txt\"");
        assert_eq!(answer.header("content-disposition"), Some(file.as_str()));
    }
    let answer = app.get(&format!("{path}?stream=both")).await;
    answer.error(400, "invalid_request");
    assert_eq!(answer.pointers(), ["/stream"]);
}

#[tokio::test]
async fn output_of_an_open_run_is_a_conflict_and_no_empty_file() {
    let release = Arc::new(Notify::new());
    let app = held(&release);
    let place = location(&app.post("/api/automation/manual?wait=0", &slow()).await);
    app.get(&format!("{place}/output"))
        .await
        .error(409, "conflict");
    release.notify_one();
    app.get(&format!("{place}/events")).await;
    assert_eq!(app.get(&format!("{place}/output")).await.text, "");
}

#[tokio::test]
async fn a_script_is_shown_with_its_source() {
    let app = App::new();
    let data = app
        .get("/api/automation/scripts/disk_cleanup.py")
        .await
        .data();
    assert_eq!(data["source"], support::DISK);
    let list = app.get("/api/automation/scripts").await.data();
    let mut listed = list.as_array().unwrap().iter();
    let listed = listed
        .find(|script| script["script"] == "disk_cleanup.py")
        .unwrap();
    for (field, value) in listed.as_object().unwrap() {
        assert_eq!(&data[field], value, "{field}");
    }
    for name in ["none.py", "..%2Fdisk_cleanup.py", "x"] {
        let answer = app.get(&format!("/api/automation/scripts/{name}")).await;
        answer.error(404, "script_not_found");
    }
}

#[tokio::test]
async fn statistics_have_windows() {
    let clock = Arc::new(ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap()));
    let app = App::with(config().with_clock(clock));
    app.execute("T-1").await.data();
    for (query, since) in [("window=7d", json!("2026-02-23")), ("", Value::Null)] {
        let answer = app.get(&format!("/api/automation/stats?{query}")).await;
        assert_eq!(answer.json()["since"], since);
        assert_eq!(answer.data()["total_automations"], 1);
    }
    for query in ["window=7", "window=0d", "window=1d&since=2026-01-01"] {
        let answer = app.get(&format!("/api/automation/stats?{query}")).await;
        answer.error(400, "invalid_request");
        assert_eq!(answer.pointers(), ["/window"], "{query}");
    }
}

#[tokio::test]
async fn executions_are_listed_across_tickets_newest_first_and_paged() {
    let app = App::new();
    for n in 0..5 {
        app.execute(&format!("T-{n}")).await.data();
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = app
            .get(&format!("/api/automation/executions?limit=2{cursor}"))
            .await;
        let rows = answer.data();
        let tickets = rows.as_array().unwrap().iter();
        seen.extend(tickets.map(|row| row["ticket_id"].as_str().unwrap().to_owned()));
        match answer.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["T-4", "T-3", "T-2", "T-1", "T-0"]);
}

#[tokio::test]
async fn lists_have_bodies_only_when_asked() {
    let app = App::new();
    app.execute("T-1").await.data();
    let rows = app.get("/api/automation/executions").await.data();
    for body in ["output", "stderr", "parsed_output"] {
        assert_eq!(rows[0].get(body), None, "{body}");
    }
    let path = "/api/automation/executions?include=output";
    let rows = app.get(path).await.data();
    assert_eq!(rows[0]["parsed_output"]["space_freed_gb"], 2.5);
}

#[tokio::test]
async fn lists_are_filtered() {
    let app = App::new();
    app.execute("T-1").await.data();
    let failing = support::ticket("T-2", "VPN Issue");
    app.post("/api/automation/execute", &failing).await.data();
    for (query, tickets) in [
        ("status=failed", &["T-2"][..]),
        ("status=failed,completed", &["T-2", "T-1"][..]),
        ("status=running", &[][..]),
        ("script=disk_cleanup.py", &["T-1"][..]),
        ("ticket_id=T-1&status=failed", &[][..]),
        ("ticket_id=T-2", &["T-2"][..]),
        ("actor=nobody", &[][..]),
        ("since=2020-01-01", &["T-2", "T-1"][..]),
        ("until=2020-01-01T00:00:00Z", &[][..]),
        (
            "since=2020-01-01&until=2999-01-01&unknown=1",
            &["T-2", "T-1"][..],
        ),
    ] {
        let path = format!("/api/automation/executions?{query}");
        let rows = app.get(&path).await.data();
        let found = rows.as_array().unwrap().iter();
        let found: Vec<_> = found
            .map(|row| row["ticket_id"].as_str().unwrap())
            .collect();
        assert_eq!(found, tickets, "{query}");
    }
    for (query, pointer) in [
        ("status=gone", "/status"),
        ("since=yesterday", "/since"),
        ("until=1", "/until"),
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("cursor=x", "/cursor"),
        ("include=everything", "/include"),
        ("ticket_id=", "/ticket_id"),
    ] {
        let answer = app
            .get(&format!("/api/automation/executions?{query}"))
            .await;
        answer.error(400, "invalid_request");
        assert_eq!(answer.pointers(), [pointer], "{query}");
    }
}
