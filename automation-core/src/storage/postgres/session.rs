//! How connections are opened, in which role they work, and with whom they refuse to.

use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod,
};
use tokio_postgres::{Client, NoTls};

use super::error::Failure;
use super::row::get;
use super::tls;
use super::url::{CONNECT_MAX, Place};

/// How long a read waits for one of the connections.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What both kinds of sessions need: texts as the client reads them, reads that see each commit, no surprises from
/// settings of the database or of the user.
const COMMON_SQL: &str = "\
SET client_min_messages = warning; SET default_transaction_isolation = 'read committed';
SET row_security = on; SET jit = off; SET timezone = 'UTC'; SET lock_timeout = '2s';
SET idle_in_transaction_session_timeout = '15s'; SET idle_session_timeout = 0;";

/// A commit is acknowledged when it is on the disk, whatever the database's default; stronger settings stay. All
/// statements look rows up by their keys, so plans are made once and never walk a table, however old its statistics.
const WRITER_SQL: &str = "\
SET statement_timeout = '30s'; SET default_transaction_read_only = off;
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET ROLE automation_writer";

const READER_SQL: &str = "\
SET statement_timeout = '15s'; SET default_transaction_read_only = on; SET ROLE automation_writer";

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Read,
}

/// Opens one connection without a role.
pub(super) async fn connect(place: &Place) -> Result<Client, Failure> {
    let connecting = async {
        match &place.trust {
            None => {
                let (client, connection) = place.config.connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(trust) => {
                let connector = tls::connector(trust)?;
                let (client, connection) = place.config.connect(connector).await?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    };
    tokio::time::timeout(CONNECT_MAX, connecting)
        .await
        .unwrap_or_else(|_| Err(Failure::Away("the server does not answer".to_owned())))
}

/// Creates a pool without connections.
pub(super) fn pool(
    place: &Place,
    purpose: Purpose,
    connections_max: usize,
) -> Result<Pool, Failure> {
    let superuser_allowed = place.superuser_allowed;
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match &place.trust {
        None => Manager::from_config(place.config.clone(), NoTls, recycling),
        Some(trust) => {
            Manager::from_config(place.config.clone(), tls::connector(trust)?, recycling)
        }
    };
    Pool::builder(manager)
        .max_size(connections_max)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .wait_timeout(Some(WAIT_MAX))
        .create_timeout(Some(CONNECT_MAX))
        .recycle_timeout(Some(CONNECT_MAX))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                prepare(client, purpose, superuser_allowed)
                    .await
                    .map_err(hook_error)
            })
        }))
        .build()
        .map_err(|error| Failure::Unusable(error.to_string()))
}

/// The pool knows its client's errors and sentences.
fn hook_error(failure: Failure) -> HookError {
    match failure {
        Failure::Postgres(error) => match std::sync::Arc::try_unwrap(error) {
            Ok(error) => HookError::Backend(error),
            Err(shared) => HookError::message(shared.to_string()),
        },
        other => HookError::message(other.to_string()),
    }
}

/// Makes a new connection ready.
async fn prepare(
    client: &ClientWrapper,
    purpose: Purpose,
    superuser_allowed: bool,
) -> Result<(), Failure> {
    check_user(client, superuser_allowed).await?;
    let settings = match purpose {
        Purpose::Write => WRITER_SQL,
        Purpose::Read => READER_SQL,
    };
    client
        .batch_execute(&format!("{COMMON_SQL} {settings}"))
        .await?;
    check_role(client, superuser_allowed).await
}

const USER_SQL: &str = "\
SELECT rolname, rolsuper, pg_has_role(oid, 'automation_writer', 'MEMBER')
    AND pg_has_role(oid, 'authenticated', 'MEMBER') AS is_member,
    current_setting('server_version_num')::int AS version
FROM pg_roles WHERE rolname = session_user";

/// The oldest PostgreSQL whose views can be made to read as their caller.
const VERSION_MIN: i32 = 15_00_00;

