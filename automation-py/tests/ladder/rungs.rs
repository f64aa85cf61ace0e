//! Each row of the table, as often as a median needs.

use std::fs;
use std::time::Duration;

use automation_core::executor::{Executor, Outcome};
use automation_core::{Concern, Reason};
use automation_py::PythonExecutor;

use crate::ALONE;
use crate::cases::{End, MARK, ROWS, Row};
use crate::support::{Case, failure};

const TIMEOUT: Duration = Duration::from_millis(50);
const ROUNDS: usize = 20;
/// From the deadline to the end, as a median.
const LATENCY_MAX: Duration = Duration::from_millis(100);
const SIDE_BY_SIDE: usize = 4;

async fn ended(executor: &PythonExecutor, row: &Row) -> Outcome {
    let outcome = Case::new(row.source).within(TIMEOUT).run(executor).await;
    let (reason, message) = failure(&outcome);
    assert_eq!(
        reason,
        Reason::Timeout,
        "{}: {message}\n{}",
        row.name,
        outcome.output.stderr.text
    );
    outcome
}

/// Returns the median time from the deadline to the end, once every run has truly ended.
async fn median(executor: &PythonExecutor, row: &Row) -> (Duration, usize) {
    let mut latencies = Vec::new();
    let mut left = 0;
    for _ in 0..ROUNDS {
        let outcome = ended(executor, row).await;
        left += usize::from(outcome.still_running);
        latencies.push(outcome.duration - TIMEOUT);
    }
    latencies.sort();
    (latencies[ROUNDS / 2], left)
}

/// Returns what is wrong with a row.
async fn fault(executor: &PythonExecutor, row: &Row) -> Option<String> {
    let (median, left) = median(executor, row).await;
    let text = format!(
        "{:>7.1} ms, {left} left  {}",
        median.as_secs_f64() * 1e3,
        row.name
    );

    (median > LATENCY_MAX || left > 0).then_some(text)
}

/// Returns what programs of the scripts are left.
fn left_programs() -> Vec<String> {
    let lines = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| {
            let line = fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(MARK).then_some(line)
        });
    lines.collect()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_ends_within_100_ms_and_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder().build().unwrap();
    let _ = Case::new("import asyncio, subprocess, multiprocessing, concurrent.futures\n")
        .run(&executor)
        .await;
    let before = threads();
    let rows: Vec<_> = ROWS.iter().filter(|row| !row.end.computes()).collect();
    let mut slow = Vec::new();
    for some in rows.chunks(SIDE_BY_SIDE) {
        let medians = some.iter().map(|row| fault(&executor, row));
        slow.extend(futures_in_order(medians).await.into_iter().flatten());
    }
    assert!(slow.is_empty(), "{slow:#?}");
    assert_eq!(executor.health().await.quarantined_threads, 0);
    let works = Case::new("print('works')").run(&executor).await;
    assert_eq!(works.output.stdout.text, "works\n");
    assert_eq!(left_programs(), [""; 0]);
    // Threads of the runtime come and go.
    assert!(
        threads() <= before + 4,
        "{} threads, {before} before",
        threads()
    );
}

async fn futures_in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *output = Some(value);
            }
        }
        match outputs.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[tokio::test]
async fn what_computes_in_python_ends_within_100_ms() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder().build().unwrap();
    let mut slow = Vec::new();
    for row in ROWS
        .iter()
        .filter(|row| matches!(row.end, End::Exception | End::Trace))
    {
        slow.extend(fault(&executor, row).await);
    }
    assert!(slow.is_empty(), "{slow:#?}");
    assert_eq!(executor.health().await.quarantined_threads, 0);
}

#[tokio::test]
async fn c_code_is_answered_for_within_a_second() {
    let _alone = ALONE.lock().await;
    for row in ROWS.iter().filter(|row| row.end == End::Abandoned) {
        let executor = PythonExecutor::builder().build().unwrap();
        let outcome = ended(&executor, row).await;
        assert!(outcome.still_running, "{}", row.name);
        assert_eq!(outcome.concern, Some(Concern::Abandoned));
        let latency = outcome.duration - TIMEOUT;
        assert!(
            latency < Duration::from_secs(1),
            "{}: {latency:?}",
            row.name
        );
        while executor.health().await.quarantined_threads > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Prints the table of the documentation: `cargo test -p automation-py --test ladder table -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures, and takes minutes"]
async fn table() {
    let _alone = ALONE.lock().await;
    let executor = PythonExecutor::builder().build().unwrap();
    let modules = "import asyncio, subprocess, multiprocessing, hashlib, concurrent.futures\n";
    let _ = Case::new(modules).run(&executor).await;
    let version = executor.health().await.version.unwrap_or_default();
    println!("| case | what ends it | {version}: ms |\n|---|---|---:|");
    for row in ROWS {
        let mut latencies = Vec::new();
        let rounds = if row.end == End::Abandoned { 3 } else { ROUNDS };
        for _ in 0..rounds {
            latencies.push(ended(&executor, row).await.duration - TIMEOUT);
            while executor.health().await.quarantined_threads > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        latencies.sort();
        let median = latencies[rounds / 2].as_secs_f64() * 1e3;
        println!("| {} | {} | {median:.1} |", row.name, row.end.words());
    }
}
