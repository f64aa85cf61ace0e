//! What the worker that watches over a child sees to, whatever the child does with its wires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::{Ending, Executor, ExecutorError, RunEvent, RunHost};
use automation_core::secret::{Secret, SecretError};
use automation_core::storage::StorageError;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Case, executor, failure};
use crate::{Tested, children};

const RUN: &str = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\n";

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Returns the zygote and the child that it keeps for the next run.
async fn zygote_and_spare(executor: &Tested) -> (u32, u32) {
    let case = Case::new("import os\nprint(os.getppid(), os.getpid())");
    let text = case.run(executor).await.output.stdout.text;
    let pids: Vec<u32> = text
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    let begin = Instant::now();
    loop {
        if let [spare] = children(pids[0])[..]
            && spare != pids[1]
        {
            return (pids[0], spare);
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "no spare child");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn whoever_talks_a_lot_is_heard_to_the_end() {
    let source = format!(
        "{RUN}import sys\ndef run(ctx):\n    sys.stdout.write('::progress 1\\n' * 5000)\n    for number in range(3000): ctx.log(str(number))\n    sys.stdout.write('last\\n')\n    return {{'said': 'all'}}\n"
    );
    let case = Case::new(&source);
    let host = Arc::clone(&case.host);
    let outcome = case.run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.returned, Some(json!({ "said": "all" })));
    assert!(outcome.output.stdout.text.ends_with("last\n"));
    let events = host.events.lock();
    let last = RunEvent::Log {
        text: "2999".to_owned(),
    };
    assert!(events.contains(&last), "{} events", events.len());
}

#[tokio::test]
async fn the_last_words_are_heard_though_the_host_is_behind() {
    let source = format!(
        "{RUN}def run(ctx):\n    for _ in range(23): ctx.log('x' * 50_000)\n    print('last')\n    return 1\n"
    );
    let mut case = Case::new(&source);
    case.invocation.host = Arc::new(Watched::default());
    let outcome = case.run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.returned, Some(json!(1)));
    assert_eq!(outcome.output.stdout.text, "last\n");
}

#[tokio::test]
async fn a_script_waits_while_much_of_what_it_said_waits() {
    let source = "from automation import ctx\nfor _ in range(40): ctx.log('x' * 500_000)\n";
    let mut case = Case::new(source);
    case.invocation.host = Arc::new(Watched::default());
    let outcome = case.run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    // The host takes 30 ms for each, and few of them are held meanwhile.
    let took = outcome.duration;
    assert!(took > Duration::from_millis(900), "{took:?}");
}

#[tokio::test]
async fn memory_that_processes_share_counts_once() {
    let executor = executor();
    let fork = "import multiprocessing, time\n\
         context = multiprocessing.get_context('fork')\n\
         idle = [context.Process(target=time.sleep, args=(0.5,)) for _ in range(6)]\n\
         for one in idle: one.start()\nfor one in idle: one.join()\n";
    for (source, most) in [
        (fork.to_owned(), 30 << 20),
        (format!("x = b'x' * (20 << 20)\n{fork}"), 55 << 20),
    ] {
        let mut case = Case::new(&source);
        case.invocation.limits.memory_bytes = 64 << 20;
        let outcome = case.run(&executor).await;
        assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
        let peak = outcome.usage.memory_peak_bytes.unwrap();
        assert!(peak < most, "{peak}");
    }
}

#[tokio::test]
async fn a_program_is_counted_once_however_it_is_started() {
    let source = "import os, subprocess\n\
         subprocess.run(['/bin/true'], close_fds=False)\n\
         os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)\n";
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.usage.children, Some(2));
}

/// Remembers the thread that watches, gives a long secret, and is slow to hear.
#[derive(Debug, Default)]
struct Watched(Mutex<String>);

impl RunHost for Watched {
    fn started(&self) {
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        *self.0.lock() = format!("/proc/{}/stat", thread.display());
    }

    fn emit(&self, _event: RunEvent) {
        std::thread::sleep(Duration::from_millis(30));
    }

