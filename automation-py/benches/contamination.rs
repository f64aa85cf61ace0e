//! What looking for contamination costs a run: the same scripts with the checks on and off, in one go.
//!
//! Run with `cargo bench -p automation-py --bench contamination`. Rounds are interleaved, so that the other load of
//! the machine meets both alike.

#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::sync::Arc;
use std::time::Instant;

use automation_core::executor::{CancelToken, Ending, Executor, Invocation, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{ExecutionId, Script};
use automation_py::PythonExecutor;
use serde_json::Value;
use uuid::Uuid;

const ROUNDS: usize = 9;
const IN_FLIGHT: usize = 64;

/// What is run: a name, a source, how often a round.
const SCRIPTS: [(&str, &str, usize); 4] = [
    (
        "prints JSON",
        "import sys, json\nprint(json.dumps({'sum': sum(range(10)), **json.loads(sys.argv[1])}))\n",
        20_000,
    ),
    (
        "10 imports",
        "import sys, json, os, re, time, math, random, decimal, logging, threading\n",
        20_000,
    ),
    (
        "imports a helper of its folder",
        "import bench_helper\nbench_helper.f()\n",
        4_000,
    ),
    (
        "sets and restores a name",
        "import json\nold = json.dumps\njson.dumps = None\njson.dumps = old\n",
        20_000,
    ),
];

#[derive(Debug)]
struct Silent;

impl RunHost for Silent {
    fn started(&self) {}
    fn emit(&self, _event: automation_core::executor::RunEvent) {}
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

/// Returns microseconds of wall time a run, with 64 in flight.
async fn measure(executor: &Arc<PythonExecutor>, script: &Arc<Script>, runs: usize) -> f64 {
    let start = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (executor, script) = (Arc::clone(executor), Arc::clone(script));
            tokio::spawn(async move {
                for _ in 0..runs / IN_FLIGHT {
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
    start.elapsed().as_secs_f64() * 1e6 / runs as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bench_helper.py"), "def f(): pass\n").expect("it is ours");
    let executor = |on: bool| {
        let builder = PythonExecutor::builder().contamination_checks(on);
        Arc::new(builder.build().expect("Python starts"))
    };
    let executors = [executor(false), executor(true)];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    let health = runtime.block_on(executors[0].health());
    println!("{}\n", health.version.unwrap_or_default());
    println!("| script | off, us | on, us | on / off |");
    println!("|---|---:|---:|---:|");
    for (name, source, runs) in SCRIPTS {
        let path = folder.path().join("bench.py");
        let script = Arc::new(Script::parse(path, source.as_bytes()).expect("it is valid"));
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (executor, costs) in executors.iter().zip(&mut costs) {
                costs.push(runtime.block_on(measure(executor, &script, runs)));
            }
        }
        let [off, on] = costs.map(median);
        println!("| {name} | {off:.2} | {on:.2} | {:.3} |", on / off);
    }
}
