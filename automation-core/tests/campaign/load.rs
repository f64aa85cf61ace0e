//! Scripts that leave traces, an engine that runs them, and callers that write down what they are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use automation_core::executor::{CapturedText, Ending, Failure, FnExecutor, Invocation, Outcome};
use automation_core::{
    Automation, AutomationBuilder, Classification, ExecuteRequest, Reason, Script, ScriptRegistry,
    Storage, Ticket,
};
use tokio::task::JoinSet;

use crate::ledger::{Answer, Ledger, Line, Phase};

/// What scripts do. Each serves the category with its name.
const SCRIPTS: [&str; 4] = ["quick", "slow", "large", "failing"];
/// Longest time that a slow script takes.
const SLOW: u64 = 40;
/// What a large one prints: more than the spool keeps of an end.
const LARGE: usize = 60_000;
/// Pause after a refusal.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a holder of runs may be silent; short, since campaigns pause them.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
/// Runs that may be dispatched at the same time, and places in the spool.
pub(crate) const EXECUTIONS_MAX: usize = 24;

fn registry() -> ScriptRegistry {
    ScriptRegistry::from_scripts(SCRIPTS.map(|name| {
        let source = format!("# /// script\n# [tool.automation]\n# category = \"{name}\"\n# ///\n");
        Script::parse(format!("{name}.py"), source.as_bytes()).unwrap()
    }))
}

/// Returns the builder of an engine whose scripts note in the ledger that they began and ended; `between` is called
/// between the two, and `ended` after.
pub(crate) fn engine(
    storage: Arc<dyn Storage>,
    ledger: &Arc<Ledger>,
    between: impl Fn() + Clone + Send + Sync + 'static,
) -> AutomationBuilder {
    let ledger = Arc::clone(ledger);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let (ledger, between) = (Arc::clone(&ledger), between.clone());
        async move { script(&invocation, &ledger, between).await }
    });
    Automation::builder()
        .scripts(registry())
        .executor(executor)
        .shared_storage(storage)
        .executions_max(EXECUTIONS_MAX)
        .lease(LEASE)
}

async fn script(invocation: &Invocation, ledger: &Ledger, between: impl Fn()) -> Outcome {
    let request = invocation.ticket.as_ref().unwrap()["id"].as_str().unwrap();
    let note = |phase| {
        ledger.note(&Line::Effect {
            id: invocation.execution_id,
            request: request.to_owned(),
            phase,
        });
    };
    note(Phase::Began);
    between();
    let name = invocation.script.name();
    if name == "slow.py" {
        let number: u64 = request.rsplit('-').next().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(number * 7 % SLOW)).await;
    }
    note(Phase::Ended);
    let ending = match name {
        "failing.py" => Ending::Failed(Failure::new(Reason::ExitCode, "it failed on purpose")),
        _ => Ending::Completed,
    };
    let mut outcome = Outcome::new(ending);
    let long = if name == "large.py" { LARGE } else { 0 };
    outcome.output.stdout = CapturedText::new(format!("{}\n{{\"ok\": true}}", "x".repeat(long)));
    outcome
}

/// Callers that ask for runs until they are told to stop.
#[derive(Debug)]
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Callers {
    /// Starts so many. The name of the requests is not used by others on the same ledger.
    pub(crate) fn start(
        automation: &Automation,
        ledger: &Arc<Ledger>,
        name: &str,
        count: u64,
    ) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut tasks = JoinSet::new();
        for caller in 0..count {
            let (automation, ledger) = (automation.clone(), Arc::clone(ledger));
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let name = format!("{name}-{caller}");
            tasks.spawn(async move {
                for n in caller.. {
                    if stop.load(Ordering::Acquire) {
                        return;
                    }
                    ask(&automation, &ledger, format!("{name}-{n}"), n, &answered).await;
                }
            });
        }
        Self {
            stop,
            answered,
            tasks,
        }
    }

    /// Returns how many runs were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Waits until so many more runs are answered.
    pub(crate) async fn wait_for(&self, further: u64) {
        let wanted = self.answered() + further;
        let wait = async {
            while self.answered() < wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), wait).await;
        in_time.expect("runs are answered");
    }

    /// Stops asking, and waits for all answers.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        let all = tokio::time::timeout(Duration::from_secs(60), self.tasks.join_all()).await;
        all.expect("every caller is answered");
    }
}

/// Asks for one run and writes down what the answer is.
async fn ask(
    automation: &Automation,
    ledger: &Ledger,
    request: String,
    number: u64,
    answered: &AtomicU64,
) {
    let script = SCRIPTS[usize::try_from(number % 4).unwrap()];
    let asked = ExecuteRequest::new(Ticket::new(&request), Classification::new(script));
    match automation.execute(asked).await {
        Ok(row) => {
            let answer = Answer::of(&row);
            ledger.note(&Line::Answered { request, answer });
            answered.fetch_add(1, Ordering::AcqRel);
        }
        Err(error) => {
            if error.retry_after().is_some() {
                let why = error.to_string();
                ledger.note(&Line::Refused { request, why });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Where the ledger of a folder is.
pub(crate) fn ledger_in(folder: &Path) -> PathBuf {
    folder.join("ledger")
}
