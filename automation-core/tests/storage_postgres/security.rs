//! Row Level Security, on a real server: who sees, makes, changes and moves whose rows.

use std::sync::Arc;

use automation_core::storage::{ExecutionQuery, Record, RecordKind, StorageError, Write};
use automation_core::{Execution, Page, PostgresStorage, StatsQuery, Status, Storage, TenantId};
use serde_json::json;
use tokio_postgres::Client;

use crate::cluster::{Cluster, SUPERUSER, USER, shared};
use crate::rows::{append, end, insert, one, open, ticket_run, value};

/// Records a run with rows in every table for a tenant.
async fn fill(storage: &PostgresStorage, tenant: &str) -> Execution {
    let mut run = ticket_run(&format!("T-{tenant}"));
    run.tenant_id = TenantId::new(tenant);
    let put = Write::Put {
        record: Record {
            tenant_id: run.tenant_id.clone(),
            kind: RecordKind::ScriptVersion,
            key: "k".to_owned(),
            value: json!(1),
            revision: 0,
        },
        expected: None,
    };
    let writes = vec![
        insert(&run),
        append(&run),
        end(&run, Status::Completed),
        put,
    ];
    storage
        .commit(writes)
        .await
        .into_iter()
        .for_each(|answer| drop(answer.unwrap()));
    run
}

/// A table, and how to make a row of a tenant, `{}`, that is not there yet.
const TABLES: [(&str, &str); 6] = [
    (
        "automation_logs",
        "(id, tenant_id, ticket_id, script_name, status) VALUES (gen_random_uuid(), '{}', 'x', 'x', 'failed')",
    ),
    (
        "automation_stats",
        "(id, tenant_id, script_name) VALUES (gen_random_uuid(), '{}', 'x')",
    ),
    (
        "automation_durations",
        "(tenant_id, script_name, execution_date, bucket, executions) VALUES ('{}', 'x', '2020-01-01', 1, 1)",
    ),
    (
        "automation_events",
        "(tenant_id, execution_id, seq, at, kind, data) SELECT '{}', execution_id, 99, at, kind, data FROM automation_events",
    ),
    (
        "automation_records",
        "(tenant_id, kind, key, value, revision) VALUES ('{}', 'x', 'x', '1', 1)",
    ),
    (
        "resolutions",
        "(id, tenant_id, ticket_id) VALUES (gen_random_uuid(), '{}', 'x')",
    ),
];

/// The key under which a row is there already.
fn key_of(table: &str) -> &'static str {
    match table {
        "automation_logs" | "resolutions" => "id",
        "automation_stats" => "tenant_id, script_name, execution_date",
        "automation_durations" => "tenant_id, script_name, execution_date, bucket",
        "automation_events" => "execution_id, seq",
        _ => "tenant_id, kind, key",
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Own,
    Foreign,
    Anonymous,
    NoClaims,
}

impl Who {
    const ALL: [Self; 4] = [Self::Own, Self::Foreign, Self::Anonymous, Self::NoClaims];

    /// Begins a transaction as such a caller would have it.
    fn begin(self) -> &'static str {
        match self {
            Self::Own => {
                r#"BEGIN; SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{"app_metadata": {"tenant_id": "ours"}}', true)"#
            }
            Self::Foreign => {
                r#"BEGIN; SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', '{"tenant_id": "theirs", "user_metadata": {"tenant_id": "ours"}}', true)"#
            }
            Self::Anonymous => {
                r#"BEGIN; SELECT set_config('role', 'anon', true), set_config('request.jwt.claims', '{"role": "anon"}', true)"#
            }
            Self::NoClaims => {
                "BEGIN; SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', '', true)"
            }
        }
    }
}

/// What beside our own grants and policies there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grants {
    Ours,
    /// Everything is granted to everybody, as by Supabase's default for new tables.
    All,
    /// And somebody added a policy that allows everything.
    AllAndAPolicy,
}

/// Tries something; returns how many rows it saw or changed, `None` where it was refused.
async fn rows(client: &Client, who: Who, sql: &str) -> Option<u64> {
    client.batch_execute(who.begin()).await.unwrap();
    let done = client.execute(sql, &[]).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    done.ok()
}

