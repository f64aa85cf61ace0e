//! An existing client's whole round against the real server, with the repository's own scripts.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Folder, repository_scripts};

fn assert_fields(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing: {object}");
    }
}

fn assert_timestamp(value: &Value) {
    let text = value.as_str().expect("a time is a text");
    let shape: String = text
        .chars()
        .map(|char| if char.is_ascii_digit() { '0' } else { char })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

/// The body of the owner's document, with parts of a ticket that nobody asked for.
fn ticket(ticket_id: &str) -> Value {
    json!({
        "ticket_id": ticket_id,
        "ticket": {"id": ticket_id, "user_id": "user-uuid", "issue_text": "My computer is running very slow",
                   "category": "device_slow", "priority": "medium", "attachments": []},
        "classification": {"category": "Device Slow", "priority": "medium", "automation_possible": true, "confidence": 0.92},
        "source": "client"
    })
}

#[test]
fn a_client_finds_everything_as_it_was() {
    let folder = Folder::new();
    let server = folder.start(|command| {
        command.arg("--scripts").arg(repository_scripts());
    });
    let client = server.client();
    finds_the_service_and_its_python(&client);
    finds_the_scripts(&client);
    let id = runs_a_ticket(&client);
    reads_the_logs(&client, &id);
    runs_a_script_by_name(&client);
    tests_the_system(&client);
    is_told_what_is_wrong(&client);
    runs_ten_at_once(&client);
    reads_the_statistics(&client);
}

fn finds_the_service_and_its_python(client: &Client) {
    let health = client.get("/health");
    assert_eq!(
        (health.status, &health.body["status"]),
        (200, &json!("healthy"))
    );
    assert_fields(
        &health.body,
        &[
            "status",
            "timestamp",
            "version",
            "service",
            "environment",
            "python_available",
            "python_version",
        ],
    );
    assert_timestamp(&health.body["timestamp"]);
    assert_eq!(
        (
            &health.body["environment"],
            &health.body["python_available"]
        ),
        (&json!("development"), &json!(true))
    );
    let python = client.get("/api/automation/python/check");
    assert_eq!(python.message(), "Python is available");
    let data = python.data();
    assert_fields(
        data,
        &[
            "available",
            "version",
            "workers",
            "quarantined_threads",
            "prefix",
            "build",
        ],
    );
    assert!(
        data["version"].as_str().unwrap().starts_with("Python 3."),
        "{data}"
    );
    assert_eq!(data["version"], health.body["python_version"]);
}

fn finds_the_scripts(client: &Client) {
    let answer = client.get("/api/automation/scripts");
    assert_eq!(answer.body["invalid"], json!([]));
    for (category, name, parameters) in [
        (
            "Device Slow",
            "disk_cleanup.py",
            json!({"min_free_space_gb": "number", "clear_temp": "boolean", "clear_cache": "boolean", "clear_logs": "boolean"}),
        ),
        (
            "VPN Issue",
            "vpn_restart.py",
            json!({"vpn_service": "string", "restart_service": "boolean", "verify_connection": "boolean", "timeout_seconds": "number"}),
        ),
        (
            "Password Reset",
            "password_reset.py",
            json!({"reset_type": "string", "notify_user": "boolean", "force_change": "boolean"}),
        ),
    ] {
        let scripts = answer.data().as_array().unwrap();
        let script = scripts
            .iter()
            .find(|script| script["script"] == name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(script["category"], category);
        assert!(
            script["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        for (parameter, kind) in parameters.as_object().unwrap() {
            assert_eq!(&script["parameters"][parameter], kind, "{name} {parameter}");
        }
    }
}

fn runs_a_ticket(client: &Client) -> String {
    let answer = client.post("execute", &ticket("ticket-uuid"));
    let data = answer.data();
    assert_fields(
        data,
        &[
            "automation_id",
            "ticket_id",
            "script_used",
            "execution_time",
            "success",
            "output",
            "parsed_output",
            "timestamp",
        ],
    );
    assert_fields(
        data,
        &[
            "status",
            "reason",
            "duration_ms",
            "truncated",
            "still_running",
            "exit_code",
            "error",
            "script_version",
        ],
    );
    assert_eq!(
        (&data["ticket_id"], &data["script_used"]),
        (&json!("ticket-uuid"), &json!("disk_cleanup.py"))
    );
    assert_timestamp(&data["timestamp"]);
    assert!(
        data["execution_time"].is_u64() && data["duration_ms"].is_f64(),
        "{data}"
    );
    assert_eq!(
        (&data["success"], &data["status"]),
        (&json!(true), &json!("completed")),
        "{data}"
    );
    assert_eq!(answer.message(), "Automation completed successfully");
    assert!(
        data["parsed_output"]["actions_performed"].is_array(),
        "{data}"
    );
    assert!(
        data["parsed_output"]["space_freed_gb"].is_number(),
        "{data}"
    );
    data["automation_id"].as_str().unwrap().to_owned()
}

fn reads_the_logs(client: &Client, id: &str) {
    let answer = client.get("/api/automation/logs/ticket-uuid");
    assert_eq!(
        answer.message(),
        "Found 1 automation logs for ticket ticket-uuid"
    );
    let row = &answer.data()[0];
    assert_fields(
        row,
        &[
            "id",
            "ticket_id",
            "script_name",
            "status",
            "started_at",
            "completed_at",
            "execution_time",
            "output",
            "success",
            "execution_type",
        ],
    );
    assert_eq!(
        (&row["id"], &row["script_name"], &row["status"]),
        (&json!(id), &json!("disk_cleanup.py"), &json!("completed"))
    );
    assert_eq!(
        (&row["success"], &row["execution_type"]),
        (&json!(true), &json!("automated"))
    );
    assert_timestamp(&row["started_at"]);
    assert_timestamp(&row["completed_at"]);
    client
        .get("/api/automation/logs/unknown")
        .error(404, "ticket_not_found");
}

fn runs_a_script_by_name(client: &Client) {
    let body = json!({
        "script_name": "disk_cleanup.py",
        "parameters": {"min_free_space_gb": 5, "clear_temp": true, "clear_cache": true},
        "ticket_id": "manual-execution-id"
    });
    let answer = client.post("manual", &body);
    assert_eq!(
        (&answer.data()["success"], &answer.data()["ticket_id"]),
        (&json!(true), &json!("manual-execution-id"))
    );
    let rows = client.get("/api/automation/logs/manual-execution-id");
    assert_eq!(rows.data()[0]["execution_type"], "manual");
    assert_eq!(
        rows.data()[0]["parameters"]["clear_logs"],
        true,
        "defaults are filled in"
    );
}

fn tests_the_system(client: &Client) {
    let answer = client.post("test", &json!({}));
    assert_eq!(answer.message(), "Automation test completed");
    assert_fields(
        answer.data(),
        &["script", "execution_time", "success", "output"],
    );
    assert_eq!(answer.data()["success"], true, "{answer:?}");
}

fn is_told_what_is_wrong(client: &Client) {
    let missing = client.post("execute", &json!({"ticket": {}}));
    missing.error(400, "invalid_request");
    assert_eq!(
        missing.body["errors"].as_array().unwrap().len(),
        2,
        "{missing:?}"
    );
    client
        .post("manual", &json!({}))
        .error(400, "invalid_request");
    let mut not_possible = ticket("ticket-uuid");
    not_possible["classification"]["automation_possible"] = json!(false);
    client
        .post("execute", &not_possible)
        .error(422, "automation_not_possible");
    client
        .post("manual", &json!({"script_name": "none.py"}))
        .error(404, "script_not_found");
    let wrong = json!({"script_name": "disk_cleanup.py", "parameters": {"clear_temp": "yes"}});
    client
        .post("manual", &wrong)
        .error(422, "invalid_parameters");
    client
        .get("/api/automation/nothing")
        .error(404, "route_not_found");
    client
        .get("/api/automation/execute")
        .error(405, "method_not_allowed");
}

fn runs_ten_at_once(client: &Client) {
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..10)
            .map(|run| {
                scope.spawn(move || client.post("execute", &ticket(&format!("parallel-{run}"))))
            })
            .collect();
        for (run, answer) in runs
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .enumerate()
        {
            assert_eq!(answer.data()["ticket_id"], format!("parallel-{run}"));
            assert_eq!(answer.data()["success"], true, "{answer:?}");
        }
    });
}

fn reads_the_statistics(client: &Client) {
    let answer = client.get("/api/automation/stats");
    let stats = answer.data();
    assert_eq!(
        (
            &stats["total_automations"],
            &stats["successful_automations"],
            &stats["failed_automations"]
        ),
        (&json!(12), &json!(12), &json!(0))
    );
    assert_eq!(stats["success_rate"], "100.00");
    assert!(
        stats["avg_execution_time"]
            .as_str()
            .unwrap()
            .parse::<f64>()
            .is_ok(),
        "{stats}"
    );
    assert_eq!(stats["by_script"], json!({"disk_cleanup.py": 12}));
    assert_eq!(stats["recent_automations"].as_array().unwrap().len(), 10);
    assert_fields(
        stats,
        &["percentiles", "cpu", "memory", "cancelled", "running"],
    );
}
