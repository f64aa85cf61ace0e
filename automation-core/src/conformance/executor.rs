//! What every [`Executor`] must keep. Each promise is a function; the macro makes one named test of each.
//!
//! The scripts are Python source. [`stand_in`] gives the same behaviour by name, for [`FnExecutor`].
#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a promise that is not kept panics, as every test does"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::execution::{ExecutionId, Reason};
use crate::executor::{
    CancelToken, CapturedText, Ending, Executor, ExecutorError, Failure, FnExecutor, Invocation,
    Outcome, RunEvent, RunHost,
};
use crate::limits;
use crate::script::Script;
use crate::secret::{Secret, SecretError};
use crate::storage::StorageError;

/// Makes one named test of each promise of an [`Executor`].
///
/// The first argument names the module, the second is an expression that gives a fresh `Arc<dyn Executor>`.
#[macro_export]
macro_rules! executor_conformance {
    ($name:ident, $factory:expr) => {
        $crate::executor_conformance!(@tests $name, $factory,
            started_is_called_once_before_the_script,
            streams_are_kept_apart,
            parameters_arrive_as_given,
            a_failure_is_an_outcome,
            exit_codes_are_reported,
            a_function_that_ends_its_process_has_no_result,
            a_refused_result_has_no_exit_code,
            events_reach_the_host,
            secrets_reach_the_script,
            a_missing_secret_is_the_scripts_failure,
            the_deadline_ends_a_loop_and_the_executor_goes_on,
            cancel_before_the_start_runs_nothing,
            cancel_ends_a_loop,
            cancel_after_the_end_changes_nothing,
            output_is_bounded_and_says_so,
            parallel_runs_never_mix,
            a_failing_run_does_not_poison_the_next,
            the_callers_runtime_stays_responsive,
            health_shows_an_available_executor,
            shutdown_waits_then_refuses,
            debug_hides_parameters,
            a_crash_is_reported_until_it_is_forgotten,
        );
    };
    (@tests $name:ident, $factory:expr, $($promise:ident,)+) => {
        mod $name {
            #[allow(unused_imports, reason = "the factory may name nothing of the outer module")]
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    $crate::conformance::executor::$promise($factory).await;
                }
            )+
        }
    };
}

const ECHO: &str = "import sys, json\nparameters = json.loads(sys.argv[1])\nsys.stderr.write('note')\nprint(json.dumps(parameters))\n";
const RAISE: &str = "raise ValueError('no such user')\n";
const EXIT: &str = "import sys\nsys.exit(3)\n";
const NO_RESULT: &str = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\nimport os\ndef run(ctx):\n    os._exit(0)\n";
const REFUSED: &str = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\ndef run(ctx):\n    return {1, 2}\n";
const LOOP: &str = "while True:\n    pass\n";
const FLOOD: &str = "for _ in range(3000):\n    print('x' * 1023)\n";
const REPORT: &str =
    "from automation import ctx\nctx.progress(0.5, 'half')\nctx.log('a line')\nprint('{}')\n";
const SECRET: &str = "from automation import ctx\nimport json\nprint(json.dumps({'length': len(ctx.secret('token'))}))\n";
const MISSING_SECRET: &str = "from automation import ctx\nctx.secret('absent')\n";
const SLOW: &str = "import time\nfor _ in range(30):\n    time.sleep(0.01)\nprint('{}')\n";

