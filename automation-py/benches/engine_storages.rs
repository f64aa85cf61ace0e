//! Logged runs a second on each storage, with many callers, beside a subprocess a run on the same processors.
//!
//! Run with `cargo bench -p automation-py --bench engine_storages`. A trivial script, 128 waiting callers; a run is
//! validated, recorded, executed, parsed, recorded and counted. The subprocesses record nothing; as many run at a time as
//! there are processors. All rows are measured in turns, so that other load of the machine meets each. PostgreSQL is
//! measured where it is installed, on a server that syncs; processor time is that of this process and its children, the
//! server not among them.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends when it can't measure"
)]

#[path = "../../automation-core/tests/storage_postgres/cluster.rs"]
#[expect(dead_code, reason = "tests do more with servers")]
mod cluster;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use automation_core::executor::Executor;
use automation_core::{
    Automation, Durability, ManualRequest, PostgresStorage, Script, ScriptRegistry, SqliteStorage,
    StatsQuery, Status, Storage,
};
use automation_py::PythonExecutor;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

const SCRIPT: &str = "import json\nprint(json.dumps({\"cleaned\": 3}))\n";
const NAME: &str = "trivial.py";
const CALLERS: usize = 128;
const ROUNDS: usize = 5;
const RUNS: usize = 20_000;
const PROCESSES: usize = 40;

/// What of a row a second, and processor microseconds a run.
type Rate = (f64, f64);

struct Bench {
    runtime: Runtime,
    executor: Arc<PythonExecutor>,
    python: String,
    folder: tempfile::TempDir,
    server: Option<Cluster>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let executor = PythonExecutor::builder().build().unwrap();
        let health = runtime.block_on(executor.health());
        println!("{}\n", health.version.unwrap_or_default());
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(folder.path().join(NAME), SCRIPT).unwrap();
        let python = health.details["executable"].as_str().unwrap_or("python3");
        Self {
            runtime,
            executor: Arc::new(executor),
            python: python.to_owned(),
            folder,
            server: cluster::installed("postgres").map(|_| Cluster::start(&["max_wal_size=4GB"])),
        }
    }

    fn sqlite(&self, durability: Durability) -> Rate {
        // A folder a round: a database grows slower with its size.
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let file = SqliteStorage::builder(folder.path().join("bench.db")).durability(durability);
        let storage = self.runtime.block_on(file.open()).unwrap();
        self.engine(&(Arc::new(storage) as Arc<dyn Storage>))
    }

    fn postgres(&self, server: &Cluster) -> Rate {
        let url = server.url(&server.empty());
        let storage = self.runtime.block_on(PostgresStorage::connect(url));
        self.engine(&(Arc::new(storage.unwrap()) as Arc<dyn Storage>))
    }

    /// The whole path.
    fn engine(&self, storage: &Arc<dyn Storage>) -> Rate {
        let _entered = self.runtime.enter();
        let automation = Automation::builder()
            .scripts(ScriptRegistry::from_scripts([Script::parse(
                NAME,
                SCRIPT.as_bytes(),
            )
            .unwrap()]))
            .shared_executor(Arc::clone(&self.executor) as Arc<dyn Executor>)
            .shared_storage(Arc::clone(storage))
            .build()
            .unwrap();
        self.runtime.block_on(record(&automation, RUNS / 10));
        let rate = measured(RUNS, || {
            self.runtime.block_on(record(&automation, RUNS));
        });
        let stats = self
            .runtime
            .block_on(automation.stats(StatsQuery::default()));
        let counted = stats.unwrap().all.successful;
        assert_eq!(counted, (RUNS / 10 + RUNS) as u64, "every run is recorded");
        drop(automation);
        self.runtime.block_on(storage.close()).unwrap();
        rate
    }

    fn subprocess(&self, flags: &[&str]) -> Rate {
        let left = AtomicUsize::new(PROCESSES);
        let processors = std::thread::available_parallelism().unwrap().get();
        let path = self.folder.path().join(NAME);
        measured(PROCESSES, || {
            std::thread::scope(|scope| {
                for _ in 0..processors {
                    scope.spawn(|| {
                        while take(&left) {
                            let mut python = Command::new(&self.python);
                            let python = python.args(flags).arg(&path).stdout(Stdio::null());
                            assert!(python.status().unwrap().success());
                        }
                    });
                }
            });
        })
    }
}

fn take(left: &AtomicUsize) -> bool {
    left.try_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

async fn record(automation: &Automation, runs: usize) {
    let left = Arc::new(AtomicUsize::new(runs));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (automation, left) = (automation.clone(), Arc::clone(&left));
        callers.spawn(async move {
            while take(&left) {
                let execution = automation.manual(ManualRequest::new(NAME)).await.unwrap();
                assert_eq!(execution.status, Status::Completed);
            }
        });
    }
    callers.join_all().await;
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn measured(runs: usize, work: impl FnOnce()) -> Rate {
    let (begin, cpu) = (Instant::now(), cpu_time());
    work();
    let (wall, cpu) = (begin.elapsed(), cpu_time() - cpu);
    let runs = runs as f64;
    (runs / wall.as_secs_f64(), cpu.as_secs_f64() * 1e6 / runs)
}

/// Returns the processor time of this process and of the children that ended, to 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>());
    Duration::from_millis(ticks.map(|ticks| ticks.unwrap() * 10).sum())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let bench = Bench::new();
    type Row<'b> = (&'b str, Box<dyn Fn() -> Rate + 'b>);
    let mut rows: Vec<Row<'_>> = vec![
        ("python3 script", Box::new(|| bench.subprocess(&[]))),
        (
            "python3 -I -S script",
            Box::new(|| bench.subprocess(&["-I", "-S"])),
        ),
        (
            "engine on SQLite normal",
            Box::new(|| bench.sqlite(Durability::Normal)),
        ),
        (
            "engine on SQLite full",
            Box::new(|| bench.sqlite(Durability::Full)),
        ),
    ];
    if let Some(server) = &bench.server {
        let row = Box::new(|| bench.postgres(server));
        rows.push(("engine on PostgreSQL", row));
    }
    let mut rates: Vec<Vec<Rate>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, measure), rates) in rows.iter().zip(&mut rates) {
            rates.push(measure());
        }
    }
    let medians: Vec<Rate> = rates
        .into_iter()
        .map(|rates| {
            let (rates, cpu) = rates.into_iter().unzip();
            (median(rates), median(cpu))
        })
        .collect();
    println!("| one run each | runs/s | CPU us a run | times `python3 script` |");
    println!("|---|---:|---:|---:|");
    for ((name, _), (rate, cpu)) in rows.iter().zip(&medians) {
        let ratio = rate / medians[0].0;
        println!("| {name} | {rate:.0} | {cpu:.1} | {ratio:.0} |");
    }
}
