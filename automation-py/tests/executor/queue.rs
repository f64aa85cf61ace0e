//! Runs that wait for their turn, and cancels and deadlines that strike between runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Executor};

use crate::Tested;
use crate::support::{Case, executor, failure};

#[tokio::test]
async fn a_cancel_in_the_queue_answers_at_once() {
    let executor = Arc::new(Tested::builder().workers(1).build().unwrap());
    let long = Case::new("import time\ntime.sleep(0.5)\n");
    let host = Arc::clone(&long.host);
    let first = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move { long.run(&executor).await }
    });
    while host.started.lock().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let queued = Case::new("print('never')");
    let (cancel, host) = (queued.cancel.clone(), Arc::clone(&queued.host));
    let begin = Instant::now();
    let second = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move { queued.run(&executor).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    cancel.cancel();
    let outcome = second.await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(300));
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert!(host.started.lock().is_none());
    assert_eq!(outcome.duration, Duration::ZERO);
    assert_eq!(first.await.unwrap().ending, Ending::Completed);
}

/// Deadlines that strike around a script's own end, while the next run waits for the same thread and begins
/// before the GIL is given up: whatever the first one's fate, the next one is never hit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_interruption_never_hits_the_next_run() {
    const SPIN: &str =
        "import time\nend = time.perf_counter() + {}\nwhile time.perf_counter() < end: pass\n";
    let executor = Tested::builder().workers(1).build().unwrap();
    let (first, next) = (SPIN.replace("{}", "0.003"), SPIN.replace("{}", "0.008"));
    let mut cut = 0;
    for turn in 0..200 {
        let timeout = Duration::from_micros(1500 + (turn % 20) * 100);
        let first = Case::new(&first).within(timeout).run(&executor);
        let next = Case::new(&next).run(&executor);
        let (first, next) = tokio::join!(first, next);
        assert!(!first.still_running, "{first:?}");
        if first.ending != Ending::Completed {
            assert_eq!(failure(&first).0, Reason::Timeout);
            cut += 1;
        }
        assert_eq!(next.ending, Ending::Completed, "{next:?}");
    }
    assert!(cut > 0, "no deadline struck");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_races_the_end_decides_for_one_side() {
    let executor = Tested::builder().workers(2).build().unwrap();
    for turn in 0..300u64 {
        let case = Case::new("for i in range(2000): pass\nprint('done')");
        let cancel = case.cancel.clone();
        let canceller = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(turn % 50 * 10)).await;
            cancel.cancel();
        });
        let outcome = case.run(&executor).await;
        match outcome.ending {
            Ending::Completed => assert_eq!(outcome.output.stdout.text, "done\n"),
            Ending::Cancelled => {}
            Ending::Failed(failure) => panic!("{failure:?}"),
        }
        canceller.await.unwrap();
        let next = Case::new("print('works')").run(&executor).await;
        assert_eq!(next.output.stdout.text, "works\n");
    }
}

#[tokio::test]
async fn a_shutdown_says_what_it_left_behind() {
    let executor = Arc::new(executor());
    let case = Case::new("import time\ntime.sleep(1)\n");
    let host = Arc::clone(&case.host);
    let run = tokio::spawn({
        let executor = Arc::clone(&executor);
        async move { case.run(&executor).await }
    });
    while host.started.lock().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let left = executor
        .shutdown(Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        left.to_string()
            .contains("1 runs did not end within 0.05 s"),
        "{left}"
    );
    assert_eq!(run.await.unwrap().ending, Ending::Completed);
}

#[tokio::test]
async fn an_answer_is_not_held_back_by_a_slow_script_that_follows() {
    let executor = Arc::new(Tested::builder().workers(1).build().unwrap());
    let slow = "import time\ntime.sleep(0.4)\n";
    // What starts with the first run is not meant.
    Case::new("").run(&executor).await;
    let begin = Instant::now();
    let runs = ["", slow, slow, ""].map(|source| {
        let executor = Arc::clone(&executor);
        tokio::spawn(async move {
            Case::new(source).run(&executor).await;
            begin.elapsed()
        })
    });
    let mut answered = Vec::new();
    for run in runs {
        answered.push(run.await.unwrap());
    }
    assert!(answered[0] < Duration::from_millis(200), "{answered:?}");
    assert!(answered[3] > Duration::from_millis(800), "{answered:?}");
}

/// Twenty runs that one actor has asked for delay another's by those that are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_one_actor_delays_anothers_run_by_its_turn_only() {
    let executor = Arc::new(Tested::builder().workers(2).build().unwrap());
    let ended = Arc::new(AtomicUsize::new(0));
    let batch: Vec<_> = (0..20)
        .map(|_| {
            let (executor, ended) = (Arc::clone(&executor), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut case = Case::at("/srv/scripts/batch.py", "import time\ntime.sleep(0.05)\n");
                case.invocation.actor = Some("batch".to_owned());
                assert_eq!(case.run(&executor).await.ending, Ending::Completed);
                ended.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    while ended.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = ended.load(Ordering::Relaxed);
    let mut person = Case::at("/srv/scripts/short.py", "print(1)");
    person.invocation.actor = Some("jdoe".to_owned());
    assert_eq!(person.run(&executor).await.output.stdout.text, "1\n");
    let meanwhile = ended.load(Ordering::Relaxed) - before;
    assert!(meanwhile <= 4, "{meanwhile} runs went before");
    for run in batch {
        run.await.unwrap();
    }
}
