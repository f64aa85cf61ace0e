//! The life of the server: build the engine, serve it, end in good order.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::ExecutorHealth;
use automation_core::secret::Secrets;
use automation_core::storage::StorageError;
use automation_core::{
    Automation, AutomationBuilder, Executor, MemoryStorage, PostgresStorage, ScriptRegistry,
    SqliteStorage,
};
use automation_http::{ConnectionLimits, router, routes, serve};
use automation_py::{ProcessExecutor, PythonExecutor};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::config::{Config, Database};
use crate::descriptors;
use crate::listen::listen;
use crate::signals::Signals;

/// Time that answers get to be written after the last run has ended.
const ANSWERS_MAX: Duration = Duration::from_secs(5);
/// What the server ends with when scripts that could not be stopped have used up its threads (`EX_TEMPFAIL`): whoever
/// supervises it starts it again.
const EXIT_USED_UP: i32 = 75;
/// How often the executor is asked how it is.
const LOOK: Duration = Duration::from_secs(1);
/// Time that the runs that still go on get then.
const USED_UP_GRACE: Duration = Duration::from_secs(5);

/// Serves until a signal asks for the end, and returns the exit code.
///
/// # Errors
/// A sentence that says what could not be started or ended.
pub(crate) async fn run(mut config: Config) -> Result<i32, String> {
    let mut signals =
        Signals::new().map_err(|error| format!("signals can't be handled: {error}"))?;
    // First of all, so that a second server fails before it touches the first one's database.
    let listeners = listen(config.address).await?;
    let address = listeners[0].local_addr().unwrap_or(config.address);
    let secrets = std::mem::take(&mut config.secrets);
    let (automation, executor) = build(&config, secrets).await?;
    announce(&config, address, &automation).await;
    log_start(&config, address);

    let (stop, stopped) = oneshot::channel::<()>();
    let mut limits = ConnectionLimits::default();
    limits.connections_max = descriptors::connections_max(limits.connections_max);
    limits.trusted_proxies.clone_from(&config.trusted_proxies);
    let app = router(automation.clone(), config.http);
    let mut serving = tokio::spawn(serve(listeners, app, limits, async {
        let _ = stopped.await;
    }));

    let (cause, used_up) = tokio::select! {
        (signal, _) = signals.next() => (signal.to_owned(), false),
        cause = used_up(&*executor) => (cause, true),
        ended = &mut serving => return Err(format!("the server stopped serving: {ended:?}")),
    };
    let grace = match used_up {
        true => config.shutdown_grace.min(USED_UP_GRACE),
        false => config.shutdown_grace,
    };
    tracing::info!(cause, ?grace, "shutting down, runs get their time to end");
    let ending = async {
        let _ = stop.send(());
        let ended = automation.shutdown(grace).await;
        if tokio::time::timeout(ANSWERS_MAX, serving).await.is_err() {
            tracing::warn!("some answers were not fetched");
        }
        ended.map_err(|error| format!("the shutdown was not clean: {error}"))
    };
    tokio::select! {
                ended = ending => match (used_up, ended) {
            (true, _) => Ok(EXIT_USED_UP),
            (false, ended) => ended.map(|()| 0),
        },
        (signal, code) = signals.next() => {
            tracing::warn!(signal, "ending at once, runs that are open are recorded as orphaned at the next start");
            Ok(code)
        }
    }
}

/// Waits until the executor has taken no run for two looks on end, and returns why. It may take runs again when a
/// thread comes back. Asks the executor alone: a storage that does not answer is no reason to wait.
async fn used_up(executor: &dyn Executor) -> String {
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let health = executor.health().await;
        looks = if health.available { 0 } else { looks + 1 };
        if looks > 0 {
            let (cause, threads) = (cause(&health), health.quarantined_threads);
            tracing::error!(cause, threads, "the executor takes no runs");
            if looks == 2 {
                return cause;
            }
        }
    }
}

/// Returns why an executor takes no runs.
fn cause(health: &ExecutorHealth) -> String {
    let problem = health.details.get("problem").and_then(Value::as_str);
    problem.map_or_else(
        || "its threads are in scripts that could not be stopped".to_owned(),
        str::to_owned,
    )
}

fn log_start(config: &Config, address: SocketAddr) {
    tracing::info!(%address, database = %config.database, "listening");
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!(%address, "AUTOMATION_AUTH is none: everybody who reaches the address runs scripts");
    }
    for name in &config.unknown {
        tracing::warn!("{name} is no variable of the server and changes nothing");
    }
}

