//! The programs that runs start are theirs: each run waits for its own, and what it does not wait for leaves nothing.

use std::fs;
use std::time::Duration;

use automation_core::executor::Ending;
use automation_py::PythonExecutor;

use crate::support::{Case, stdout};

fn one_worker() -> PythonExecutor {
    PythonExecutor::builder().workers(1).build().unwrap()
}

/// Waiting for any child gets neither another run's nor the host's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_any_child_gets_the_runs_own() {
    let executor = PythonExecutor::builder().workers(2).build().unwrap();
    let mut of_host = std::process::Command::new("sh")
        .args(["-c", "exit 5"])
        .spawn()
        .unwrap();
    let owner = "import subprocess, time\nprograms = [subprocess.Popen(['sh', '-c', 'exit 3']) for _ in range(20)]\n\
        time.sleep(0.5)\nprint({program.wait() for program in programs})\n";
    let other = "\
import os, subprocess, time
for any_child in (
    lambda: os.wait(),
    lambda: os.waitpid(-1, 0),
    lambda: os.waitpid(0, 0),
    lambda: os.wait3(0),
    lambda: os.wait4(-1, 0),
    lambda: os.waitid(os.P_ALL, 0, os.WEXITED),
):
    own = subprocess.Popen(['sleep', '0.05'])
    got = any_child()
    print(own.pid == (got[0] if isinstance(got, tuple) else got.si_pid))
    try:
        print(any_child())
    except ChildProcessError:
        print('no other')
";
    let (owner, other) = tokio::join!(
        Case::new(owner).run(&executor),
        Case::new(other).run(&executor)
    );
    assert_eq!(
        other.output.stdout.text,
        "True\nno other\n".repeat(6),
        "{other:?}"
    );
    assert_eq!(owner.output.stdout.text, "{3}\n", "{owner:?}");
    assert_eq!(of_host.wait().unwrap().code(), Some(5));
}

/// Returns this process's children that have ended and that nobody has waited for, of one name.
fn zombies(name: &str) -> usize {
    let here = format!(" {} ", std::process::id());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains(&format!("({name}) Z{here}")))
        .count()
}

#[tokio::test]
async fn what_nobody_waited_for_leaves_no_zombies() {
    let executor = one_worker();
    for start in [
        "os.posix_spawn('/bin/false', ['false'], os.environ)",
        "os.spawnlp(os.P_NOWAIT, 'false', 'false')",
        "subprocess.Popen(['false'])",
        "threading.Thread(target=subprocess.Popen, args=(['false'],)).start()",
    ] {
        let source = format!("import os, subprocess, threading, time\n{start}\ntime.sleep(0.5)\n");
        Case::new(&source).run(&executor).await;
        assert_eq!(zombies("false"), 0, "{start}");
    }
    // What goes on is reaped after a later run of the thread.
    let source =
        "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 0.1; exec false'], os.environ)\n";
    Case::new(source).run(&executor).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    Case::new("").run(&executor).await;
    assert_eq!(zombies("false"), 0);
    let source = "import subprocess\nprint(len(subprocess._active))";
    let left = Case::new(source).run(&executor).await;
    assert_eq!(left.output.stdout.text, "0\n");
}

/// The library reaps what other runs gave up: that is not this run's processor time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_others_are_not_charged() {
    let executor = PythonExecutor::builder().workers(2).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("number");
    let owner = format!(
        "import os, time\nloop = 'i=0; while [ $i -lt 700000 ]; do i=$((i+1)); done'\n\
         child = os.posix_spawn('/bin/sh', ['sh', '-c', loop], os.environ)\n\
         open({path:?}, 'w').write(str(child))\n\
         while os.path.exists({path:?}): time.sleep(0.05)\n"
    );
    // What `subprocess._cleanup` does with the programs that others gave up.
    let other = format!(
        "import os, time\nwhile not os.path.exists({path:?}) or os.path.getsize({path:?}) == 0: time.sleep(0.05)\n\
         child = int(open({path:?}).read())\n\
         while ') Z ' not in open(f'/proc/{{child}}/stat').read(): time.sleep(0.05)\n\
         assert os.waitpid(child, os.WNOHANG)[0] == child\nos.remove({path:?})\n"
    );
    let (owner, other) = tokio::join!(
        Case::new(&owner).run(&executor),
        Case::new(&other).run(&executor)
    );
    assert_eq!(owner.ending, Ending::Completed, "{owner:?}");
    assert_eq!(other.ending, Ending::Completed, "{other:?}");
    let used = other.usage.cpu_us.unwrap();
    assert!(used < 100_000, "{used} us, {other:?}");
}

#[tokio::test]
async fn handlers_of_signals_are_kept_for_the_script() {
    let source = "\
import signal, _signal
former = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
print(signal.getsignal(signal.SIGPIPE), signal.signal(signal.SIGPIPE, former))
handler = lambda *_: None
signal.signal(signal.SIGTERM, handler)
print(signal.getsignal(signal.SIGTERM) is handler, _signal.getsignal(15) is handler)
for number, wrong in ((signal.SIGKILL, handler), (signal.SIGTERM, 'text'), (1000, handler)):
    try: signal.signal(number, wrong)
    except (OSError, TypeError, ValueError) as error: print(type(error).__name__)
";
    let expected = "Handlers.SIG_DFL Handlers.SIG_DFL\nTrue True\nOSError\nTypeError\nValueError\n";
    let text = stdout(source).await;
    let text = text.replace("0 0\n", "Handlers.SIG_DFL Handlers.SIG_DFL\n");
    assert_eq!(text, expected);
    let later = "import signal\nprint(callable(signal.getsignal(signal.SIGTERM)))";
    assert_eq!(stdout(later).await, "False\n");
}
