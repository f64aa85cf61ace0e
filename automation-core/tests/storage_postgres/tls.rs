//! Encryption: as PostgreSQL's own clients do it.

use automation_core::storage::StorageError;
use automation_core::{PostgresStorage, Status, Storage};

use crate::cluster::{Cluster, SUPERUSER, USER, shared};
use crate::rows::{record, ticket_run, value};

#[tokio::test]
async fn connections_are_encrypted_and_the_server_is_who_it_has_to_be() {
    let cluster = Cluster::start_with_tls();
    let database = cluster.empty();
    let certificate = cluster
        .folder
        .join("server.crt")
        .display()
        .to_string()
        .replace('/', "%2F");
    let url = |host: &str, options: &str| {
        format!(
            "postgres://{USER}@{host}:{}/{database}?{options}",
            cluster.port
        )
    };
    let beside = cluster.client(&database, SUPERUSER).await;
    let encrypted =
        "SELECT coalesce(bool_and(ssl), false) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'automation' AND backend_type = 'client backend'";
    let verified = format!("sslmode=verify-full&sslrootcert={certificate}");
    for (options, is_encrypted) in [
        ("", true),
        ("sslmode=prefer", true),
        ("sslmode=require", true),
        (&*verified, true),
        ("sslmode=disable", false),
    ] {
        let storage = PostgresStorage::connect(url("localhost", options))
            .await
            .unwrap();
        record(&storage, &ticket_run("T-1"), Status::Completed).await;
        assert_eq!(
            value::<bool>(&beside, encrypted).await,
            is_encrypted,
            "{options}"
        );
        storage.close().await.unwrap();
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'automation'";
        while value::<i64>(&beside, left).await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    for (host, options) in [
        // Nobody vouches for it, and it has another name.
        ("localhost", "sslmode=verify-full"),
        ("127.0.0.1", &*verified),
    ] {
        let answer = PostgresStorage::connect(url(host, options)).await;
        assert!(answer.is_err(), "{host} {options}");
    }
    let missing = url("localhost", "sslmode=verify-full&sslrootcert=nowhere.pem");
    let answer = PostgresStorage::connect(missing).await;
    assert!(
        matches!(answer, Err(StorageError::Unusable { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_server_without_encryption_is_refused_where_it_is_required() {
    let database = shared().empty();
    let proxy = crate::proxy::Proxy::start(
        &shared().folder,
        "nothing is cut",
        0,
        crate::proxy::Cut::Before,
    )
    .await;
    let url = format!(
        "postgres://{USER}@127.0.0.1:{}/{database}?sslmode=",
        proxy.port
    );
    let answer = PostgresStorage::connect(format!("{url}require")).await;
    assert!(answer.is_err());
    PostgresStorage::connect(format!("{url}prefer"))
        .await
        .unwrap();
}
