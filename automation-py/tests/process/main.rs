//! The executor that isolates: scripts see what they see in the process of the engine, and whatever they do ends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "../executor/children.rs"]
mod children;
#[path = "../executor/concurrency.rs"]
mod concurrency;
#[path = "../executor/context.rs"]
mod context;
#[path = "../executor/effects.rs"]
mod effects;
#[path = "../executor/endings.rs"]
mod endings;
#[path = "../executor/environment.rs"]
mod environment;
#[path = "../executor/folder.rs"]
mod folder;
#[path = "../executor/main_module.rs"]
mod main_module;
mod misbehaving;
#[path = "../executor/place.rs"]
mod place;
#[path = "../executor/queue.rs"]
mod queue;
#[path = "../executor/run_cmd.rs"]
mod run_cmd;
#[path = "../executor/run_entry.rs"]
mod run_entry;
#[path = "../executor/streams.rs"]
mod streams;
#[path = "../executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the other executor")]
mod support;
#[path = "../executor/threads.rs"]
mod threads;
mod zygote;

use automation_py::ProcessExecutor as Tested;

/// Returns an executor; on another interpreter where `AUTOMATION_TEST_PYTHON` names one.
fn executor() -> Tested {
    let builder = Tested::builder();
    let builder = match std::env::var_os("AUTOMATION_TEST_PYTHON") {
        Some(python) => builder.python(python),
        None => builder,
    };
    builder.build().unwrap()
}

/// Returns the living processes with this command line.
fn processes(command: &[&str]) -> Vec<u32> {
    let line: Vec<u8> = command
        .iter()
        .flat_map(|word| [word.as_bytes(), b"\0"].concat())
        .collect();
    let running =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line);
    pids().filter(running).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the parent of a process.
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields.split_whitespace());
    fields
        .and_then(|mut fields| fields.nth(1)?.parse().ok())
        .unwrap_or_default()
}

/// Returns the children of a process, zombies among them.
fn children(pid: u32) -> Vec<u32> {
    pids().filter(|child| parent(*child) == pid).collect()
}

/// Returns how many descriptors a process has open.
fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}
