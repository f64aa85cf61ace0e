//! What monitors read: metrics, and whether the server lives and is ready.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::{App, ticket};

/// Returns the value of a sample.
fn value(page: &str, sample: &str) -> Option<f64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(sample);
        rest.is_some_and(|rest| rest.starts_with(' '))
    });
    line?.rsplit_once(' ')?.1.parse().ok()
}

async fn ran() -> App {
    let app = App::new();
    for _ in 0..3 {
        app.execute("T-1").await.data();
    }
    app.post("/api/automation/execute", &ticket("T-2", "VPN Issue"))
        .await
        .data();
    app
}

#[tokio::test]
async fn what_ran_is_counted() {
    let answer = ran().await.get("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let page = &answer.text;
    for (sample, expected) in [
        (
            r#"automation_runs_total{script="disk_cleanup.py",status="completed",reason=""}"#,
            3.0,
        ),
        (
            r#"automation_runs_total{script="vpn_restart.py",status="failed",reason="exit_code"}"#,
            1.0,
        ),
        (
            r#"automation_run_duration_seconds_bucket{script="disk_cleanup.py",le="+Inf"}"#,
            3.0,
        ),
        (
            r#"automation_run_duration_seconds_count{script="disk_cleanup.py"}"#,
            3.0,
        ),
        (
            r#"automation_run_cpu_seconds_total{script="disk_cleanup.py"}"#,
            0.0045,
        ),
        (
            r#"automation_run_queue_seconds_total{script="disk_cleanup.py"}"#,
            0.0045,
        ),
        (
            r#"automation_run_memory_peak_bytes{script="disk_cleanup.py"}"#,
            4096.0,
        ),
        ("automation_ready", 1.0),
        ("automation_running", 0.0),
        ("automation_queued", 0.0),
        ("automation_oldest_run_seconds", 0.0),
        ("automation_event_streams", 0.0),
    ] {
        assert_eq!(value(page, sample), Some(expected), "{sample}: {page}");
    }
}

#[tokio::test]
async fn what_goes_on_is_seen() {
    let app = App::new();
    let body = json!({"script_name": "slow.py"});
    app.post("/api/automation/manual?wait=0", &body).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let page = app.get("/metrics").await.text;
    assert_eq!(value(&page, "automation_running"), Some(1.0));
    assert!(
        value(&page, "automation_oldest_run_seconds").is_some_and(|age| age >= 0.01),
        "{page}"
    );
}

#[tokio::test]
async fn every_sample_has_its_help_and_type() {
    let page = ran().await.get("/metrics").await.text;
    let mut family = "";
    for line in page.lines() {
        match line.strip_prefix("# HELP ") {
            Some(help) => family = help.split_once(' ').map_or("", |(name, _)| name),
            None => {
                let name = line.strip_prefix("# TYPE ").unwrap_or(line);
                assert!(!family.is_empty() && name.starts_with(family), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn the_dashboard_shows_metrics_that_exist() {
    let dashboard = include_str!("../../examples/server/deploy/grafana-dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut named = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().expect("a target has an expression");
        let words = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        named.extend(words.filter(|word| word.starts_with("automation_")));
    }
    assert!(named.len() >= 10, "{named:?}");
    let page = ran().await.get("/metrics").await.text;
    for name in named {
        let sample = |line: &str| {
            line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"))
        };
        assert!(page.lines().any(sample), "{name}");
    }
}

#[tokio::test]
async fn a_server_is_live_and_ready_and_says_why_it_is_not() {
    let app = App::new();
    assert_eq!(
        app.get("/health/live").await.json(),
        json!({"status": "live"})
    );
    let ready = app.get("/health/ready").await;
    assert_eq!(ready.json(), json!({"status": "ready", "causes": []}));
    app.automation
        .shutdown(Duration::ZERO)
        .await
        .expect("nothing runs");
    let ready = app.get("/health/ready").await;
    assert_eq!(ready.status, 503);
    let causes = ready.json()["causes"].clone();
    assert_eq!(causes[0], "the engine is shut down", "{causes}");
    assert_eq!(app.get("/health/live").await.status, 200);
}