/// The promises' deadline: longer than any answer in time takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Returns an executor that behaves as the promises' scripts do, script by script.
#[must_use]
pub fn stand_in() -> FnExecutor {
    FnExecutor::new(|invocation| async move {
        let mut outcome = Outcome::new(Ending::Completed);
        match invocation.script.name() {
            "echo.py" => {
                outcome.output.stdout =
                    CapturedText::new(Value::Object(invocation.parameters).to_string() + "\n");
                outcome.output.stderr = CapturedText::new("note");
            }
            "raise.py" => {
                outcome.ending =
                    Ending::Failed(Failure::new(Reason::Exception, "ValueError: no such user"));
                outcome.output.stderr = CapturedText::new("ValueError: no such user\n");
                outcome.exit_code = Some(1);
            }
            "exit.py" => {
                outcome.ending = Ending::Failed(Failure::new(Reason::ExitCode, "exit code 3"));
                outcome.exit_code = Some(3);
            }
            "no_result.py" => outcome.exit_code = Some(0),
            "refused.py" => {
                let failure = Failure::new(Reason::InvalidOutput, "the result: a set");
                outcome.ending = Ending::Failed(failure);
            }
            "loop.py" => std::future::pending().await,
            "flood.py" => {
                let mut capture = crate::executor::Capture::default();
                for _ in 0..3000 {
                    capture.push(format!("{}\n", "x".repeat(1023)).as_bytes());
                }
                outcome.output.stdout = capture.take();
            }
            "report.py" => {
                invocation.host.emit(RunEvent::Progress {
                    fraction: 0.5,
                    text: "half".to_owned(),
                });
                invocation.host.emit(RunEvent::Log {
                    text: "a line".to_owned(),
                });
            }
            "secret.py" | "missing_secret.py" => {
                let name = if invocation.script.name() == "secret.py" {
                    "token"
                } else {
                    "absent"
                };
                match invocation.host.secret(name) {
                    Ok(secret) => {
                        let text = json!({ "length": secret.expose().len() }).to_string();
                        outcome.output.stdout = CapturedText::new(text);
                    }
                    Err(error) => {
                        outcome.ending =
                            Ending::Failed(Failure::new(Reason::Exception, error.to_string()));
                    }
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(300)).await,
        }
        outcome
    })
}

/// A host that remembers what it was told.
#[derive(Debug, Default)]
struct Recorder {
    started: Mutex<Vec<Instant>>,
    events: Mutex<Vec<RunEvent>>,
    cancel: CancelToken,
    timeout: Mutex<Duration>,
}

impl RunHost for Recorder {
    fn started(&self) {
        self.started.lock().push(Instant::now());
    }

    fn emit(&self, event: RunEvent) {
        self.events.lock().push(event);
    }

    fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        if name == "token" {
            Ok(Secret::new("12345678"))
        } else {
            Err(SecretError::Missing {
                name: name.to_owned(),
            })
        }
    }

    fn journal(&self, _entry: Value) -> Result<(), StorageError> {
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.started
            .lock()
            .first()
            .map(|started| *started + *self.timeout.lock())
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn dry_run(&self) -> bool {
        false
    }
}

/// One run of one of the scripts.
struct Case {
    host: Arc<Recorder>,
    invocation: Invocation,
}

impl Case {
    fn new(name: &str, source: &str) -> Self {
        let host = Arc::new(Recorder::default());
        let script = Arc::new(
            Script::parse(name, source.as_bytes()).expect("the promises' scripts are valid"),
        );
        let id = ExecutionId::from_uuid(Uuid::now_v7());
        let invocation = Invocation::new(id, script, Arc::clone(&host) as Arc<dyn RunHost>);
        *host.timeout.lock() = invocation.limits.timeout;
        Self { host, invocation }
    }

    fn with(mut self, parameters: &Value) -> Self {
        self.invocation.parameters = parameters.as_object().cloned().unwrap_or_default();
        self
    }

    fn within(mut self, timeout: Duration) -> Self {
        self.invocation.limits.timeout = timeout;
        *self.host.timeout.lock() = timeout;
        self
    }

    async fn run(self, executor: &Arc<dyn Executor>) -> Outcome {
        let cancel = self.host.cancel.clone();
        tokio::time::timeout(SOON, executor.execute(self.invocation, cancel))
            .await
            .expect("an executor answers within a bounded time")
            .expect("the executor does its part")
    }
}

fn stdout_json(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.output.stdout.text.trim()).expect("the script printed JSON")
}

