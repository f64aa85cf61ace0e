//! The tables: made, brought up to date from the original ones, and refused.

use automation_core::storage::{ExecutionQuery, StorageError};
use automation_core::{
    Histogram, Page, PostgresStorage, StatsQuery, Status, Storage, TenantId, Trigger,
};

use crate::cluster::{SUPERUSER, USER, shared};
use crate::rows::{insert, one, open, record, ticket_run, value};

const ORIGINAL: &str = include_str!("original.sql");

#[tokio::test]
async fn the_file_and_the_migrations_make_the_same_tables() {
    let (pasted, migrated, twice) = (shared().empty(), shared().empty(), shared().empty());
    shared()
        .sql_as(&pasted, USER, PostgresStorage::schema())
        .unwrap();
    open(&migrated).await.close().await.unwrap();
    for _ in 0..2 {
        shared()
            .sql_as(&twice, USER, PostgresStorage::schema())
            .unwrap();
        open(&twice).await.close().await.unwrap();
    }
    let expected = shared().dump(&pasted);
    assert!(
        expected
            .contains("CREATE POLICY automation_bounds ON public.automation_logs AS RESTRICTIVE")
    );
    assert_eq!(shared().dump(&migrated), expected);
    assert_eq!(shared().dump(&twice), expected);
}

#[tokio::test]
async fn the_original_tables_are_brought_up_to_date_with_what_hangs_on_them() {
    let (original, fresh) = (shared().empty(), shared().database());
    shared().sql_as(&original, USER, ORIGINAL).unwrap();
    let storage = open(&original).await;

    let drop_theirs =
        "DROP VIEW tickets_automated CASCADE; DROP POLICY everybody_reads ON automation_logs;
        DROP POLICY known_scripts ON automation_stats; DROP TABLE resolutions";
    let client = shared().client(&original, SUPERUSER).await;
    let theirs = "SELECT (SELECT count(*) FROM tickets_hard) + 1000 * (SELECT count(*) FROM tickets_automated)
        + 1000000 * (SELECT count(*) FROM pg_policies WHERE policyname IN ('everybody_reads', 'known_scripts'))";
    assert_eq!(
        value::<i64>(&client, theirs).await,
        2_000_000 + 1000 * 502 + 498
    );
    let dressed = "SELECT obj_description('tickets_hard'::regclass) || reloptions::text
        || has_table_privilege('anon', 'tickets_hard', 'SELECT') FROM pg_class WHERE relname = 'tickets_hard'";
    let dressed: String = value(&client, dressed).await;
    assert_eq!(
        dressed,
        "seen more than once{security_barrier=true,security_invoker=true}true"
    );

    rows_are_kept(&storage).await;
    sums_are_merged(&storage).await;
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
    storage.close().await.unwrap();
    shared().sql(&original, drop_theirs);
    shared().sql(&fresh, "DROP TABLE resolutions");
    assert_eq!(
        shared().dump(&original),
        shared().dump(&fresh),
        "the same tables as new ones"
    );
}

async fn rows_are_kept(storage: &PostgresStorage) {
    let all = ExecutionQuery::of(TenantId::default());
    let (mut page, mut rows) = (Page::first(500), Vec::new());
    loop {
        let found = storage.list(&all, &page).await.unwrap();
        rows.extend(found.items);
        let Some(next) = found.next else { break };
        page = Page::first(500).after(next);
    }
    assert_eq!(rows.len(), 1_000);
    let row = rows.iter().find(|row| row.output == "output 15").unwrap();
    assert_eq!(row.ticket_id, "00000000-0000-4000-9000-000000000007");
    assert_eq!(
        (row.status, row.trigger),
        (Status::Completed, Trigger::Ticket)
    );
    assert_eq!((row.duration_us, row.output_bytes), (Some(3_000_000), 9));
    let mut open = all;
    open.statuses = vec![Status::Starting, Status::Running];
    open.lease_before = Some(crate::rows::noon());
    let open = storage.list(&open, &Page::first(500)).await.unwrap();
    assert_eq!(
        open.items.len(),
        199,
        "recovery ends what the old program left open"
    );
}

