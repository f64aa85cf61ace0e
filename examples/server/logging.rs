//! Where log lines go: to stderr for whoever watches, and to one file a day.

use std::io::IsTerminal;
use std::path::Path;

use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// Log files that are kept.
const FILES_MAX: usize = 30;

/// Starts to log.
///
/// # Errors
/// A sentence that says why the log files can't be written.
pub(crate) fn start(folder: &Path, filter: &str) -> Result<(), String> {
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
    let terminal = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(EnvFilter::new(filter))
        .with(terminal)
        .with(fmt::layer().with_writer(file).with_ansi(false))
        .try_init()
        .map_err(|error| format!("the log could not be started: {error}"))
}
