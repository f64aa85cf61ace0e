//! Every route, every field and every message of the interface, as existing clients read them.
#![expect(
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use serde_json::{Value, json};
use support::{App, ticket};

/// Fields that stand in every answer about a run.
const FACTS: [&str; 25] = [
    "status",
    "reason",
    "error",
    "execution_type",
    "execution_time",
    "duration_ms",
    "queue_ms",
    "cpu_ms",
    "memory_peak_bytes",
    "children",
    "threads",
    "isolation",
    "concern",
    "exit_code",
    "still_running",
    "truncated",
    "output_bytes",
    "script_version",
    "dry_run",
    "attempt",
    "root_id",
    "parent_id",
    "run_at",
    "started_at",
    "completed_at",
];

fn assert_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing: {object}");
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
fn assert_timestamp(value: &Value) {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a time"));
    let shape: String = text
        .chars()
        .map(|char| if char.is_ascii_digit() { '0' } else { char })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

#[tokio::test]
async fn execute_answers_as_documented() {
    let app = App::new();
    let answer = app.execute("ticket-uuid").await;
    assert_eq!(answer.message(), "Automation completed successfully");
    let data = answer.data();
    assert_eq!(data["ticket_id"], "ticket-uuid");
    assert_eq!(data["script_used"], "disk_cleanup.py");
    assert_eq!(data["success"], true);
    assert!(data["execution_time"].is_u64(), "{data}");
    assert!(data["duration_ms"].is_f64(), "{data}");
    assert!(data["output"].as_str().unwrap().starts_with("cleaning\n"));
    assert_eq!(data["parsed_output"]["space_freed_gb"], 2.5);
    assert_timestamp(&data["timestamp"]);
    assert_fields(&data, &FACTS);
    assert_eq!(
        (&data["status"], &data["exit_code"], &data["still_running"]),
        (&json!("completed"), &json!(0), &json!(false))
    );
    assert_eq!(
        (&data["execution_type"], &data["cpu_ms"]),
        (&json!("automated"), &json!(1.5))
    );
    let id = data["automation_id"]
        .as_str()
        .unwrap()
        .parse()
        .expect("an id of ours");
    assert_eq!(
        app.automation.get(id).await.unwrap().ticket_id,
        "ticket-uuid"
    );
}

#[tokio::test]
async fn the_documents_shortest_ticket_runs() {
    let body = json!({
        "ticket_id": "test-ticket",
        "ticket": {"issue_text": "Computer is slow"},
        "classification": {"category": "Device Slow", "automation_possible": true}
    });
    let data = App::new()
        .post("/api/automation/execute", &body)
        .await
        .data();
    assert_eq!(
        (&data["ticket_id"], &data["success"]),
        (&json!("test-ticket"), &json!(true))
    );
}

#[tokio::test]
async fn a_failed_script_is_an_answer_and_not_an_error() {
    let answer = App::new()
        .post("/api/automation/execute", &ticket("T-1", "VPN Issue"))
        .await;
    assert_eq!(answer.message(), "Automation failed: exited with code 3");
    let data = answer.data();
    assert_eq!(
        (&data["success"], &data["status"], &data["reason"]),
        (&json!(false), &json!("failed"), &json!("exit_code"))
    );
    assert_eq!(
        (&data["exit_code"], &data["stderr"]),
        (&json!(3), &json!("no such service\n"))
    );
    assert_eq!(data["parsed_output"], Value::Null);
}

#[tokio::test]
async fn manual_answers_as_execute_does() {
    let app = App::new();
    let body = json!({
        "script_name": "disk_cleanup.py",
        "parameters": {"min_free_space_gb": 7, "clear_temp": true},
        "ticket_id": "manual-execution-id"
    });
    let answer = app.post("/api/automation/manual", &body).await;
    assert_eq!(answer.message(), "Automation completed successfully");
    let data = answer.data();
    assert_fields(
        &data,
        &[
            "automation_id",
            "ticket_id",
            "script_used",
            "success",
            "output",
            "parsed_output",
            "timestamp",
        ],
    );
    assert_fields(&data, &FACTS);
    assert_eq!(
        (&data["ticket_id"], &data["execution_type"]),
        (&json!("manual-execution-id"), &json!("manual"))
    );
    let rows = app
        .get("/api/automation/logs/manual-execution-id")
        .await
        .data();
    assert_eq!(
        rows[0]["parameters"],
        json!({"min_free_space_gb": 7, "clear_temp": true, "dry_run": false})
    );
}

#[tokio::test]
async fn a_run_without_a_ticket_has_its_own_id_as_ticket() {
    let app = App::new();
    let data = app
        .post(
            "/api/automation/manual",
            &json!({"script_name": "disk_cleanup.py"}),
        )
        .await
        .data();
    assert_eq!(data["ticket_id"], data["automation_id"]);
    let data = app
        .post("/api/automation/manual", &json!({"script_name": "slow.py"}))
        .await
        .data();
    assert_eq!(
        data["execution_time"], 1,
        "half a second is rounded up: {data}"
    );
}

#[tokio::test]
async fn a_cancelled_run_is_said_to_be_cancelled() {
    let answer = App::new()
        .post(
            "/api/automation/manual",
            &json!({"script_name": "cancelled.py"}),
        )
        .await;
    assert_eq!(answer.message(), "Automation cancelled");
    let data = answer.data();
    assert_eq!(
        (&data["success"], &data["status"]),
        (&json!(false), &json!("cancelled"))
    );
}

#[tokio::test]
async fn a_dry_run_can_be_asked_for() {
    let app = App::new();
    let data = app
        .post(
            "/api/automation/manual",
            &json!({"script_name": "disk_cleanup.py", "dry_run": true}),
        )
        .await
        .data();
    assert_eq!(data["dry_run"], true);
}

#[tokio::test]
async fn test_is_a_dry_run_through_the_whole_path() {
    let app = App::new();
    for body in [
        String::new(),
        "{}".to_owned(),
        json!({"script_name": "disk_cleanup.py"}).to_string(),
    ] {
        let answer = app.post_text("/api/automation/test", body).await;
        assert_eq!(answer.message(), "Automation test completed");
        let data = answer.data();
        assert_fields(
            &data,
            &[
                "script",
                "success",
                "output",
                "automation_id",
                "parsed_output",
            ],
        );
        assert_fields(&data, &FACTS);
        assert_eq!(
            (&data["script"], &data["dry_run"], &data["execution_type"]),
            (&json!("disk_cleanup.py"), &json!(true), &json!("test"))
        );
    }
    let stats = app.get("/api/automation/stats").await.data();
    assert_eq!(stats["total_automations"], 0, "tests are not counted");
}

#[tokio::test]
async fn test_needs_no_content_type_without_a_body() {
    let request = support::request("POST", "/api/automation/test")
        .body(Body::empty())
        .unwrap();
    assert_eq!(App::new().send(request).await.data()["success"], true);
}

#[tokio::test]
async fn logs_answer_as_documented_newest_first() {
    let app = App::new();
    app.execute("T-1").await.data();
    app.post("/api/automation/execute", &ticket("T-1", "VPN Issue"))
        .await
        .data();
    app.execute("T-2").await.data();
    let answer = app.get("/api/automation/logs/T-1").await;
    assert_eq!(answer.message(), "Found 2 automation logs for ticket T-1");
    let rows = answer.data();
    let scripts: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["script_name"].as_str().unwrap())
        .collect();
    assert_eq!(scripts, ["vpn_restart.py", "disk_cleanup.py"]);
    for row in rows.as_array().unwrap() {
        assert_fields(
            row,
            &[
                "id",
                "ticket_id",
                "script_name",
                "output",
                "success",
                "parameters",
                "parsed_output",
                "stderr",
                "actor",
            ],
        );
        assert_fields(row, &FACTS);
        assert_timestamp(&row["started_at"]);
        assert_timestamp(&row["completed_at"]);
        assert!(row["execution_time"].is_u64(), "{row}");
        assert_eq!(row["execution_type"], "automated");
    }
    assert_eq!(
        (&rows[0]["status"], &rows[0]["success"]),
        (&json!("failed"), &json!(false))
    );
    assert_eq!(
        (&rows[1]["status"], &rows[1]["success"], &rows[1]["error"]),
        (&json!("completed"), &json!(true), &Value::Null)
    );
    app.get("/api/automation/logs/T-9")
        .await
        .error(404, "ticket_not_found");
}