/// The matrix: {select, insert, update, delete, move, upsert} of rows of tenant "ours", by each caller.
#[tokio::test]
async fn nobody_reaches_rows_of_another_tenant() {
    for grants in [Grants::Ours, Grants::All, Grants::AllAndAPolicy] {
        let database = shared().database();
        let storage = open(&database).await;
        for tenant in ["ours", "theirs"] {
            fill(&storage, tenant).await;
        }
        storage.close().await.unwrap();
        for (table, _) in TABLES {
            if grants != Grants::Ours {
                shared().sql(
                    &database,
                    &format!("GRANT ALL ON {table} TO anon, authenticated"),
                );
            }
            if grants == Grants::AllAndAPolicy {
                shared().sql(
                    &database,
                    &format!("CREATE POLICY p ON {table} USING (true) WITH CHECK (true)"),
                );
            }
        }
        let client = shared().client(&database, SUPERUSER).await;
        for (table, new) in TABLES {
            for who in Who::ALL {
                check(&client, grants, who, table, new).await;
            }
        }
    }
}

async fn check(client: &Client, grants: Grants, who: Who, table: &str, new: &str) {
    let case = format!("{grants:?} {who:?} {table}");
    let open = grants == Grants::AllAndAPolicy;
    let own_only = open && who == Who::Own;
    let is_ours = "tenant_id = 'ours'";
    let of = |sql: String| async move { rows(client, who, &sql).await.unwrap_or(0) };
    let insert = |tenant: &str| format!("INSERT INTO {table} {}", new.replace("{}", tenant));

    let readable = table != "automation_records" || open;
    let seen = of(format!("SELECT FROM {table} WHERE {is_ours}")).await;
    assert_eq!(
        seen,
        u64::from(who == Who::Own && readable),
        "{case}: select"
    );
    let seen = of(format!("SELECT FROM {table} WHERE tenant_id = 'theirs'")).await;
    assert_eq!(
        seen,
        u64::from(who == Who::Foreign && readable),
        "{case}: select of the other"
    );
    let made = of(insert("ours")).await;
    assert_eq!(made > 0, own_only, "{case}: insert");
    let changed = of(format!(
        "UPDATE {table} SET tenant_id = tenant_id WHERE {is_ours}"
    ))
    .await;
    assert_eq!(changed > 0, own_only, "{case}: update");
    let gone = of(format!("DELETE FROM {table} WHERE {is_ours}")).await;
    assert_eq!(gone > 0, own_only, "{case}: delete");
    for to in ["theirs", "ours", "nobodys"] {
        let moved = of(format!(
            "UPDATE {table} SET tenant_id = '{to}' WHERE tenant_id <> '{to}'"
        ))
        .await;
        assert_eq!(moved, 0, "{case}: move to {to}");
    }
    for to in ["theirs", "ours"] {
        // The row is there: an upsert changes it, and may neither see nor move it.
        let upsert = format!(
            "INSERT INTO {table} SELECT * FROM {table} WHERE {is_ours}
             ON CONFLICT ({}) DO UPDATE SET tenant_id = '{to}'",
            key_of(table)
        );
        let done = of(upsert).await;
        assert_eq!(done > 0, own_only && to == "ours", "{case}: upsert to {to}");
    }
}

/// An upsert whose new row is one's own must not change the row that is another's.
#[tokio::test]
async fn a_row_of_another_is_not_taken_over_by_its_id() {
    let database = shared().database();
    let storage = open(&database).await;
    let run = fill(&storage, "ours").await;
    shared().sql(&database, "GRANT ALL ON automation_logs TO authenticated; CREATE POLICY p ON automation_logs USING (true)");
    let client = shared().client(&database, SUPERUSER).await;
    let take_over = format!(
        "INSERT INTO automation_logs (id, tenant_id, ticket_id, script_name, status)
         VALUES ('{}', 'theirs', 'x', 'x', 'failed')
         ON CONFLICT (id) DO UPDATE SET output = 'taken'",
        run.id
    );
    assert_eq!(rows(&client, Who::Foreign, &take_over).await, None);
}

/// Policies do not hold back `TRUNCATE`, so nobody may have it; Supabase grants it on every new table.
#[tokio::test]
async fn tenants_can_not_truncate_even_where_everything_is_granted_by_default() {
    let database = shared().empty();
    let defaults = "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role";
    shared().database();
    shared().sql_as(&database, USER, defaults).unwrap();
    shared()
        .sql_as(&database, USER, PostgresStorage::schema())
        .unwrap();
    let client = shared().client(&database, SUPERUSER).await;
    let granted = "SELECT coalesce(string_agg(grantee || ' ' || privilege_type || ' ' || table_name, ', '), '')
        FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND grantee IN ('anon', 'authenticated', 'PUBLIC', 'automation_writer')
            AND (grantee = 'anon' OR privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES')
                OR grantee <> 'automation_writer' AND privilege_type <> 'SELECT')";
    assert_eq!(value::<String>(&client, granted).await, "");
}