    fn secret(&self, _name: &str) -> Result<Secret, SecretError> {
        Ok(Secret::new("x".repeat(4 << 20)))
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

#[tokio::test]
async fn a_closed_control_socket_costs_no_processor_time() {
    let executor = executor();
    for source in [
        "import os, time\nos.closerange(3, 2000)\ntime.sleep(1)\n",
        "import os\nos.execvp('sleep', ['sleep', '1'])\n",
    ] {
        let host = Arc::new(Watched::default());
        let mut case = Case::new(source);
        case.invocation.host = Arc::clone(&host) as Arc<dyn RunHost>;
        let outcome = case.run(&executor).await;
        assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
        let stat = std::fs::read_to_string(&*host.0.lock()).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        assert!(ticks < 30, "{ticks} hundredths of a second: {source}");
    }
}

#[tokio::test]
async fn an_order_that_nobody_takes_is_given_up() {
    let executor = executor();
    let (_, spare) = zygote_and_spare(&executor).await;
    signal(spare, Signal::STOP);
    let case = Case::new("print()").with(json!({ "text": "x".repeat(4 << 20) }));
    let begin = Instant::now();
    let error = executor
        .execute(case.invocation, case.cancel)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecutorError::Unavailable { .. }),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
    let outcome = Case::new("print('works')").run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "works\n");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_the_run() {
    let source = "import time\nfrom automation import ctx\n\
         ctx._wire.send(b'\\x03{\"ask\": \"secret\", \"name\": \"long\", \"number\": 1}')\n\
         time.sleep(60)\n";
    let mut case = Case::new(source);
    case.invocation.host = Arc::new(Watched::default());
    let begin = Instant::now();
    let error = executor()
        .execute(case.invocation, case.cancel)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ExecutorError::Unavailable { .. }),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn an_early_deadline_shows_nothing_of_ours() {
    let executor = executor();
    for turn in 0..120 {
        let deadline = Duration::from_micros(turn * 50);
        let outcome = Case::new("x = 1\n").within(deadline).run(&executor).await;
        let stderr = outcome.output.stderr.text;
        let ours = ["<automation>", "_child", "in boot", "<string>"];
        assert!(!ours.iter().any(|ours| stderr.contains(ours)), "{stderr}");
    }
}

#[tokio::test]
async fn a_cancel_is_answered_while_the_run_waits_for_its_process() {
    let executor = Arc::new(executor());
    let (zygote, spare) = zygote_and_spare(&executor).await;
    signal(spare, Signal::KILL);
    while children(zygote).contains(&spare) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    signal(zygote, Signal::STOP);
    let case = Case::new("print('never')");
    let (cancel, host) = (case.cancel.clone(), Arc::clone(&case.host));
    let begin = Instant::now();
    let (outcome, ()) = tokio::join!(case.run(&executor), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let took = begin.elapsed();
    signal(zygote, Signal::CONT);
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(host.started.lock().is_none());
}

#[tokio::test]
async fn a_result_that_is_refused_has_no_exit_code() {
    let source = format!("{RUN}def run(ctx): return {{1, 2}}\n");
    let outcome = Case::new(&source).run(&executor()).await;
    assert_eq!(failure(&outcome).0, Reason::InvalidOutput);
    assert_eq!(outcome.exit_code, None);
}

#[tokio::test]
async fn a_killed_run_says_what_it_was_seen_to_start() {
    let source = "import subprocess, time\nfor _ in range(3): subprocess.Popen(['sleep', '20'])\ntime.sleep(20)\n";
    let case = Case::new(&format!(
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n{source}"
    ));
    let outcome = case
        .within(Duration::from_millis(700))
        .run(&executor())
        .await;
    assert_eq!(failure(&outcome).0, Reason::Timeout);
    assert_eq!(outcome.usage.children, Some(3));
}

#[tokio::test]
async fn threads_are_counted_however_they_are_started() {
    let source = "import _thread, concurrent.futures, threading, time\n\
        with concurrent.futures.ThreadPoolExecutor(2) as pool:\n    \
            list(pool.map(lambda _: time.sleep(0.05), range(2)))\n\
        thread = threading.Thread(target=int)\nthread.start(); thread.join()\n\
        _thread.start_new_thread(int, ())\ntime.sleep(0.05)\n";
    let outcome = Case::new(source).run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.usage.threads, Some(4));
    let outcome = Case::new("import os\nos._exit(0)\n").run(&executor()).await;
    assert_eq!(outcome.usage.threads, None);
}
