//! What a run costs, side by side in one go: the script executed bare in a loop, the executor, the engine that
//! records each run in memory or in SQLite, a subprocess.
//!
//! Run with `cargo bench -p automation-py`; words after `--` choose rows. The other load of the machine shows in the absolute figures, less so
//! in the ratios; CPU time a run is the figure to trust.

#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use automation_core::executor::{CancelToken, Ending, Executor, Invocation, RunEvent, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use automation_core::{
    Automation, Durability, ExecutionId, ManualRequest, MemoryStorage, Script, ScriptRegistry,
    SqliteStorage, StatsQuery, Status, Storage,
};
use automation_py::PythonExecutor;
use pyo3::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

const SCRIPT: &str = r#"# /// script
# [tool.automation.parameters.user]
# type = "string"
# [tool.automation.parameters.limit]
# type = "integer"
# ///
import sys, json
p = json.loads(sys.argv[1])
print(json.dumps({"sum": sum(range(10)), **p}))
"#;

/// The limit: code compiled once, a fresh namespace and a fresh stream a run, nothing else.
const BARE: &str = r#"
import io, sys, time
code = compile(sys.argv[1], "bench.py", "exec")
runs = int(sys.argv[3])
sys.argv = ["bench.py", sys.argv[2]]
stdout = sys.stdout
def loop(runs):
    for _ in range(runs):
        sys.stdout = io.StringIO()
        exec(code, {"__name__": "__main__", "__file__": "bench.py"})
        sys.stdout.getvalue()
