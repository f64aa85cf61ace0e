//! A Rust program that links the crates: runs one script in this process and prints what came of it.
//!
//! Run it with `cargo run -p automation-examples --example embed -- disk_cleanup.py '{"dry_run": true}'`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use automation_core::{
    Automation, ManualRequest, ScriptRegistry, SqliteStorage, StatsQuery, Status, json,
};
use automation_py::PythonExecutor;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "this is a program for a terminal")]
async fn main() -> ExitCode {
    run().await.unwrap_or_else(|error| {
        eprintln!("embed: {error}");
        ExitCode::from(2)
    })
}

#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let script = arguments
        .first()
        .ok_or("usage: embed SCRIPT [PARAMETERS]")?;
    let parameters = arguments.get(1).map_or("{}", String::as_str);
    let parameters = json::read_object(parameters.as_bytes())?;

    let automation = Automation::builder()
        .scripts(ScriptRegistry::load("scripts")?)
        .executor(PythonExecutor::builder().build()?)
        .storage(SqliteStorage::open("embed.db").await?)
        .build()?;

    let request = ManualRequest::new(script).with_parameters(parameters);
    let execution = automation.manual(request).await?;
    println!("{} is {}", execution.id, execution.status);
    match (&execution.parsed_output, &execution.error) {
        (Some(result), _) => println!("{result:#}"),
        (None, Some(error)) => println!("{error}"),
        (None, None) => println!("{}", execution.output),
    }

    let stats = automation.stats(StatsQuery::default()).await?.all;
    println!(
        "{} of {} runs completed so far",
        stats.successful, stats.total
    );
    automation.shutdown(Duration::from_secs(5)).await?;
    Ok(match execution.status {
        Status::Completed => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