async fn still_works(executor: &Arc<dyn Executor>) {
    let outcome = Case::new("echo.py", ECHO)
        .with(&json!({ "a": 1 }))
        .run(executor)
        .await;
    assert_eq!(outcome.ending, Ending::Completed, "a later run works");
    assert_eq!(stdout_json(&outcome), json!({ "a": 1 }));
}

/// `started` is called once, before the script's first byte, and the queue time ends there.
pub async fn started_is_called_once_before_the_script(executor: Arc<dyn Executor>) {
    let case = Case::new("slow.py", SLOW);
    let host = Arc::clone(&case.host);
    let before = Instant::now();
    let outcome = case.run(&executor).await;
    let after = Instant::now();
    let started = host.started.lock().clone();
    assert_eq!(started.len(), 1);
    assert!(
        after - started[0] >= Duration::from_millis(250),
        "the script ran after `started`"
    );
    assert!(
        outcome.duration >= Duration::from_millis(250),
        "{:?}",
        outcome.duration
    );
    assert!(outcome.queue + outcome.duration <= after - before);
}

/// Standard output and standard error are kept apart.
pub async fn streams_are_kept_apart(executor: Arc<dyn Executor>) {
    let outcome = Case::new("echo.py", ECHO).run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.output.stdout.text.trim(), "{}");
    assert_eq!(outcome.output.stderr.text, "note");
    assert!(!outcome.still_running && !outcome.output.interrupted);
}

/// Parameters arrive as JSON values: every type, the edges of numbers, Unicode, nesting.
pub async fn parameters_arrive_as_given(executor: Arc<dyn Executor>) {
    let parameters = json!({
        "null": null, "yes": true, "zero": 0, "minus": -1, "large": limits::JSON_INTEGER_MAX,
        "float": 0.1, "text": "ä \u{1F600} \" \\ \n \u{2028}", "empty": "", "list": [1, [2, {"a": []}]],
    });
    let outcome = Case::new("echo.py", ECHO)
        .with(&parameters)
        .run(&executor)
        .await;
    assert_eq!(stdout_json(&outcome), parameters);
}

/// A script that fails is an outcome that says why.
pub async fn a_failure_is_an_outcome(executor: Arc<dyn Executor>) {
    let outcome = Case::new("raise.py", RAISE).run(&executor).await;
    assert_eq!(
        outcome.ending,
        Ending::Failed(Failure::new(Reason::Exception, "ValueError: no such user"))
    );
    assert!(
        outcome
            .output
            .stderr
            .text
            .ends_with("ValueError: no such user\n")
    );
    assert_eq!(outcome.exit_code, Some(1));
}

/// An exit code other than 0 is a failure and is reported.
pub async fn exit_codes_are_reported(executor: Arc<dyn Executor>) {
    let outcome = Case::new("exit.py", EXIT).run(&executor).await;
    assert_eq!(
        outcome.ending,
        Ending::Failed(Failure::new(Reason::ExitCode, "exit code 3"))
    );
    assert_eq!(outcome.exit_code, Some(3));
}

/// A function that ends its process with 0 has completed, and nothing is its result.
pub async fn a_function_that_ends_its_process_has_no_result(executor: Arc<dyn Executor>) {
    let outcome = Case::new("no_result.py", NO_RESULT).run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.exit_code, Some(0));
    assert_eq!(outcome.output.returned, None);
}

/// A result that is no JSON is a failure, and the script has not exited.
pub async fn a_refused_result_has_no_exit_code(executor: Arc<dyn Executor>) {
    let outcome = Case::new("refused.py", REFUSED).run(&executor).await;
    let Ending::Failed(failure) = &outcome.ending else {
        panic!("{:?}", outcome.ending)
    };
    assert_eq!(failure.reason, Reason::InvalidOutput);
    assert_eq!(outcome.exit_code, None);
    assert_eq!(outcome.output.returned, None);
}