loop(runs // 10)
wall, cpu = time.perf_counter(), time.process_time()
loop(runs)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
sys.stdout = stdout
print(wall / runs, cpu / runs)
"#;

const ROUNDS: usize = 5;
const RUNS: usize = 20_000;
const PROCESSES: usize = 20;

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

/// Seconds of wall and CPU time a run.
type Cost = (f64, f64);

struct Bench {
    executor: Arc<PythonExecutor>,
    script: Arc<Script>,
    python: String,
    folder: tempfile::TempDir,
}

fn parameters() -> Map<String, Value> {
    let value = json!({ "user": "jdoe", "limit": 5 });
    value.as_object().cloned().unwrap_or_default()
}

impl Bench {
    fn bare(&self) -> Cost {
        let parameters = Value::Object(parameters()).to_string();
        let output = Command::new(&self.python)
            .args(["-c", BARE, SCRIPT, &parameters, &RUNS.to_string()])
            .output()
            .expect("the interpreter starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut figures = text
            .split_whitespace()
            .map(|text| text.parse().expect("a number"));
        let mut next = || figures.next().expect("two figures");
        (next(), next())
    }

    fn executor(&self, in_flight: usize) -> Cost {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let runs = if in_flight == 1 { RUNS / 4 } else { RUNS };
        runtime.block_on(self.drive(in_flight, runs / 10));
        measured(runs, "process_time", || {
            runtime.block_on(self.drive(in_flight, runs));
        })
    }

    async fn drive(&self, in_flight: usize, runs: usize) {
        let left = Arc::new(AtomicUsize::new(runs));
        let callers: Vec<_> = (0..in_flight)
            .map(|_| {
                let (executor, script) = (Arc::clone(&self.executor), Arc::clone(&self.script));
                let left = Arc::clone(&left);
                tokio::spawn(async move {
                    while left
                        .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                            left.checked_sub(1)
                        })
                        .is_ok()
                    {
                        let id = ExecutionId::from_uuid(Uuid::nil());
                        let host = Arc::new(Silent) as Arc<dyn RunHost>;
                        let mut invocation = Invocation::new(id, Arc::clone(&script), host);
                        invocation.parameters = parameters();
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

    /// The whole path: validated, recorded, run, parsed, recorded, counted.
    fn engine(&self, store: Store, callers: usize) -> Cost {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let automation = runtime.block_on(self.automation(store, folder.path()));
        let runs = match (store, callers) {
            (Store::Sqlite(Durability::Full), 1) => RUNS / 100,
            (_, 1) => RUNS / 4,
            _ => RUNS,
        };
        runtime.block_on(record(&automation, callers, runs / 10));
        let cost = measured(runs, "process_time", || {
            runtime.block_on(record(&automation, callers, runs));
        });
        let stats = runtime.block_on(automation.stats(StatsQuery::default()));
        let counted = stats.expect("the storage answers").all.successful;
        assert_eq!(counted, (runs / 10 + runs) as u64, "every run is recorded");
        cost
    }

    async fn automation(&self, store: Store, folder: &Path) -> Automation {
        let storage: Arc<dyn Storage> = match store {
            Store::Memory => Arc::new(MemoryStorage::default()),
            Store::Sqlite(durability) => {
                let file = SqliteStorage::builder(folder.join("bench.db")).durability(durability);
                Arc::new(file.open().await.expect("the database opens"))
            }
        };
        Automation::builder()
            .scripts(ScriptRegistry::from_scripts([self.script.as_ref().clone()]))
            .shared_executor(Arc::clone(&self.executor) as Arc<dyn Executor>)
            .shared_storage(storage)
            .build()
            .expect("the settings are right")
    }

    fn subprocess(&self, flags: &[&str]) -> Cost {
        let path = self.folder.path().join("bench.py");
        std::fs::write(&path, SCRIPT).expect("the folder is ours");
        let parameters = Value::Object(parameters()).to_string();
        measured(PROCESSES, "children", || {
            for _ in 0..PROCESSES {
                let status = Command::new(&self.python)
                    .args(flags)
                    .arg(&path)
                    .arg(&parameters)
                    .stdout(Stdio::null())
                    .status()
                    .expect("the interpreter starts");
                assert!(status.success());
            }
        })
    }
}

/// Where the engine records.
#[derive(Debug, Clone, Copy)]
enum Store {
    Memory,
    Sqlite(Durability),
}

async fn record(automation: &Automation, callers: usize, runs: usize) {
    let left = Arc::new(AtomicUsize::new(runs));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (automation, left) = (automation.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                let next = |left: usize| left.checked_sub(1);
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    let request = ManualRequest::new("bench.py").with_parameters(parameters());
                    let execution = automation.manual(request).await.expect("it is recorded");
                    assert_eq!(execution.status, Status::Completed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
}

/// Returns what `work` costs, a run.
fn measured(runs: usize, clock: &str, work: impl FnOnce()) -> Cost {
    let cpu = cpu_time(clock);
    let wall = Instant::now();
    work();
    let wall = wall.elapsed().as_secs_f64();
    let cpu = cpu_time(clock) - cpu;
    (wall / runs as f64, cpu / runs as f64)
}

/// Returns the CPU time of this process, or of the children that ended.
fn cpu_time(clock: &str) -> f64 {
    Python::attach(|py| {
        if clock == "process_time" {
            return py.import("time")?.call_method0(clock)?.extract::<f64>();
        }
        let times = py.import("os")?.call_method0("times")?;
        let user: f64 = times.getattr("children_user")?.extract()?;
        Ok(user + times.getattr("children_system")?.extract::<f64>()?)
    })
    .expect("the clocks work")
}

fn median(mut costs: Vec<Cost>) -> Cost {
    let mut of = |part: fn(&Cost) -> f64| {
        costs.sort_by(|a, b| part(a).total_cmp(&part(b)));
        part(&costs[costs.len() / 2])
    };
    (of(|cost| cost.0), of(|cost| cost.1))
}

fn main() {
    let executor = PythonExecutor::builder().build().expect("Python starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let health = runtime.block_on(executor.health());
    let python = health.details["executable"].as_str().unwrap_or("python3");
    let bench = Bench {
        python: python.to_owned(),
        executor: Arc::new(executor),
        script: Arc::new(Script::parse("bench.py", SCRIPT.as_bytes()).expect("it is valid")),
        folder: tempfile::tempdir().expect("a folder"),
    };
    let (normal, full) = (
        Store::Sqlite(Durability::Normal),
        Store::Sqlite(Durability::Full),
    );
    type Row<'a> = (&'a str, Box<dyn Fn() -> Cost + 'a>);
    let rows: Vec<Row<'_>> = vec![
        ("bare exec in a loop", Box::new(|| bench.bare())),
        ("executor, 64 in flight", Box::new(|| bench.executor(64))),
        ("executor, 1 caller", Box::new(|| bench.executor(1))),
        (
            "engine in memory, 64 callers",
            Box::new(|| bench.engine(Store::Memory, 64)),
        ),
        (
            "engine in memory, 1 caller",
            Box::new(|| bench.engine(Store::Memory, 1)),
        ),
        (
            "engine on SQLite normal, 64 callers",
            Box::new(|| bench.engine(normal, 64)),
        ),
        (
            "engine on SQLite normal, 1 caller",
            Box::new(|| bench.engine(normal, 1)),
        ),
        (
            "engine on SQLite full, 64 callers",
            Box::new(|| bench.engine(full, 64)),
        ),
        (
            "engine on SQLite full, 1 caller",
            Box::new(|| bench.engine(full, 1)),
        ),
        (
            "python3 -I -S script",
            Box::new(|| bench.subprocess(&["-I", "-S"])),
        ),
        ("python3 script", Box::new(|| bench.subprocess(&[]))),
    ];
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let rows: Vec<Row<'_>> = rows
        .into_iter()
        .filter(|(name, _)| chosen(name) || name.starts_with("bare"))
        .collect();
    let mut costs: Vec<Vec<Cost>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, measure), costs) in rows.iter().zip(&mut costs) {
            costs.push(measure());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let medians: Vec<Cost> = costs.into_iter().map(median).collect();
    let bare = medians[0];
    println!("{}\n", health.version.unwrap_or_default());
    println!("| one run | wall us | CPU us | wall ratio | CPU ratio |");
    println!("|---|---:|---:|---:|---:|");
    for ((name, _), (wall, cpu)) in rows.iter().zip(medians) {
        println!(
            "| {name} | {:.1} | {:.1} | {:.2} | {:.2} |",
            wall * 1e6,
            cpu * 1e6,
            wall / bare.0,
            cpu / bare.1
        );
    }
}
