//! What counting and limiting costs a run: the same runs with accounting on and off, each in a process of its own
//! since the hooks stay once they are installed, in turns.
//!
//! Run with `cargo bench -p automation-py --bench accounting`.

#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use automation_core::executor::{CancelToken, Ending, Executor, Invocation, RunEvent, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{ExecutionId, Script};
use automation_py::PythonExecutor;
use pyo3::prelude::*;
use serde_json::Value;
use uuid::Uuid;

/// A name, the source, and how many runs make a round.
type Case = (&'static str, &'static str, usize);

const CASES: [Case; 4] = [
    ("trivial", "print(1)", 30_000),
    (
        "about 100 us: json",
        "import json\nrows = [{'id': n, 'name': str(n), 'tags': ['a', 'b']} for n in range(80)]\n\
         print(len(json.loads(json.dumps(rows))))",
        10_000,
    ),
    (
        "about 100 us: strings",
        "parts = []\nfor n in range(600):\n    parts.append('line %d of the report' % n)\ntext = '\\n'.join(parts)\n\
         print(len(text.upper().split('\\n')))",
        10_000,
    ),
    (
        "large blocks",
        "print(sum(len(bytes(n * 1000)) for n in range(40)))",
        10_000,
    ),
];
const ROUNDS: usize = 9;
const IN_FLIGHT: usize = 16;

#[derive(Debug)]
struct Silent;

impl RunHost for Silent {
    fn started(&self) {}
    fn emit(&self, _event: RunEvent) {}
    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        Err(SecretError::Missing {
            name: name.to_owned(),
        })
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

async fn drive(executor: &Arc<PythonExecutor>, script: &Arc<Script>, runs: usize) {
    let left = Arc::new(AtomicUsize::new(runs));
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (executor, script) = (Arc::clone(executor), Arc::clone(script));
            let left = Arc::clone(&left);
            tokio::spawn(async move {
                let next = |left: usize| left.checked_sub(1);
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    let id = ExecutionId::from_uuid(Uuid::nil());
                    let host = Arc::new(Silent) as Arc<dyn RunHost>;
                    let invocation = Invocation::new(id, Arc::clone(&script), host);
                    let outcome = executor.execute(invocation, CancelToken::new()).await;
                    assert_eq!(outcome.expect("it runs").ending, Ending::Completed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

/// Returns the processor time of this process in seconds.
fn cpu_time() -> f64 {
    Python::attach(|py| {
        py.import("time")?
            .call_method0("process_time")?
            .extract::<f64>()
    })
    .expect("the clock works")
}

/// One round in this process: prints the microseconds of processor time that a run of each case takes.
fn round(accounting: bool) {
    let executor = PythonExecutor::builder().accounting(accounting).build();
    let executor = Arc::new(executor.expect("Python starts"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    for (_, source, runs) in CASES {
        let script = Script::parse("bench.py", source.as_bytes()).expect("it is valid");
        let script = Arc::new(script);
        runtime.block_on(drive(&executor, &script, runs / 10));
        let begin = cpu_time();
        runtime.block_on(drive(&executor, &script, runs));
        println!("{}", (cpu_time() - begin) / runs as f64 * 1e6);
    }
}

fn measured(word: &str) -> Vec<f64> {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .arg(word)
        .output()
        .expect("it starts again");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.parse().expect("a number"))
        .collect()
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("on") => return round(true),
        Some("off") => return round(false),
        _ => {}
    }
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| (measured("off"), measured("on")))
        .collect();
    println!("| one run, CPU us | off | on | more | least off | least on |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (case, (name, ..)) in CASES.iter().enumerate() {
        let off = median(rounds.iter().map(|round| round.0[case]));
        let on = median(rounds.iter().map(|round| round.1[case]));
        let least = |figures: &mut dyn Iterator<Item = f64>| figures.fold(f64::INFINITY, f64::min);
        let least_off = least(&mut rounds.iter().map(|round| round.0[case]));
        let least_on = least(&mut rounds.iter().map(|round| round.1[case]));
        println!(
            "| {name} | {off:.2} | {on:.2} | {:.2} | {least_off:.2} | {least_on:.2} |",
            on - off
        );
    }
}
