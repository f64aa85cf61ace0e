//! Where log lines go: to stderr for whoever watches, and to one file a day. Each place has a thread of its own,
//! since a place that takes no more lines must not hold the server; lines that it can't take are dropped.

use std::io::{IsTerminal, Write};
use std::path::Path;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// Log files that are kept.
const FILES_MAX: usize = 30;
/// Lines that may wait for each place.
const LINES_MAX: usize = 10_000;

/// Writes what still waits when it is dropped. That may block as long as a place takes nothing.
#[derive(Debug)]
pub(crate) struct Log {
    // In this order: the file is safe when stderr is stuck.
    _file: WorkerGuard,
    _terminal: WorkerGuard,
}

/// Starts to log.
///
/// # Errors
/// A sentence that says why the log files can't be written.
pub(crate) fn start(folder: &Path, filter: &str) -> Result<Log, String> {
    let refused = |cause: &dyn std::fmt::Display| {
        format!(
            "LOGS_PATH is {:?}, which can't be written to: {cause}",
            folder.display()
        )
    };
    std::fs::create_dir_all(folder).map_err(|error| refused(&error))?;
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("automation")
        .filename_suffix("log")
        .max_log_files(FILES_MAX)
        .build(folder)
        .map_err(|error| refused(&error))?;
    let (file, file_guard) = in_background(file);
    let (terminal, terminal_guard) = in_background(std::io::stderr());
    let terminal = fmt::layer()
        .with_writer(terminal)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(EnvFilter::new(filter))
        .with(terminal)
        .with(fmt::layer().with_writer(file).with_ansi(false))
        .try_init()
        .map_err(|error| format!("the log could not be started: {error}"))?;
    Ok(Log {
        _file: file_guard,
        _terminal: terminal_guard,
    })
}

fn in_background(place: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .finish(place)
}
