//! The `resolutions` table, ours or the customer's. Nothing in it may fail a run.

use automation_core::{Context, PostgresStorage, Status, Storage, Trigger};
use serde_json::json;

use crate::cluster::{SUPERUSER, USER, shared};
use crate::rows::{open, record, ticket_run, value};

/// Opens a storage over a database that was prepared with SQL.
async fn over(sql: &str) -> (String, PostgresStorage) {
    let database = shared().empty();
    shared().sql_as(&database, USER, sql).unwrap();
    let storage = open(&database).await;
    (database, storage)
}

async fn resolutions(database: &str) -> Vec<String> {
    let client = shared().client(database, SUPERUSER).await;
    let sql = "SELECT concat_ws('|', tenant_id, ticket_id, automation_script, automation_output, \
         automation_log_id) FROM resolutions ORDER BY ticket_id";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn expected(ticket: &str, id: impl std::fmt::Display) -> String {
    format!("default|{ticket}|disk_cleanup.py|{{\"freed_gb\": 2.5}}|{id}")
}

#[tokio::test]
async fn a_completed_ticket_run_resolves_its_ticket() {
    let (database, storage) = over("").await;
    let (first, second, other) = (ticket_run("T-1"), ticket_run("T-1"), ticket_run("T-2"));
    for run in [&first, &second, &other] {
        record(&storage, run, Status::Completed).await;
    }
    let found = resolutions(&database).await;
    assert_eq!(
        found,
        [expected("T-1", second.id), expected("T-2", other.id)]
    );
}

#[tokio::test]
async fn what_repeats_a_ticket_run_resolves_its_ticket() {
    let (database, storage) = over("").await;
    let mut run = ticket_run("T-5");
    run.trigger = Trigger::Retry;
    run.context = Some(std::sync::Arc::new(Context::of_ticket(
        json!({"id": "T-5"}),
    )));
    record(&storage, &run, Status::Completed).await;
    assert_eq!(resolutions(&database).await, [expected("T-5", run.id)]);
}

#[tokio::test]
async fn nothing_else_resolves_a_ticket() {
    let (database, storage) = over("").await;
    record(&storage, &ticket_run("T-1"), Status::Failed).await;
    record(&storage, &ticket_run("T-2"), Status::Cancelled).await;
    let mut dry = ticket_run("T-3");
    dry.dry_run = true;
    record(&storage, &dry, Status::Completed).await;
    for trigger in Trigger::ALL
        .iter()
        .filter(|trigger| **trigger != Trigger::Ticket)
    {
        let mut run = ticket_run("T-4");
        run.trigger = *trigger;
        record(&storage, &run, Status::Completed).await;
    }
    assert_eq!(resolutions(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_customers_row_gets_our_columns_and_keeps_its_own() {
    let ticket = "0190a000-0000-7000-8000-000000000001";
    let (database, storage) = over(&format!(
        "CREATE TABLE resolutions (id UUID PRIMARY KEY DEFAULT gen_random_uuid(), ticket_id UUID, note TEXT);
         INSERT INTO resolutions (ticket_id, note) VALUES ('{ticket}', 'call back')"
    ))
    .await;
    let (known, new, no_uuid) = (
        ticket_run(ticket),
        ticket_run("0190a000-0000-7000-8000-000000000002"),
        ticket_run("T-3"),
    );
    for run in [&known, &new, &no_uuid] {
        record(&storage, run, Status::Completed).await;
    }
    let found = resolutions(&database).await;
    assert_eq!(
        found,
        [expected(ticket, known.id), expected(&new.ticket_id, new.id)]
    );
    let client = shared().client(&database, SUPERUSER).await;
    let told = "SELECT string_agg(execution_id::text, ',') FROM automation_events WHERE kind = 'resolution'";
    assert_eq!(value::<String>(&client, told).await, no_uuid.id.to_string());
    let note: String = value(&client, "SELECT string_agg(note, ',') FROM resolutions").await;
    assert_eq!(note, "call back");
}

/// Runs complete over such a table; those of good tickets are resolved.
async fn completes_over(sql: &str, resolved: &[&str]) {
    let (database, storage) = over(sql).await;
    let storage = std::sync::Arc::new(storage);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..12 {
        let storage = std::sync::Arc::clone(&storage);
        let run = ticket_run(["good-1", "bad", "good-2"][n % 3]);
        callers.spawn(async move {
            record(&storage, &run, Status::Completed).await;
            let found = storage.get(&run.tenant_id, run.id).await.unwrap();
            assert_eq!(found.status, Status::Completed);
        });
    }
    callers.join_all().await;
    let client = shared().client(&database, SUPERUSER).await;
    let rows = client
        .query("SELECT DISTINCT ticket_id::text FROM resolutions WHERE automation_log_id IS NOT NULL ORDER BY 1", &[])
        .await;
    let found: Vec<String> = rows.iter().flatten().map(|row| row.get(0)).collect();
    assert_eq!(found, resolved, "{sql}");
    // The last run of each ticket in a round stands for the others, so a refused ticket is told of at least once.
    let told = "SELECT string_agg(DISTINCT data ->> 'ticket_id', ',') FROM automation_events
        WHERE kind = 'resolution' AND seq = 1 AND data ->> 'error' <> ''";
    let told: Option<String> = value(&client, told).await;
    let tickets = ["bad", "good-1", "good-2"];
    let refused: Vec<_> = tickets
        .into_iter()
        .filter(|ticket| !resolved.contains(ticket))
        .collect();
    assert_eq!(told.unwrap_or_default(), refused.join(","), "{sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_refuses_a_row_harms_no_other() {
    let good = ["good-1", "good-2"];
    completes_over(
        "CREATE TABLE resolutions (ticket_id TEXT PRIMARY KEY CHECK (ticket_id <> 'bad'))",
        &good,
    )
    .await;
    completes_over(
        "CREATE TABLE tickets (id TEXT PRIMARY KEY); INSERT INTO tickets VALUES ('good-1'), ('good-2');
         CREATE TABLE resolutions (ticket_id TEXT REFERENCES tickets DEFERRABLE INITIALLY DEFERRED)",
        &good,
    )
    .await;
    completes_over(
        "CREATE TABLE resolutions (ticket_id TEXT, done_by TEXT NOT NULL);
         INSERT INTO resolutions VALUES ('good-1', 'me')",
        &["good-1"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_of_that_name_is_left_alone() {
    completes_over(
        "CREATE VIEW resolutions AS SELECT 'x'::text AS ticket_id, NULL AS automation_log_id",
        &[],
    )
    .await;
    completes_over(
        "CREATE TABLE resolutions (subject TEXT, automation_log_id UUID, ticket_id INTEGER)",
        &[],
    )
    .await;
}

#[tokio::test]
async fn a_table_that_changes_under_us_does_not_fail_runs() {
    let (database, storage) = over("").await;
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    shared().sql(&database, "DROP TABLE resolutions");
    for _ in 0..3 {
        let run = ticket_run("T-1");
        record(&storage, &run, Status::Completed).await;
        let found = storage.get(&run.tenant_id, run.id).await.unwrap();
        assert_eq!(found.status, Status::Completed);
    }
}