/// Refuses a superuser, before anything is changed.
pub(super) async fn check_superuser(
    client: &Client,
    superuser_allowed: bool,
) -> Result<(), Failure> {
    let sql = "SELECT rolsuper, current_setting('server_version_num')::int AS version \
         FROM pg_roles WHERE rolname = session_user";
    let user = client.query_one(sql, &[]).await?;
    let version: i32 = get(&user, "version")?;
    if version < VERSION_MIN {
        let major = version / 10_000;
        return Err(Failure::Unusable(format!(
            "it is PostgreSQL {major}, 15 or later is needed"
        )));
    }
    if get(&user, "rolsuper")? && !superuser_allowed {
        return Err(superuser("the user"));
    }
    Ok(())
}

fn superuser(who: &str) -> Failure {
    Failure::Unusable(format!(
        "{who} is a superuser, who is not bound by Row Level Security: connect as a user who is none, or add superuser=allow to the options of the URL"
    ))
}

async fn check_user(client: &Client, superuser_allowed: bool) -> Result<(), Failure> {
    let user = client.query_one(USER_SQL, &[]).await?;
    let name: &str = get(&user, "rolname")?;
    if get(&user, "rolsuper")? && !superuser_allowed {
        return Err(superuser(&format!("user {name:?}")));
    }
    if !get::<bool>(&user, "is_member")? {
        return Err(Failure::Unusable(format!(
            "user {name:?} may not work as automation_writer and authenticated: \
             GRANT automation_writer, authenticated TO {name:?}"
        )));
    }
    Ok(())
}

/// Refuses a role that Row Level Security does not bind.
async fn check_role(client: &Client, superuser_allowed: bool) -> Result<(), Failure> {
    let sql = "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user";
    let role = client.query_one(sql, &[]).await?;
    let (name, is_super): (&str, bool) = (get(&role, "rolname")?, get(&role, "rolsuper")?);
    if superuser_allowed {
        return Ok(());
    }
    if is_super {
        return Err(superuser(&format!("role {name:?}")));
    }
    if get(&role, "rolbypassrls")? {
        return Err(Failure::Unusable(format!(
            "role {name:?} has BYPASSRLS and is not bound by Row Level Security: ALTER ROLE {name:?} NOBYPASSRLS"
        )));
    }
    Ok(())
}

const TABLES: [&str; 7] = [
    "automation_schema",
    "automation_writers",
    "automation_records",
    "automation_logs",
    "automation_stats",
    "automation_durations",
    "automation_events",
];

const OPEN_VIEWS_SQL: &str = "\
SELECT DISTINCT class.oid::regclass::text AS name FROM pg_depend AS depend
JOIN pg_rewrite AS rewrite ON rewrite.oid = depend.objid
JOIN pg_class AS class ON class.oid = rewrite.ev_class AND class.relkind IN ('v', 'm')
WHERE depend.classid = 'pg_rewrite'::regclass AND depend.refobjid = ANY ($1::text[]::regclass[])
    AND NOT coalesce('security_invoker=true' = ANY (class.reloptions), FALSE)";

/// Refuses tables that are not secured, and names what lets tenants see each other's rows or what a power cut loses.
pub(super) async fn check_tables(client: &Client) -> Result<(), Failure> {
    let tables: Vec<&str> = TABLES.to_vec();
    let sql = "SELECT relname FROM pg_class WHERE oid = ANY ($1::text[]::regclass[]) \
         AND NOT (relrowsecurity AND relforcerowsecurity)";
    if let Some(open) = client.query(sql, &[&tables]).await?.first() {
        let name: &str = get(open, "relname")?;
        return Err(Failure::Unusable(format!(
            "Row Level Security of {name} is not enabled and forced: run automation-schema.sql"
        )));
    }
    for view in client.query(OPEN_VIEWS_SQL, &[&tables]).await? {
        let view: &str = get(&view, "name")?;
        tracing::warn!(
            "view {view} shows every tenant's rows: ALTER VIEW {view} SET (security_invoker = true)"
        );
    }
    let fsync = client
        .query_one("SELECT current_setting('fsync') AS fsync", &[])
        .await?;
    if get::<&str>(&fsync, "fsync")? == "off" {
        tracing::warn!(
            "the server has fsync off: a power cut may lose runs and break the database"
        );
    }
    Ok(())
}