#[tokio::test]
async fn a_view_shows_what_its_caller_may_see() {
    let database = shared().database();
    let storage = open(&database).await;
    for tenant in ["ours", "theirs"] {
        fill(&storage, tenant).await;
    }
    storage.close().await.unwrap();
    shared()
        .sql_as(
            &database,
            USER,
            "CREATE VIEW runs AS SELECT * FROM automation_logs; CREATE VIEW outer_runs AS SELECT * FROM runs;
             GRANT SELECT ON runs, outer_runs TO authenticated, anon",
        )
        .unwrap();
    shared()
        .sql_as(&database, USER, PostgresStorage::schema())
        .unwrap();
    let client = shared().client(&database, SUPERUSER).await;
    for view in ["runs", "outer_runs"] {
        let seen = format!("SELECT FROM {view}");
        assert_eq!(rows(&client, Who::Own, &seen).await, Some(1), "{view}");
        assert_eq!(rows(&client, Who::NoClaims, &seen).await, Some(0), "{view}");
        assert_eq!(rows(&client, Who::Anonymous, &seen).await, None, "{view}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_never_outlives_its_transaction() {
    let database = shared().database();
    let builder = PostgresStorage::builder(shared().url(&database));
    let storage = Arc::new(builder.readers(1).connect().await.unwrap());
    let (ours, theirs) = (fill(&storage, "ours").await, fill(&storage, "theirs").await);
    let everybodys = ExecutionQuery::default();
    for n in 0..10_000 {
        let run = if n % 2 == 0 { &ours } else { &theirs };
        // Under the claims of the read before, the row would not be there.
        let found = storage.get(&run.tenant_id, run.id).await.unwrap();
        assert_eq!(found.tenant_id, run.tenant_id);
        if n % 100 == 0 {
            // As a tenant, only one of them would be there.
            let all = storage.list(&everybodys, &Page::default()).await.unwrap();
            assert_eq!(all.items.len(), 2);
            // A read that is given up in the middle leaves nothing behind.
            let (query, page) = (ExecutionQuery::of(run.tenant_id.clone()), Page::default());
            let _ = tokio::time::timeout(
                std::time::Duration::from_micros(n),
                storage.list(&query, &page),
            )
            .await;
        }
    }
}

/// As the server does it, without a condition on the tenant: the policy alone keeps the rows apart, in one prepared
/// statement that is executed for all.
#[tokio::test]
async fn a_prepared_statement_follows_the_claims() {
    let database = shared().database();
    let storage = open(&database).await;
    for tenant in ["ours", "theirs"] {
        fill(&storage, tenant).await;
    }
    let client = shared().client(&database, SUPERUSER).await;
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    let seen = client
        .prepare("SELECT tenant_id FROM automation_logs")
        .await
        .unwrap();
    for n in 0..1_000 {
        let who = [Who::Own, Who::Foreign, Who::NoClaims][n % 3];
        client.batch_execute(who.begin()).await.unwrap();
        let rows = client.query(&seen, &[]).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let tenants: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let expected: &[&str] = [&["ours"][..], &["theirs"], &[]][n % 3];
        assert_eq!(tenants, expected);
    }
}

async fn refused(url: String) -> String {
    match PostgresStorage::connect(url).await {
        Err(StorageError::Unusable { detail, .. }) => detail,
        other => panic!("connected or refused in another way: {other:?}"),
    }
}

#[tokio::test]
async fn whom_row_level_security_does_not_bind_is_refused() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    let url = cluster.url_of(&database, SUPERUSER);
    let detail = refused(url.clone()).await;
    assert!(detail.contains("superuser"), "{detail}");
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'automation%'";
    let client = cluster.client(&database, SUPERUSER).await;
    assert_eq!(
        value::<i64>(&client, tables).await,
        0,
        "nothing was made for a user who is refused"
    );
    let allowed = PostgresStorage::builder(url)
        .allow_superuser()
        .connect()
        .await
        .unwrap();
    fill(&allowed, "ours").await;
    allowed.close().await.unwrap();

    cluster.sql(&database, "GRANT automation_writer, authenticated TO helpdesk; ALTER ROLE automation_writer BYPASSRLS");
    let detail = refused(cluster.url(&database)).await;
    assert!(
        detail.contains("BYPASSRLS") && detail.contains("automation_writer"),
        "{detail}"
    );
    cluster.sql(
        &database,
        "ALTER ROLE automation_writer NOBYPASSRLS SUPERUSER",
    );
    let detail = refused(cluster.url(&database)).await;
    assert!(detail.contains("superuser"), "{detail}");
    cluster.sql(&database, "ALTER ROLE automation_writer NOSUPERUSER");
    PostgresStorage::connect(cluster.url(&database))
        .await
        .unwrap();
}

/// As on Supabase: the roles are there, `postgres` has BYPASSRLS and owns everything, and is no superuser.
#[tokio::test]
async fn supabases_own_user_works() {
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    cluster.sql(
        &database,
        &format!(
            "CREATE ROLE anon NOLOGIN NOINHERIT; CREATE ROLE authenticated NOLOGIN NOINHERIT;
             CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
             CREATE ROLE postgres LOGIN CREATEROLE CREATEDB REPLICATION BYPASSRLS;
             GRANT anon, authenticated, service_role TO postgres WITH ADMIN OPTION;
             ALTER DATABASE {database} OWNER TO postgres; ALTER SCHEMA public OWNER TO postgres;
             ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO anon, authenticated, service_role"
        ),
    );
    let storage = PostgresStorage::connect(cluster.url_of(&database, "postgres"))
        .await
        .unwrap();
    let (ours, theirs) = (fill(&storage, "ours").await, fill(&storage, "theirs").await);
    let query = StatsQuery {
        tenant_id: ours.tenant_id.clone(),
        ..StatsQuery::default()
    };
    assert_eq!(storage.stats(&query).await.unwrap().all.total, 1);
    assert!(storage.get(&ours.tenant_id, theirs.id).await.is_err());
    storage.close().await.unwrap();
    let client = cluster.client(&database, "postgres").await;
    for (table, new) in TABLES {
        for who in Who::ALL {
            check(&client, Grants::Ours, who, table, new).await;
        }
    }
}

/// Asks the server itself how it finds rows, in a table that is large enough for a walk to be a mistake.
#[tokio::test]
async fn rows_are_found_by_an_index_under_row_level_security() {
    let cluster = Cluster::start(&[
        "fsync=off",
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_nested_statements=on",
    ]);
    let database = cluster.empty();
    let storage = PostgresStorage::connect(cluster.url(&database))
        .await
        .unwrap();
    cluster.sql(
        &database,
        "SET auto_explain.log_min_duration = -1;
         INSERT INTO automation_logs (id, tenant_id, ticket_id, script_name, status, started_at, completed_at)
         SELECT gen_random_uuid(), 'tenant ' || n % 10, 'T-' || n % 1000, 'x', 'completed', now(), now()
         FROM generate_series(1, 30000) AS n; ANALYZE automation_logs",
    );
    let log = cluster.folder.join("log");
    let begin = std::fs::read_to_string(&log).unwrap().len();
    let run = fill(&storage, "tenant 1").await;
    let mut of_ticket = ExecutionQuery::of(run.tenant_id.clone());
    let page = Page::first(20);
    let first = storage.list(&of_ticket, &page).await.unwrap();
    storage
        .list(&of_ticket, &page.clone().after(first.next.unwrap()))
        .await
        .unwrap();
    of_ticket.ticket_id = Some("T-1".to_owned());
    storage.list(&of_ticket, &page).await.unwrap();
    storage.get(&run.tenant_id, run.id).await.unwrap();
    storage.events(&run.tenant_id, run.id, &page).await.unwrap();
    let open = ExecutionQuery::default();
    let mut open = open;
    open.statuses = vec![Status::Starting, Status::Running];
    storage.list(&open, &page).await.unwrap();
    let stats = StatsQuery {
        tenant_id: run.tenant_id.clone(),
        ..StatsQuery::default()
    };
    storage.stats(&stats).await.unwrap();
    one(
        &storage,
        Write::Renew {
            instance: automation_core::InstanceId::new("x"),
            lease_until: crate::rows::noon(),
        },
    )
    .await
    .unwrap();
    storage.close().await.unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    let plans = &log[begin..];
    for index in [
        "automation_logs_newest",
        "automation_logs_ticket",
        "automation_logs_pkey",
        "automation_logs_open",
    ] {
        assert!(plans.contains(index), "{index} is not used");
    }
    let walks = plans
        .lines()
        .filter(|line| line.contains("Seq Scan on automation_logs"));
    assert_eq!(walks.collect::<Vec<_>>(), Vec::<&str>::new());
    // The tenant is asked for once a statement, not once a row.
    assert!(
        plans.contains("InitPlan 1 (returns $0)") || plans.contains("InitPlan 1"),
        "{plans}"
    );
}
