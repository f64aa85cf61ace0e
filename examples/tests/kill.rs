//! Kills the server with runs in flight, again and again, and holds what it promised against two ledgers: the
//! client's, of what was acknowledged, and the scripts' own, of what really happened.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Folder};

/// Kills by default; `SERVER_KILLS` says otherwise.
const KILLS: u64 = 25;
const CLIENTS: u64 = 8;
/// Time in which everything open is terminal after a start, on a storage that is ours alone.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

/// Time in which a server that is not killed yet has answered a few short runs.
const ANSWERS_MAX: Duration = Duration::from_secs(60);

/// Writes its beginning and its end into the ledger, each with one atomic append.
const EFFECTS: &str = r#"# /// script
# [tool.automation]
# description = "Leaves traces"
# [tool.automation.parameters.ledger]
# type = "string"
# required = true
# [tool.automation.parameters.milliseconds]
# type = "integer"
# required = true
# ///
import json, os, sys, time

from automation import ctx

parameters = json.loads(sys.argv[1])


def note(phase):
    ledger = os.open(parameters["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(ledger, f"{ctx.execution_id} {phase}\n".encode())
    finally:
        os.close(ledger)


note("begin")
time.sleep(parameters["milliseconds"] / 1000)
note("end")
print(json.dumps({"execution_id": str(ctx.execution_id)}))
"#;

/// What a client was told of a run: its ticket, and the whole answer.
type Acknowledged = Mutex<HashMap<String, Value>>;

/// One row of the log.
#[derive(Debug)]
struct Row {
    id: String,
    ticket_id: String,
    status: String,
    reason: Option<String>,
    success: Option<bool>,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_runs_twice() {
    let folder = Folder::new();
    folder.write("scripts/effects.py", EFFECTS);
    let acknowledged = Acknowledged::default();
    let sent = AtomicU64::new(0);
    let kills = kills();
    for round in 0..kills {
        let server = folder.start(|_| {});
        let client = server.client();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| ask_until_killed(&client, &folder, &sent, &acknowledged, &stop));
            }
            // As many answers later as the round says, so that kills meet young and old servers.
            wait_for_answers(&acknowledged, 1 + round * 7 % 40);
            server.kill();
            stop.store(true, Ordering::Release);
        });
    }
    let server = folder.start(|_| {});
    let client = server.client();
    wait_until_nothing_is_open(&client);
    let stats = client.get("/api/automation/stats").data().clone();
    let told = acknowledged.into_inner().unwrap();
    check_acknowledged(&client, &told);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(Duration::from_secs(20)).0.code(), Some(0));

    let rows = read_rows(&folder.path("automation.db"));
    let effects = read_effects(&folder.path("ledger"));
    check_effects(&rows, &effects);
    check_statistics(&rows, &stats);
    let orphaned = rows
        .iter()
        .filter(|row| row.reason.as_deref() == Some("orphaned"))
        .count();
    println!(
        "{kills} kills: {} sent, {} recorded, {} acknowledged, {orphaned} orphaned",
        sent.into_inner(),
        rows.len(),
        told.len()
    );
    assert!(orphaned > 0, "the kills met no runs");
}

#[expect(clippy::disallowed_methods, reason = "a test is no library")]
fn kills() -> u64 {
    std::env::var("SERVER_KILLS").map_or(KILLS, |text| text.parse().unwrap())
}

fn ask_until_killed(
    client: &Client,
    folder: &Folder,
    sent: &AtomicU64,
    acknowledged: &Acknowledged,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let run = sent.fetch_add(1, Ordering::Relaxed);
        let ticket_id = format!("kill-{run}");
        let parameters = json!({"ledger": folder.path("ledger"), "milliseconds": run % 40});
        let body =
            json!({"script_name": "effects.py", "parameters": parameters, "ticket_id": ticket_id});
        let Ok(answer) = client.try_post("manual", &body) else {
            return;
        };
        acknowledged
            .lock()
            .unwrap()
            .insert(ticket_id, answer.data().clone());
    }
}

