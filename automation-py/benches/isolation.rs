//! What isolation costs a run, side by side in one go: in this process, in a forked process of the run's own, and in
//! an interpreter that is started for it.
//!
//! Run with `cargo bench -p automation-py --bench isolation`. The medians are of single runs, one after the other.

#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::executor::{CancelToken, Ending, Executor, Invocation, RunEvent, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{ExecutionId, Script};
use automation_py::{ProcessExecutor, PythonExecutor};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const SMALL: &str = "import sys, json\np = json.loads(sys.argv[1])\nprint(json.dumps({'sum': sum(range(10)), **p}))\n";
/// What an ordinary script imports.
const ORDINARY: &str = "import argparse, json, logging, os, pathlib, shutil, subprocess, sys, tempfile, time, urllib.request\n\
                        from automation import ctx\nctx.progress(0.5, 'half')\nprint(json.dumps({'free': shutil.disk_usage('/').free > 0}))\n";
const RUNS: usize = 300;
const PROCESSES: usize = 30;
const AT_ONCE: usize = 16;

#[derive(Debug)]
struct Silent;

impl RunHost for Silent {
    fn started(&self) {}
    fn emit(&self, _event: RunEvent) {}
    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        let name = name.to_owned();
        Err(SecretError::Missing { name })
    }
    fn journal(&self, _entry: Value) -> Result<(), StorageError> {
        Ok(())
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn is_cancelled(&self) -> bool {
        false
    }
    fn dry_run(&self) -> bool {
        false
    }
}

fn invocation(script: &Arc<Script>) -> Invocation {
    let id = ExecutionId::from_uuid(Uuid::nil());
    let mut invocation = Invocation::new(id, Arc::clone(script), Arc::new(Silent));
    invocation.parameters = json!({ "user": "jdoe" })
        .as_object()
        .cloned()
        .unwrap_or_default();
    invocation
}

async fn run(executor: &dyn Executor, script: &Arc<Script>) {
    let outcome = executor
        .execute(invocation(script), CancelToken::new())
        .await;
    assert_eq!(outcome.expect("it runs").ending, Ending::Completed);
}

/// Returns the times of single runs, sorted.
fn timed(runs: usize, mut one: impl FnMut()) -> Vec<Duration> {
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            one();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn of_executor(runtime: &Runtime, executor: &dyn Executor, script: &Arc<Script>) -> Vec<Duration> {
    for _ in 0..20 {
        runtime.block_on(run(executor, script));
    }
    timed(RUNS, || runtime.block_on(run(executor, script)))
}

fn of_subprocess(python: &str, source: &str) -> Vec<Duration> {
    // By hand there is no context.
    let source = source.replace(
        "from automation import ctx\nctx.progress(0.5, 'half')\n",
        "",
    );
    timed(PROCESSES, || {
        let mut command = Command::new(python);
        command.args(["-c", &source, "{}"]).stdout(Stdio::null());
        assert!(command.status().expect("the interpreter starts").success());
    })
}

/// Returns the runs a second of many callers.
async fn throughput(executor: &Arc<dyn Executor>, script: &Arc<Script>) -> f64 {
    let begin = Instant::now();
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (executor, script) = (Arc::clone(executor), Arc::clone(script));
            tokio::spawn(async move {
                for _ in 0..RUNS / AT_ONCE {
                    run(&*executor, &script).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
    (RUNS / AT_ONCE * AT_ONCE) as f64 / begin.elapsed().as_secs_f64()
}

fn main() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    let inside = PythonExecutor::builder().build().expect("Python starts");
    let isolated = ProcessExecutor::builder().build().expect("threads start");
    let isolated: Arc<dyn Executor> = Arc::new(isolated);
    let health = runtime.block_on(inside.health());
    let python = health.details["executable"].as_str().unwrap_or("python3");
    println!("{}\n", health.version.unwrap_or_default());
    println!("| one run | median us | p95 us |");
    println!("|---|---:|---:|");
    for (name, source) in [("small", SMALL), ("ordinary imports", ORDINARY)] {
        let script = Arc::new(Script::parse("bench.py", source.as_bytes()).expect("it is valid"));
        for (how, times) in [
            ("in this process", of_executor(&runtime, &inside, &script)),
            (
                "isolated, warm zygote",
                of_executor(&runtime, &*isolated, &script),
            ),
            ("python3", of_subprocess(python, source)),
        ] {
            let at = |part: usize| times[times.len() * part / 100].as_micros();
            println!("| {name}: {how} | {} | {} |", at(50), at(95));
        }
    }
    let script = Arc::new(Script::parse("bench.py", SMALL.as_bytes()).expect("it is valid"));
    let per_second = runtime.block_on(throughput(&isolated, &script));
    println!("\nisolated, {AT_ONCE} callers: {per_second:.0} runs a second");
}