#[tokio::test]
async fn logs_are_paged_and_filtered() {
    let app = App::new();
    for _ in 0..5 {
        app.execute("T-1").await.data();
    }
    app.post("/api/automation/execute", &ticket("T-1", "VPN Issue"))
        .await
        .data();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = app
            .get(&format!("/api/automation/logs/T-1?limit=4{cursor}"))
            .await;
        let rows = answer.data();
        seen.extend(
            rows.as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match answer.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (6, 6), "each once");
    for (filter, rows) in [
        ("status=failed", 1),
        ("status=failed,completed", 6),
        ("script=disk_cleanup.py", 5),
        ("script=none.py", 0),
    ] {
        let answer = app.get(&format!("/api/automation/logs/T-1?{filter}")).await;
        assert_eq!(answer.data().as_array().unwrap().len(), rows, "{filter}");
    }
}

#[tokio::test]
async fn stats_answer_as_documented() {
    let app = App::new();
    let empty = app.get("/api/automation/stats").await.data();
    assert_eq!(
        (&empty["success_rate"], &empty["avg_execution_time"]),
        (&json!("0.00"), &json!("0.00"))
    );
    assert_eq!(
        (&empty["by_script"], &empty["recent_automations"]),
        (&json!({}), &json!([]))
    );
    for _ in 0..2 {
        app.execute("T-1").await.data();
    }
    app.post("/api/automation/execute", &ticket("T-2", "VPN Issue"))
        .await
        .data();
    let stats = app.get("/api/automation/stats").await.data();
    assert_eq!(stats["total_automations"], 3);
    assert_eq!(stats["successful_automations"], 2);
    assert_eq!(stats["failed_automations"], 1);
    assert_eq!(stats["success_rate"], "66.67");
    assert_eq!(stats["avg_execution_time"], "0.00");
    assert_eq!(
        stats["by_script"],
        json!({"disk_cleanup.py": 2, "vpn_restart.py": 1})
    );
    assert_eq!(
        (&stats["cancelled"], &stats["running"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(stats["cpu"], json!({"total_ms": 3.0, "avg_ms": 1.0}));
    assert_eq!(stats["memory"], json!({"peak_bytes": 4096}));
    assert_eq!(
        (&stats["children"], &stats["threads"]),
        (&json!(4), &json!(2))
    );
    assert_eq!(stats["queue"], json!({"total_ms": 3.0, "avg_ms": 1.0}));
    for fields in [&stats, &stats["scripts"]["disk_cleanup.py"]] {
        assert_fields(
            fields,
            &[
                "queue",
                "output_bytes",
                "children",
                "threads",
                "cpu",
                "memory",
            ],
        );
    }
    assert_fields(
        &stats["percentiles"],
        &["p50_ms", "p90_ms", "p95_ms", "p99_ms"],
    );
    assert_eq!(stats["scripts"]["vpn_restart.py"]["success_rate"], "0.00");
    let recent = stats["recent_automations"].as_array().unwrap();
    assert_eq!(recent.len(), 3);
    let bytes = recent
        .iter()
        .map(|run| run["output_bytes"].as_u64().unwrap());
    assert_eq!(stats["output_bytes"], json!(bytes.sum::<u64>()));
    assert_ne!(stats["output_bytes"], json!(0));
    assert_eq!(
        (&recent[0]["script_name"], &recent[0]["output"]),
        (&json!("vpn_restart.py"), &json!(""))
    );
    let one = app
        .get("/api/automation/stats?script=vpn_restart.py")
        .await
        .data();
    assert_eq!(one["total_automations"], 1);
    let later = app
        .get("/api/automation/stats?since=2999-01-01")
        .await
        .data();
    assert_eq!(later["total_automations"], 0);
}

#[tokio::test]
async fn recent_automations_are_the_ten_newest() {
    let app = App::new();
    for run in 0..12 {
        app.execute(&format!("T-{run}")).await.data();
    }
    let stats = app.get("/api/automation/stats").await.data();
    let tickets: Vec<_> = stats["recent_automations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["ticket_id"].clone())
        .collect();
    assert_eq!(
        tickets,
        (2..12)
            .rev()
            .map(|run| json!(format!("T-{run}")))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn scripts_answer_as_documented() {
    let answer = App::new().get("/api/automation/scripts").await;
    assert_eq!(answer.message(), "Found 5 automation scripts");
    assert_eq!(answer.json()["invalid"], json!([]));
    let scripts = answer.data();
    let disk = scripts
        .as_array()
        .unwrap()
        .iter()
        .find(|script| script["script"] == "disk_cleanup.py")
        .unwrap();
    assert_eq!(disk["category"], "Device Slow");
    assert_eq!(disk["description"], "Disk cleanup and optimization");
    assert_eq!(
        disk["parameters"],
        json!({"min_free_space_gb": "number", "clear_temp": "boolean", "dry_run": "boolean"})
    );
    assert_eq!(
        disk["defaults"],
        json!({"min_free_space_gb": 5, "clear_temp": true, "dry_run": false})
    );
    assert_eq!(disk["schema"]["additionalProperties"], false);
    assert_eq!(
        disk["limits"],
        json!({
            "timeout_seconds": 120.0, "cpu_seconds": 2.5, "memory_mb": 256, "output_kib": 64, "children_max": 3
        })
    );
    assert_eq!(disk["deny"], json!(["network", "native"]));
    assert_eq!(
        disk["output_schema"],
        json!({"required": ["space_freed_gb"]})
    );
    assert_eq!(disk["quarantine"], Value::Null);
    let slow = scripts
        .as_array()
        .unwrap()
        .iter()
        .find(|script| script["script"] == "slow.py")
        .unwrap();
    assert_eq!(
        slow["limits"],
        json!({
            "timeout_seconds": 300.0, "cpu_seconds": null, "memory_mb": 512, "output_kib": 1024, "children_max": null
        })
    );
    assert_eq!(
        (&slow["deny"], &slow["output_schema"]),
        (&json!([]), &Value::Null)
    );
    assert_eq!(disk["version"].as_str().unwrap().len(), 64);
    assert_fields(disk, &["isolation", "risk", "idempotent", "warnings"]);
}

#[tokio::test]
async fn python_check_answers_as_documented() {
    let answer = App::new().get("/api/automation/python/check").await;
    assert_eq!(answer.message(), "Python is available");
    let data = answer.data();
    assert_eq!(data["available"], true);
    assert_fields(
        &data,
        &["version", "workers", "busy", "quarantined_threads"],
    );
}

#[tokio::test]
async fn health_has_no_envelope() {
    let app = App::new();
    for path in ["/health", "/api/health"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 200);
        let health = answer.json();
        assert_fields(&health, &["version", "python_version"]);
        assert_eq!(health["quarantined"], 0);
        assert_eq!(
            (&health["status"], &health["service"]),
            (&json!("healthy"), &json!("automation-executor"))
        );
        assert_eq!(
            (&health["environment"], &health["python_available"]),
            (&json!("production"), &json!(true))
        );
        assert_timestamp(&health["timestamp"]);
        assert!(
            health.get("success").is_none() && health.get("data").is_none(),
            "{health}"
        );
    }
    app.automation
        .shutdown(std::time::Duration::ZERO)
        .await
        .unwrap();
    let answer = app.get("/health").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["status"]),
        (503, &json!("unhealthy"))
    );
}

#[tokio::test]
async fn a_source_is_validated_and_not_kept() {
    let app = App::new();
    let before = app.get("/api/automation/scripts").await.message();
    let validate = async |body: Value| app.post("/api/automation/scripts/validate", &body).await;
    let source = "# /// script\n# [tool.automation]\n# category = \"New\"\n# parameters.a = { type = \"integer\" }\n# ///\n";
    let answer = validate(json!({ "name": "new.py", "source": source })).await;
    assert_eq!(answer.message(), "Script new.py can run");
    assert_eq!(answer.data()["valid"], true);
    assert_eq!(answer.data()["script"]["category"], "New");
    assert_eq!(
        answer.data()["script"]["parameters"],
        json!({ "a": "integer" })
    );
    let answer = validate(json!({ "source": "# /// script\n# a = 1\n# ///\n" })).await;
    assert_eq!(
        (answer.status.as_u16(), answer.message()),
        (200, "Script script.py can't run".to_owned())
    );
    assert_eq!(answer.data()["script"], Value::Null);
    let found = &answer.data()["diagnostics"][0];
    assert_eq!(
        (&found["severity"], &found["line"], &found["column"]),
        (&json!("error"), &json!(2), &json!(3))
    );
    let answer = validate(json!({ "name": "../x.py", "source": "" })).await;
    assert_eq!(answer.data()["valid"], false);
    assert_eq!(validate(json!({ "name": "x.py" })).await.status, 400);
    let scripts = app.get("/api/automation/scripts").await;
    assert_eq!(scripts.message(), before);
}

#[tokio::test]
async fn every_listed_route_is_served() {
    let app = App::new();
    let id = app.execute("T-1").await.data()["automation_id"].clone();
    for (method, path) in automation_http::routes() {
        let path = path
            .replace("{ticket_id}", "T-1")
            .replace("{id}", id.as_str().unwrap())
            .replace("{name}", "slow.py");
        let answer = app
            .send(
                support::request(method.as_str(), &path)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        assert!(
            !answer.text.contains("route_not_found"),
            "{method} {path}: {answer:?}"
        );
        assert_ne!(answer.status, 405, "{method} {path}");
    }
}

#[tokio::test]
async fn ticket_ids_need_not_be_uuids_and_may_be_percent_encoded() {
    let app = App::new();
    for (id, in_path) in [
        ("test-ticket", "test-ticket"),
        ("T 1", "T%201"),
        ("a/b", "a%2Fb"),
        ("../etc/passwd", "..%2Fetc%2Fpasswd"),
        ("50%", "50%25"),
        ("%2e%2e", "%252e%252e"),
        ("票-1", "%E7%A5%A8-1"),
        ("a?b#c", "a%3Fb%23c"),
        (
            "'; DROP TABLE automation_logs; --",
            "%27;%20DROP%20TABLE%20automation_logs;%20--",
        ),
        ("<script>", "%3Cscript%3E"),
    ] {
        assert_eq!(app.execute(id).await.data()["ticket_id"], id);
        let rows = app
            .get(&format!("/api/automation/logs/{in_path}"))
            .await
            .data();
        assert_eq!(
            (rows.as_array().unwrap().len(), &rows[0]["ticket_id"]),
            (1, &json!(id)),
            "{id}"
        );
    }
}

#[tokio::test]
async fn what_clients_of_express_do_still_works() {
    let app = App::new();
    let mut body = support::ticket("T-1", "Device Slow");
    body["ticket"]["id"] = json!(null);
    let answer = app.post("/api/automation/execute/", &body).await;
    assert_eq!(answer.data()["ticket_id"], "T-1");
    assert_eq!(answer.header("content-type"), Some(support::JSON));
    let marked = format!("\u{feff}{body}");
    let answer = app.post_text("/api/automation/execute", marked).await;
    assert_eq!(answer.data()["ticket_id"], "T-1");
    for path in ["logs/T-1/", "stats/", "scripts/", "python/check/"] {
        app.get(&format!("/api/automation/{path}")).await.data();
    }
    assert_eq!(
        app.get("/health/").await.header("content-type"),
        Some(support::JSON)
    );
}

/// A body that does not know in advance that it is empty, as one in chunks.
struct EmptyChunks;

impl hyper::body::Body for EmptyChunks {
    type Data = hyper::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[tokio::test]
async fn a_test_in_chunks_may_have_no_body() {
    let request = support::request("POST", "/api/automation/test");
    let request = request.body(Body::new(EmptyChunks)).unwrap();
    assert_eq!(App::new().send(request).await.data()["success"], true);
}
