//! Scripts that use more processor time than they may.

use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Outcome};

use crate::support::{Case, executor, failure};

async fn within(limit: Duration, source: &str) -> (Outcome, Duration) {
    let executor = executor();
    let mut case = Case::new(source);
    case.invocation.limits.cpu = Some(limit);
    let begin = Instant::now();
    let outcome = case.run(&executor).await;
    (outcome, begin.elapsed())
}

const LIMIT: Duration = Duration::from_millis(200);

fn cpu(outcome: &Outcome) -> Duration {
    Duration::from_micros(outcome.usage.cpu_us.unwrap())
}

#[tokio::test]
async fn a_loop_is_cut_short() {
    let (outcome, _) = within(LIMIT, "while True: pass").await;
    let expected = (Reason::CpuLimit, "used more than 0.2 s of processor time");
    assert_eq!(failure(&outcome), expected);
    assert!(outcome.output.interrupted && !outcome.still_running);
    assert!(cpu(&outcome) >= LIMIT, "{:?}", cpu(&outcome));
    assert!(cpu(&outcome) < 3 * LIMIT, "{:?}", cpu(&outcome));
}

#[tokio::test]
async fn waiting_is_free() {
    let (outcome, elapsed) = within(LIMIT, "import time\ntime.sleep(0.5)\nprint('done')").await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert!(elapsed >= Duration::from_millis(500));
    assert!(cpu(&outcome) < LIMIT, "{:?}", cpu(&outcome));
}

#[tokio::test]
async fn threads_count_living_or_ended() {
    let spin = "import threading, time\ndef spin(s):\n    end = time.thread_time() + s\n    while time.thread_time() < end: pass\n";
    let living =
        format!("{spin}t = threading.Thread(target=spin, args=(60,))\nt.start(); t.join()");
    let (outcome, _) = within(LIMIT, &living).await;
    assert_eq!(failure(&outcome).0, Reason::CpuLimit);
    let ended = format!(
        "{spin}while True:\n    t = threading.Thread(target=spin, args=(0.03,))\n    t.start(); t.join()"
    );
    let (outcome, _) = within(LIMIT, &ended).await;
    assert_eq!(failure(&outcome).0, Reason::CpuLimit);
    assert!(outcome.usage.threads.unwrap() >= 5, "{:?}", outcome.usage);
    assert!(cpu(&outcome) >= LIMIT, "{:?}", cpu(&outcome));
}

#[tokio::test]
async fn the_time_of_threads_is_in_the_usage() {
    let source = r#"
import threading, time
def spin():
    end = time.thread_time() + 0.1
    while time.thread_time() < end: pass
threads = [threading.Thread(target=spin) for _ in range(2)]
for t in threads: t.start()
for t in threads: t.join()
"#;
    let outcome = Case::new(source).run(&executor()).await;
    assert!(cpu(&outcome) >= LIMIT, "{:?}", cpu(&outcome));
    assert_eq!(outcome.usage.threads, Some(2));
}

#[tokio::test]
async fn a_thread_that_goes_on_is_counted_as_far_as_it_came() {
    let source = r#"
import threading, time
ready = threading.Event()
def spin():
    end = time.thread_time() + 0.1
    while time.thread_time() < end: pass
    ready.set()
    time.sleep(0.5)
threading.Thread(target=spin, daemon=True).start()
ready.wait()
"#;
    let outcome = Case::new(source).run(&executor()).await;
    assert!(
        cpu(&outcome) >= Duration::from_millis(100),
        "{:?}",
        cpu(&outcome)
    );
}

#[tokio::test]
async fn a_script_that_could_not_be_stopped_still_has_a_usage() {
    let source = "sum(range(10**8))";
    let (outcome, _) = within(LIMIT, source).await;
    assert_eq!(failure(&outcome).0, Reason::CpuLimit);
    assert!(outcome.still_running);
    assert!(cpu(&outcome) >= LIMIT, "{:?}", cpu(&outcome));
    assert!(outcome.usage.memory_peak_bytes.is_some());
}
