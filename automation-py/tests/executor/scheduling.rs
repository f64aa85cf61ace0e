//! Whose turn it is: long, waiting and many runs never keep a short one from its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::Executor;
use automation_core::executor::Ending;
use automation_py::PythonExecutor;
use tokio::task::JoinHandle;

use crate::support::{Case, executor};

/// Computes for a while: long enough that a queue of it stands.
const COMPUTE: &str =
    "import time\nend = time.thread_time() + 0.03\nwhile time.thread_time() < end: pass\n";

/// Starts runs of one script for one actor. The counter says how many have ended.
fn flood(
    executor: &Arc<PythonExecutor>,
    source: &'static str,
    runs: usize,
) -> (Arc<AtomicUsize>, Vec<JoinHandle<()>>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let handles = (0..runs).map(|_| {
        let (executor, ended) = (Arc::clone(executor), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut case = Case::at("/srv/scripts/batch.py", source);
            case.invocation.actor = Some("batch".to_owned());
            assert_eq!(case.run(&executor).await.ending, Ending::Completed);
            ended.fetch_add(1, Ordering::Relaxed);
        })
    });
    let handles = handles.collect();
    (ended, handles)
}

async fn person(executor: &PythonExecutor) {
    let mut case = Case::at("/srv/scripts/short.py", "print(1)");
    case.invocation.actor = Some("jdoe".to_owned());
    assert_eq!(case.run(executor).await.output.stdout.text, "1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_computing_runs_of_one_actor_delay_anothers_by_few_of_them() {
    let executor = Arc::new(executor());
    let (ended, batch) = flood(&executor, COMPUTE, 40);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = ended.load(Ordering::Relaxed);
    person(&executor).await;
    let meanwhile = ended.load(Ordering::Relaxed) - before;
    assert!(meanwhile <= 3, "{meanwhile} runs went before");
    for run in batch {
        run.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_runs_keep_nobody_waiting() {
    let executor = Arc::new(executor());
    let (ended, batch) = flood(&executor, "import time\ntime.sleep(1)\n", 40);
    tokio::time::sleep(Duration::from_millis(100)).await;
    person(&executor).await;
    assert_eq!(ended.load(Ordering::Relaxed), 0, "none has ended");
    for run in batch {
        run.await.unwrap();
    }
    let workers = executor.health().await.workers;
    assert!(
        workers > 8,
        "{workers} threads, so they did not wait at once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_there_may_be_workers() {
    let executor = Arc::new(PythonExecutor::builder().workers(2).build().unwrap());
    let source = "import time\ntime.sleep(0.05)\n";
    let (_, batch) = flood(&executor, source, 10);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(executor.health().await.workers <= 2);
    }
    for run in batch {
        run.await.unwrap();
    }
}

/// An idle worker takes a run without the GIL, and then waits for that: the run has not begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_waits_for_the_gil_is_cancelled_at_once() {
    let executor = Arc::new(executor());
    let (ended, hog) = flood(&executor, "sum(range(60_000_000))\n", 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let case = Case::at("/srv/scripts/short.py", "print(1)");
    let (cancel, host) = (case.cancel.clone(), Arc::clone(&case.host));
    let run = async { case.run(&executor).await };
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(run, cancelled);
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert_eq!(ended.load(Ordering::Relaxed), 0, "the GIL was held");
    for run in hog {
        run.await.unwrap();
    }
    person(&executor).await;
    assert_eq!(*host.started.lock(), None, "nothing of it executed");
}