async fn sums_are_merged(storage: &PostgresStorage) {
    let stats = storage.stats(&StatsQuery::default()).await.unwrap();
    let disk = &stats.by_script["disk_cleanup.py"];
    assert_eq!((disk.total, disk.successful, disk.failed), (44, 41, 3));
    assert_eq!(disk.duration_us, 15_000_000 + 105_000_000);
    let mut durations = Histogram::default();
    durations.add(Histogram::bucket(3_000_000), 40);
    durations.add(Histogram::bucket(0), 4);
    assert_eq!(disk.durations, durations);
    let mut vpn = Histogram::default();
    vpn.add(Histogram::bucket(10_000), 1);
    assert_eq!(stats.by_script["vpn_restart.py"].durations, vpn);
}

#[tokio::test]
async fn what_can_not_work_with_text_ids_stops_the_migration_and_loses_nothing() {
    let database = shared().empty();
    shared().sql_as(&database, USER, ORIGINAL).unwrap();
    let view = "CREATE VIEW one AS SELECT * FROM automation_logs
        WHERE ticket_id = '00000000-0000-4000-9000-000000000007'::uuid";
    shared().sql_as(&database, USER, view).unwrap();
    let before = shared().dump(&database);
    let detail = refused(&shared().url(&database)).await;
    assert!(
        detail.contains("ticket_id becomes text") && detail.contains("CREATE VIEW one"),
        "{detail}"
    );
    assert_eq!(shared().dump(&database), before);
}

async fn refused(url: &str) -> String {
    match PostgresStorage::connect(url).await {
        Err(StorageError::Unusable { detail, .. }) => detail,
        other => panic!("connected or refused in another way: {other:?}"),
    }
}

#[tokio::test]
async fn tables_of_a_later_version_are_refused() {
    let database = shared().database();
    shared().sql(
        &database,
        "INSERT INTO automation_schema (version) VALUES (99)",
    );
    let detail = refused(&shared().url(&database)).await;
    assert!(detail.contains("version 99"), "{detail}");
}

#[tokio::test]
async fn a_user_who_may_not_make_tables_needs_them_made() {
    let database = shared().empty();
    shared().sql("postgres", "CREATE ROLE guest LOGIN");
    let detail = refused(&shared().url_of(&database, "guest")).await;
    assert!(detail.contains("automation-schema.sql"), "{detail}");
    shared()
        .sql_as(&database, USER, PostgresStorage::schema())
        .unwrap();
    let detail = refused(&shared().url_of(&database, "guest")).await;
    assert!(detail.contains("may not"), "{detail}");
    shared().sql(
        "postgres",
        "GRANT automation_writer, authenticated TO guest",
    );
    let url = shared().url_of(&database, "guest");
    let storage = PostgresStorage::connect(url).await.unwrap();
    record(&storage, &ticket_run("T-1"), Status::Completed).await;
}

#[tokio::test]
async fn servers_that_start_together_make_the_tables_once() {
    let database = shared().empty();
    let opened = futures(&database).await;
    for storage in opened {
        one(&storage, insert(&ticket_run("T-1"))).await.unwrap();
    }
}

async fn futures(database: &str) -> Vec<PostgresStorage> {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = shared().url(database);
        opening.spawn(async move { PostgresStorage::connect(url).await.unwrap() });
    }
    opening.join_all().await
}

#[tokio::test]
async fn unsecured_tables_are_refused() {
    let database = shared().database();
    for change in ["NO FORCE", "DISABLE"] {
        let sql = format!("ALTER TABLE automation_events {change} ROW LEVEL SECURITY");
        shared().sql(&database, &sql);
        let detail = refused(&shared().url(&database)).await;
        assert!(
            detail.contains("Row Level Security of automation_events"),
            "{detail}"
        );
        shared().sql(
            &database,
            "ALTER TABLE automation_events ENABLE ROW LEVEL SECURITY;
             ALTER TABLE automation_events FORCE ROW LEVEL SECURITY",
        );
    }
    open(&database).await;
}

#[tokio::test]
async fn long_output_is_kept_compressed() {
    let database = shared().empty();
    let storage = open(&database).await;
    let mut run = ticket_run("T-1");
    run.output = "2026-01-01 12:00:00 INFO cleaned a folder\n".repeat(20_000);
    one(&storage, insert(&run)).await.unwrap();
    let client = shared().client(&database, SUPERUSER).await;
    let sql = "SELECT pg_column_size(output) * 10 < octet_length(output) FROM automation_logs";
    assert!(value::<bool>(&client, sql).await);
    let found = storage.get(&run.tenant_id, run.id).await.unwrap();
    assert_eq!(found.output, run.output);
}