/// Builds the engine; returns the executor in this process beside it.
async fn build(
    config: &Config,
    secrets: Secrets,
) -> Result<(Automation, Arc<dyn Executor>), String> {
    let scripts =
        ScriptRegistry::load(&config.scripts).map_err(|error| format!("SCRIPTS_PATH: {error}"))?;
    let builder = open_storage(config, Automation::builder()).await?;
    let mut executor = PythonExecutor::builder().workers(config.workers);
    executor = match &config.database {
        // What the next start must know stays together.
        Database::Sqlite(path) => executor.crash_file(path.with_added_extension("crash")),
        Database::Postgres(_) => executor.crash_file(config.logs.join("automation.crash")),
        Database::Memory => executor,
    };
    let executor = match &config.python {
        Some(python) => executor
            .python(python)
            .build()
            .map_err(|error| format!("PYTHON_PATH is {:?}: {error}", python.display()))?,
        None => executor
            .build()
            .map_err(|error| format!("PYTHON_PATH is not set: {error}"))?,
    };
    let executor: Arc<dyn Executor> = Arc::new(executor);
    let builder = builder
        .scripts(scripts)
        .shared_executor(Arc::clone(&executor))
        .secrets(secrets)
        .limits(config.limits)
        .isolate_all(config.isolate_all)
        .lease(config.lease);
    let builder = match config.retention {
        Some(retention) => builder.retention(retention),
        None => builder,
    };
    let builder = match isolated(config, Arc::clone(&executor)) {
        Ok(isolated) => builder.isolated_executor(isolated),
        Err(error) if config.isolate_all => {
            return Err(format!(
                "AUTOMATION_ISOLATE is \"all\" and scripts can't be isolated: {error}"
            ));
        }
        Err(error) => {
            tracing::warn!(%error, "scripts can't be isolated, those that ask for it are refused");
            builder
        }
    };
    let automation = builder.build().map_err(|error| error.to_string())?;
    Ok((automation, executor))
}

/// Sets where runs are recorded, and where their ends are kept that the database does not take.
async fn open_storage(
    config: &Config,
    builder: AutomationBuilder,
) -> Result<AutomationBuilder, String> {
    let named = |error: StorageError| format!("DATABASE_URL: {error}");
    Ok(match &config.database {
        Database::Memory => builder.storage(MemoryStorage::default()),
        Database::Sqlite(path) => {
            let storage = SqliteStorage::builder(path).durability(config.durability);
            let storage = storage.open().await.map_err(named)?;
            let spool = storage.path().with_added_extension("spool");
            builder.storage(storage).spool(spool)
        }
        Database::Postgres(at) => {
            let storage = PostgresStorage::connect(&at.url).await;
            builder
                .storage(storage.map_err(named)?)
                .spool(config.logs.join("automation.spool"))
        }
    })
}

/// Returns what runs scripts in processes of their own. It starts none before it is needed.
fn isolated(config: &Config, inspector: Arc<dyn Executor>) -> Result<ProcessExecutor, String> {
    let builder = ProcessExecutor::builder().inspector(inspector);
    let builder = match &config.python {
        Some(python) => builder.python(python),
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

/// Tells whoever starts the server what it serves and on what; nobody has to listen.
async fn announce(config: &Config, address: SocketAddr, automation: &Automation) {
    let python = automation.health().await.executor;
    let mut lines = vec![format!(
        "automation-server {} listens on http://{address}",
        env!("CARGO_PKG_VERSION")
    )];
    let version = python.version.as_deref().unwrap_or("not available");
    lines.push(format!("python    {version}"));
    let details = python.details.iter();
    lines.extend(details.map(|(name, value)| format!("          {name}: {value}")));
    lines.push(format!("database  {}", config.database));
    lines.push(format!("scripts   {}", config.scripts.display()));
    lines.extend(script_lines(automation));
    let routes = routes().into_iter();
    lines.extend(routes.map(|(method, path)| format!("route     {:<5} {path}", method.as_str())));
    let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
}

fn script_lines(automation: &Automation) -> Vec<String> {
    let index = automation.scripts();
    let mut lines = Vec::new();
    for script in index.scripts() {
        let category = script.metadata().category.as_deref();
        let category = category.unwrap_or("manual only");
        lines.push(format!("          {} ({category})", script.name()));
    }
    for invalid in index.invalid() {
        lines.push(format!("          {} is invalid", invalid.name));
        let diagnostics = invalid.diagnostics.iter();
        lines.extend(diagnostics.map(|diagnostic| format!("            {diagnostic}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use automation_core::Executor;
    use automation_core::executor::{Ending, ExecutorHealth, FnExecutor, Outcome};
    use serde_json::json;

    use super::{LOOK, cause, used_up};

    #[tokio::test]
    async fn an_executor_that_takes_no_runs_ends_the_server_at_the_second_look() {
        let executor = FnExecutor::new(|_| async { Outcome::new(Ending::Completed) });
        let early = tokio::time::timeout(LOOK * 5 / 2, used_up(&executor)).await;
        assert!(early.is_err(), "it takes runs: {early:?}");
        executor.shutdown(Duration::ZERO).await.unwrap();
        let cause = tokio::time::timeout(LOOK * 20, used_up(&executor)).await;
        assert_eq!(
            cause.unwrap(),
            "its threads are in scripts that could not be stopped"
        );
    }

    #[test]
    fn what_the_executor_says_is_wrong_is_the_cause() {
        let mut health = ExecutorHealth::default();
        let problem = "the interpreter broke when a run met its memory limit";
        health.details.insert("problem".to_owned(), json!(problem));
        assert_eq!(cause(&health), problem);
    }
}