/// Log lines and progress reach the host in their order.
pub async fn events_reach_the_host(executor: Arc<dyn Executor>) {
    let case = Case::new("report.py", REPORT);
    let host = Arc::clone(&case.host);
    let outcome = case.run(&executor).await;
    assert_eq!(
        outcome.ending,
        Ending::Completed,
        "{}",
        outcome.output.stderr.text
    );
    let expected = [
        RunEvent::Progress {
            fraction: 0.5,
            text: "half".to_owned(),
        },
        RunEvent::Log {
            text: "a line".to_owned(),
        },
    ];
    assert_eq!(*host.events.lock(), expected);
}

/// A script gets a secret by its name.
pub async fn secrets_reach_the_script(executor: Arc<dyn Executor>) {
    let outcome = Case::new("secret.py", SECRET).run(&executor).await;
    assert_eq!(
        outcome.ending,
        Ending::Completed,
        "{}",
        outcome.output.stderr.text
    );
    assert_eq!(stdout_json(&outcome), json!({ "length": 8 }));
}

/// A secret that is not configured is the script's failure, not the executor's.
pub async fn a_missing_secret_is_the_scripts_failure(executor: Arc<dyn Executor>) {
    let outcome = Case::new("missing_secret.py", MISSING_SECRET)
        .run(&executor)
        .await;
    let Ending::Failed(failure) = outcome.ending else {
        panic!("{:?}", outcome.ending)
    };
    assert_eq!(failure.reason, Reason::Exception);
    assert!(failure.message.contains("absent"), "{}", failure.message);
}

/// A loop in the script's own language ends at the deadline, which counts from `started`.
pub async fn the_deadline_ends_a_loop_and_the_executor_goes_on(executor: Arc<dyn Executor>) {
    let outcome = Case::new("loop.py", LOOP)
        .within(Duration::from_millis(200))
        .run(&executor)
        .await;
    let Ending::Failed(failure) = &outcome.ending else {
        panic!("{:?}", outcome.ending)
    };
    assert_eq!(failure.reason, Reason::Timeout);
    assert!(
        outcome.duration >= Duration::from_millis(200),
        "{:?}",
        outcome.duration
    );
    assert!(
        outcome.output.interrupted,
        "the last output may be half written"
    );
    assert!(!outcome.still_running, "it was ended");
    still_works(&executor).await;
}

/// A run that is cancelled before it starts does not run.
pub async fn cancel_before_the_start_runs_nothing(executor: Arc<dyn Executor>) {
    let case = Case::new("echo.py", ECHO);
    case.host.cancel.cancel();
    let outcome = case.run(&executor).await;
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert_eq!(outcome.output.stdout.text, "");
}

/// A cancel ends a loop in the script's own language.
pub async fn cancel_ends_a_loop(executor: Arc<dyn Executor>) {
    let case = Case::new("loop.py", LOOP);
    let host = Arc::clone(&case.host);
    let canceller = tokio::spawn(async move {
        while host.started.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        host.cancel.cancel();
    });
    let outcome = case.run(&executor).await;
    canceller.await.expect("the canceller does not panic");
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert!(!outcome.still_running);
    still_works(&executor).await;
}

/// A cancel that comes after the end changes nothing, for this run and for later ones.
pub async fn cancel_after_the_end_changes_nothing(executor: Arc<dyn Executor>) {
    for _ in 0..20 {
        let case = Case::new("echo.py", ECHO);
        let host = Arc::clone(&case.host);
        let outcome = case.run(&executor).await;
        host.cancel.cancel();
        assert_eq!(outcome.ending, Ending::Completed);
    }
    still_works(&executor).await;
}

