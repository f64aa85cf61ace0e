//! `DATABASE_URL=postgres://...` is all that a user changes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows only the functions that are marked as tests"
)]

#[path = "../../automation-core/tests/storage_postgres/cluster.rs"]
#[expect(dead_code, reason = "the backend's own tests do more with servers")]
mod cluster;
mod support;

use std::time::{Duration, Instant};

use cluster::{Cluster, USER};
use serde_json::json;
use support::{Folder, Server, repository_scripts};

fn start(folder: &Folder, url: &str) -> Server {
    folder.start(|command| {
        command
            .arg("--scripts")
            .arg(repository_scripts())
            .env("DATABASE_URL", url);
    })
}

#[test]
fn a_url_is_all_that_changes() {
    let cluster = Cluster::start(&[]);
    let database = cluster.empty();
    let folder = Folder::new();
    let server = start(&folder, &cluster.url(&database));
    let client = server.client();
    let run = json!({
        "script_name": "disk_cleanup.py",
        "parameters": {"min_free_space_gb": 0},
        "ticket_id": "T-1"
    });
    assert_eq!(client.post("manual", &run).data()["success"], true);

    cluster.kill();
    client.post("manual", &run).error(503, "storage");
    cluster.run();
    let began = Instant::now();
    while client.post("manual", &run).status != 200 {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it does not come back"
        );
    }

    // Another process goes on with the same runs.
    server.kill();
    let server = start(&folder, &cluster.url(&database));
    let client = server.client();
    let rows = client.get("/api/automation/logs/T-1");
    assert_eq!(rows.data().as_array().unwrap().len(), 2, "{rows:?}");
    let stats = client.get("/api/automation/stats");
    assert_eq!(stats.data()["total_automations"], 2);
}

#[test]
fn the_tables_are_printed_as_they_are_made() {
    let printed = Folder::new()
        .command()
        .arg("--print-schema")
        .output()
        .unwrap();
    assert!(printed.status.success());
    let cluster = Cluster::start(&["fsync=off"]);
    let database = cluster.empty();
    let schema = String::from_utf8(printed.stdout).unwrap();
    cluster.sql_as(&database, USER, &schema).unwrap();
    let folder = Folder::new();
    start(&folder, &cluster.url(&database));
}

#[test]
fn a_superuser_is_refused_with_what_to_do() {
    let cluster = Cluster::start(&["fsync=off"]);
    let folder = Folder::new();
    let url = cluster.url_of(&cluster.empty(), cluster::SUPERUSER);
    let mut command = folder.command();
    command
        .arg("--scripts")
        .arg(repository_scripts())
        .env("DATABASE_URL", &url);
    let ended = command.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(
        !ended.status.success() && told.contains("superuser=allow"),
        "{told}"
    );
    start(&folder, &format!("{url}?superuser=allow"));
}