/// Waits until this many further runs are acknowledged.
fn wait_for_answers(acknowledged: &Acknowledged, further: u64) {
    let count = || acknowledged.lock().unwrap().len() as u64;
    let (wanted, began) = (count() + further, Instant::now());
    while count() < wanted {
        assert!(began.elapsed() < ANSWERS_MAX, "the server does not answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until_nothing_is_open(client: &Client) {
    let began = Instant::now();
    while client.get("/api/automation/stats").data()["running"] != 0 {
        assert!(began.elapsed() < RECOVERY_MAX, "runs stay open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a client was told is what the log says, for ever.
fn check_acknowledged(client: &Client, told: &HashMap<String, Value>) {
    for (ticket_id, answer) in told {
        let rows = client.get(&format!("/api/automation/logs/{ticket_id}"));
        let [row] = &rows.data().as_array().unwrap()[..] else {
            panic!("{ticket_id} has not one row: {rows:?}")
        };
        assert_eq!(row["id"], answer["automation_id"]);
        for field in [
            "status",
            "success",
            "output",
            "parsed_output",
            "duration_ms",
            "exit_code",
            "completed_at",
        ] {
            assert_eq!(row[field], answer[field], "{field} of {ticket_id}");
        }
        assert_eq!(
            row["parsed_output"]["execution_id"],
            answer["automation_id"]
        );
    }
}

fn read_rows(database: &Path) -> Vec<Row> {
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT id, ticket_id, status, reason, success FROM automation_logs";
    let mut statement = connection.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            id: row.get(0)?,
            ticket_id: row.get(1)?,
            status: row.get(2)?,
            reason: row.get(3)?,
            success: row.get(4)?,
        })
    };
    statement
        .query_map([], row)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// Returns how often each run began and ended. A line is written whole or not at all.
fn read_effects(ledger: &Path) -> BTreeMap<String, (u32, u32)> {
    let mut effects = BTreeMap::<String, (u32, u32)>::new();
    for line in std::fs::read_to_string(ledger).unwrap().lines() {
        let (id, phase) = line.split_once(' ').unwrap();
        let (begun, ended) = effects.entry(id.to_owned()).or_default();
        match phase {
            "begin" => *begun += 1,
            "end" => *ended += 1,
            other => panic!("{other:?} is no phase"),
        }
    }
    effects
}

fn check_effects(rows: &[Row], effects: &BTreeMap<String, (u32, u32)>) {
    let ids: BTreeSet<_> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands twice in the log");
    let tickets: BTreeSet<_> = rows.iter().map(|row| row.ticket_id.as_str()).collect();
    assert_eq!(tickets.len(), rows.len(), "a request was recorded twice");
    for (id, (begun, ended)) in effects {
        assert!(ids.contains(id.as_str()), "{id} ran without a row");
        assert!(
            *begun == 1 && *ended <= 1,
            "{id} began {begun} times and ended {ended} times"
        );
    }
    for row in rows {
        let happened = effects.get(&row.id).copied().unwrap_or_default();
        let allowed = match (row.status.as_str(), row.reason.as_deref()) {
            ("completed", None) => happened == (1, 1),
            ("failed", Some("not_started")) => happened == (0, 0),
            ("failed", Some("orphaned")) => true,
            _ => false,
        };
        assert!(allowed, "{row:?} happened {happened:?}");
        assert_eq!(row.success, Some(row.status == "completed"), "{row:?}");
    }
}

fn check_statistics(rows: &[Row], stats: &Value) {
    let count = |status: &str| rows.iter().filter(|row| row.status == status).count();
    assert_eq!(stats["total_automations"], rows.len());
    assert_eq!(stats["successful_automations"], count("completed"));
    assert_eq!(stats["failed_automations"], count("failed"));
    assert_eq!(stats["by_script"], json!({"effects.py": rows.len()}));
}
