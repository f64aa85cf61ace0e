//! A Rust program that links the crates: runs one script in this process and prints what came of it.
//!
//! Run it with `cargo run -p automation-examples --bin embed -- disk_cleanup.py '{"dry_run": true}'`.

use std::error::Error;
use std::process::ExitCode;

use automation_core::{Automation, ManualRequest, ScriptRegistry, SqliteStorage, Status, json};
use automation_py::PythonExecutor;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let script = arguments.next().ok_or("usage: embed SCRIPT [PARAMETERS]")?;
    let parameters = arguments.next().unwrap_or_else(|| "{}".to_owned());

    let automation = Automation::builder()
        .scripts(ScriptRegistry::load("scripts")?)
        .executor(PythonExecutor::builder().build()?)
        .storage(SqliteStorage::open("embed.db").await?)
        .build()?;

    let request =
        ManualRequest::new(script).with_parameters(json::read_object(parameters.as_bytes())?);
    let execution = automation.manual(request).await?;
    println!(
        "{} is {} after {:?} s",
        execution.id,
        execution.status,
        execution.execution_time_seconds()
    );
    println!(
        "{}",
        execution
            .parsed_output
            .as_ref()
            .map_or_else(|| execution.output.clone(), ToString::to_string)
    );

    let stats = automation.stats(Default::default()).await?;
    println!(
        "{} of {} runs completed so far",
        stats.all.successful, stats.all.total
    );

    automation
        .shutdown(std::time::Duration::from_secs(5))
        .await?;
    Ok(if execution.status == Status::Completed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