/// Output is kept to a bound, its beginning and its end, and the outcome says so.
pub async fn output_is_bounded_and_says_so(executor: Arc<dyn Executor>) {
    let outcome = Case::new("flood.py", FLOOD).run(&executor).await;
    let stdout = &outcome.output.stdout;
    assert_eq!(stdout.bytes_total, 3000 * 1024);
    assert!(stdout.gap.is_some());
    assert!(stdout.text.len() <= limits::STREAM_HEAD_BYTES + limits::STREAM_TAIL_BYTES + 256);
}

/// Runs at the same time never see each other's parameters and output.
pub async fn parallel_runs_never_mix(executor: Arc<dyn Executor>) {
    let runs = (0..32).map(|n| {
        let executor = Arc::clone(&executor);
        tokio::spawn(async move {
            let parameters = json!({ "n": n });
            let outcome = Case::new("echo.py", ECHO)
                .with(&parameters)
                .run(&executor)
                .await;
            assert_eq!(stdout_json(&outcome), parameters);
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.expect("no run mixes with another");
    }
}

/// A run that fails leaves the executor as it was.
pub async fn a_failing_run_does_not_poison_the_next(executor: Arc<dyn Executor>) {
    for _ in 0..8 {
        Case::new("raise.py", RAISE).run(&executor).await;
        Case::new("exit.py", EXIT).run(&executor).await;
        still_works(&executor).await;
    }
}

/// While a script runs, the caller's own runtime goes on: these tests have one thread.
pub async fn the_callers_runtime_stays_responsive(executor: Arc<dyn Executor>) {
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = tokio::spawn({
        let ticks = Arc::clone(&ticks);
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                ticks.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Case::new("loop.py", LOOP)
        .within(Duration::from_millis(300))
        .run(&executor)
        .await;
    ticker.abort();
    assert!(
        ticks.load(Ordering::Relaxed) >= 10,
        "the runtime stood still"
    );
}

/// Health shows that the executor takes runs, and counts no thread as lost.
pub async fn health_shows_an_available_executor(executor: Arc<dyn Executor>) {
    still_works(&executor).await;
    let health = executor.health().await;
    assert!(health.available);
    assert_eq!((health.busy, health.quarantined_threads), (0, 0));
}

/// `shutdown` waits for the present runs; later ones are refused.
pub async fn shutdown_waits_then_refuses(executor: Arc<dyn Executor>) {
    let case = Case::new("slow.py", SLOW);
    let host = Arc::clone(&case.host);
    let run = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move { case.run(&executor).await }
    });
    while host.started.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    executor
        .shutdown(SOON)
        .await
        .expect("the run ends within the grace");
    let outcome = run.await.expect("the run does not panic");
    assert_eq!(outcome.ending, Ending::Completed);
    let case = Case::new("echo.py", ECHO);
    let refused = executor.execute(case.invocation, CancelToken::new()).await;
    assert!(matches!(refused, Err(ExecutorError::Closed)), "{refused:?}");
    assert!(!executor.health().await.available);
}

/// An invocation's `Debug` shows no parameter: they may be secret.
pub async fn debug_hides_parameters(executor: Arc<dyn Executor>) {
    let mut case = Case::new("echo.py", ECHO);
    case.invocation.parameters = Map::from_iter([("password".to_owned(), json!("hunter2"))]);
    assert!(!format!("{:?} {executor:?}", case.invocation).contains("hunter2"));
}

/// Each run during which an earlier process died is returned until it is forgotten, and a run that ended is none.
pub async fn a_crash_is_reported_until_it_is_forgotten(executor: Arc<dyn Executor>) {
    let earlier = executor.crashed_runs();
    let case = Case::new("echo.py", ECHO);
    let id = case.invocation.execution_id;
    case.run(&executor).await;
    assert_eq!(executor.crashed_runs(), earlier, "{id} ended");
    executor.forget_crashes(&[id]);
    assert_eq!(executor.crashed_runs(), earlier, "{id} is none of them");
    executor.forget_crashes(&earlier);
    assert_eq!(executor.crashed_runs(), []);
}
