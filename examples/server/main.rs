//! The bundled server: reads its variables, builds the engine, serves it, and ends in good order.
//!
//! Run it with `cargo run -p automation-examples --bin automation-server`; `--help` lists every variable.

mod config;
mod descriptors;
mod env_file;
mod listen;
mod logging;
mod run;
mod signals;
mod variables;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use automation_core::{PostgresStorage, SqliteStorage};
use config::{Config, Database};
use logging::Log;
use variables::Values;

/// What `main` ends with when a variable has a wrong value.
const EXIT_WRONG_VALUE: i32 = 2;
/// What `main` ends with when the server could not start, or not end in good order.
const EXIT_FAILED: i32 = 1;
/// Time that the last lines get to be written.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

fn main() {
    let matches = variables::command().get_matches();
    if matches.get_flag(variables::PRINT_SCHEMA) {
        // Whoever reads it may have enough before the end.
        let _ = std::io::stdout().write_all(PostgresStorage::schema().as_bytes());
        return;
    }
    let flags = variables::given_flags(&matches);
    let config = match read_config(flags) {
        Ok(config) => config,
        Err(sentences) => end(EXIT_WRONG_VALUE, sentences, None),
    };
    if let Some(to) = matches.get_one::<PathBuf>(variables::BACK_UP) {
        match back_up(&config.database, to) {
            Ok(()) => return,
            Err(sentence) => end(EXIT_FAILED, vec![sentence], None),
        }
    }
    let log = match logging::start(&config.logs, &config.log_filter) {
        Ok(log) => log,
        Err(sentence) => end(EXIT_FAILED, vec![sentence], None),
    };
    match start(config) {
        Ok(code) => end(code, Vec::new(), Some(log)),
        Err(sentence) => end(EXIT_FAILED, vec![sentence], Some(log)),
    }
}

fn read_config(flags: HashMap<String, String>) -> Result<Config, Vec<String>> {
    let (file, mut sentences) = env_file::read(Path::new(".env"));
    let (environment, unreadable) = variables::environment(std::env::vars_os());
    sentences.extend(unreadable);
    let values = Values {
        flags,
        environment,
        file,
    };
    match Config::read(&values) {
        Ok(config) if sentences.is_empty() => Ok(config),
        Ok(_) => Err(sentences),
        Err(more) => Err([sentences, more].concat()),
    }
}

/// Copies the database; a server that uses it goes on meanwhile.
fn back_up(database: &Database, to: &Path) -> Result<(), String> {
    let Database::Sqlite(from) = database else {
        return Err(format!(
            "--{} copies SQLite files, and DATABASE_URL names {database}: PostgreSQL has pg_dump",
            variables::BACK_UP
        ));
    };
    let copied = SqliteStorage::back_up_file(from, to);
    copied.map(drop).map_err(|error| error.to_string())
}

fn start(config: Config) -> Result<i32, String> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| format!("the runtime could not be started: {error}"))?;
    let result = runtime.block_on(run::run(config));
    // A thread that no means can stop would hold a runtime that is dropped.
    std::mem::forget(runtime);
    result
}

/// Writes the last lines and ends the process, without finalising Python: a script's thread that still runs would
/// hold it, or crash in it. The lines are written on another thread, since stderr may take nothing any more.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "this is the program and not a library"
)]
fn end(code: i32, sentences: Vec<String>, log: Option<Log>) -> ! {
    let (written, waits) = mpsc::channel();
    std::thread::spawn(move || {
        drop(log);
        for sentence in sentences {
            // There may be no log yet, and the person who starts the server looks here.
            let _ = writeln!(std::io::stderr(), "automation-server: {sentence}");
        }
        let _ = written.send(());
    });
    let _ = waits.recv_timeout(LAST_LINES_MAX);
    std::process::exit(code)
}
