//! Whose turn it is, measured: throughput at 1, 8 and 64 callers, and how long a trivial script takes beside
//! scripts that sleep, compute, or hold the interpreter in C code.
//!
//! Run with `cargo bench -p automation-py --bench scheduling`.

#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use automation_core::executor::{CancelToken, Executor, Invocation, RunEvent, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{ExecutionId, Script};
use automation_py::PythonExecutor;
use serde_json::Value;
use uuid::Uuid;

const TRIVIAL: &str = "print(1)\n";
const SLEEP: &str = "import time\ntime.sleep(0.3)\n";
const COMPUTE: &str =
    "import time\nend = time.thread_time() + 0.3\nwhile time.thread_time() < end: pass\n";
/// About 100 ms in one C call that keeps the GIL.
const HOG: &str = "sum(range(4_000_000))\n";

const ROUNDS: usize = 5;
const RUNS: usize = 20_000;
const SAMPLES: usize = 400;

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

fn script(name: &str, source: &str) -> Arc<Script> {
    Arc::new(Script::parse(name, source.as_bytes()).expect("it is valid"))
}

async fn run(executor: &PythonExecutor, script: &Arc<Script>) {
    let id = ExecutionId::from_uuid(Uuid::nil());
    let invocation = Invocation::new(id, Arc::clone(script), Arc::new(Silent));
    let outcome = executor.execute(invocation, CancelToken::new()).await;
    drop(outcome.expect("it runs"));
}

/// Runs a second with so many callers.
async fn throughput(executor: &Arc<PythonExecutor>, callers: usize) -> f64 {
    let trivial = script("trivial.py", TRIVIAL);
    let left = Arc::new(AtomicUsize::new(RUNS));
    let begin = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (executor, left) = (Arc::clone(executor), Arc::clone(&left));
            let trivial = Arc::clone(&trivial);
            tokio::spawn(async move {
                let next = |left: usize| left.checked_sub(1);
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    run(&executor, &trivial).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
    RUNS as f64 / begin.elapsed().as_secs_f64()
}

/// Times of a trivial script, one after the other, beside others that run without a pause.
async fn beside(executor: &Arc<PythonExecutor>, others: &[(&str, &str, usize)]) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (name, source, count) in others {
        for _ in 0..*count {
            let (executor, stop, script) = (
                Arc::clone(executor),
                Arc::clone(&stop),
                script(name, source),
            );
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    run(&executor, &script).await;
                }
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let trivial = script("trivial.py", TRIVIAL);
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        run(executor, &trivial).await;
        times.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("no caller panics");
    }
    times.sort();
    times
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let executor = Arc::new(PythonExecutor::builder().build().expect("Python starts"));
    runtime.block_on(async {
        println!("| callers | runs/s, median of {ROUNDS} rounds |\n|---:|---:|");
        let mut figures = [1, 8, 64].map(|callers| (callers, Vec::new()));
        for _ in 0..ROUNDS {
            for (callers, rates) in &mut figures {
                rates.push(throughput(&executor, *callers).await);
            }
        }
        for (callers, rates) in &mut figures {
            rates.sort_by(f64::total_cmp);
            println!("| {callers} | {:.0} |", rates[ROUNDS / 2]);
        }
        println!("\n| a trivial script beside | p50 ms | p99 ms | max ms |\n|---|---:|---:|---:|");
        let (sleep, compute) = (("sleep.py", SLEEP, 8), ("compute.py", COMPUTE, 2));
        let hog = ("hog.py", HOG, 1);
        for (name, others) in [
            ("nothing", &[] as &[_]),
            ("8 that sleep", &[sleep]),
            ("8 that sleep, 2 that compute", &[sleep, compute]),
            (
                "those and 1 that holds the GIL in C code",
                &[sleep, compute, hog],
            ),
            ("200 that sleep", &[("sleep.py", SLEEP, 200)]),
        ] {
            let times = beside(&executor, others).await;
            let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e3;
            let max = times[times.len() - 1].as_secs_f64() * 1e3;
            println!("| {name} | {:.2} | {:.2} | {max:.2} |", at(0.5), at(0.99));
        }
    });
}
