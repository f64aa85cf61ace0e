//! What libraries start for a run, or keep for everybody: pools, threads, processes and caches.

use automation_core::executor::Ending;
use automation_py::PythonExecutor;

use crate::{executor_with, overlapping, run, stdout, undisturbed};

/// Makes a library that can be imported, and returns the line that imports it.
fn library(folder: &tempfile::TempDir, name: &str, source: &str) -> String {
    std::fs::write(folder.path().join(format!("{name}.py")), source).unwrap();
    format!(
        "import sys; sys.path.append({:?}); import {name}\n",
        folder.path()
    )
}

async fn printed(executor: &PythonExecutor, source: &str) -> String {
    let (outcome, _) = run(executor, source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert!(outcome.duration.as_secs() < 10, "{outcome:?}");
    outcome.output.stdout.text
}

#[tokio::test]
async fn a_pool_of_a_library_serves_run_after_run() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let import = library(
        &folder,
        "pool_probe",
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)\n",
    );
    let source = format!("{import}print(pool_probe.pool.submit(pow, 2, 3).result())");
    let executor = executor_with(1);
    for _ in 0..3 {
        assert_eq!(printed(&executor, &source).await, "8\n");
    }
    printed(&executor, &format!("{import}pool_probe.pool.shutdown()")).await;
}

#[tokio::test]
async fn a_thread_that_a_library_keeps_is_no_run_that_others_disturb() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let import = library(
        &folder,
        "thread_probe",
        "import threading\nstop = threading.Event()\ndef start():\n    t = threading.Thread(target=wait, \
         daemon=True); t.start(); return t\ndef wait(): stop.wait()\n",
    );
    let executor = executor_with(1);
    printed(
        &executor,
        &format!("{import}thread_probe.thread = thread_probe.start()"),
    )
    .await;
    let (outcome, events) = run(&executor, "import gc; gc.disable()").await;
    assert_eq!(outcome.concern, None, "{events:?}");
    let stop = format!("{import}thread_probe.stop.set()");
    printed(&executor, &stop).await;
    assert_eq!(
        stdout(&executor, "import gc; print(gc.isenabled())").await,
        "True\n"
    );
}

#[tokio::test]
async fn processes_that_a_script_left_end_as_by_hand() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    let sources = [
        (
            "import multiprocessing\npool = multiprocessing.Pool(2)\nprint(pool.map(abs, [-1, 2]))",
            "[1, 2]\n",
        ),
        (
            "import multiprocessing, os, time\ndef late():\n    time.sleep(0.1)\n    os.write(w, b'done')\n\
             r, w = os.pipe()\nimport atexit\natexit.register(print, 'before')\n\
             p = multiprocessing.get_context('fork').Process(target=late)\np.start()\n\
             def look(): print(os.read(r, 4))\nimport multiprocessing.util\n\
             multiprocessing.util.Finalize(None, look, exitpriority=-1)",
            "before\nb'done'\n",
        ),
        (
            "from concurrent.futures import ProcessPoolExecutor\npool = ProcessPoolExecutor(1)\n\
             print(pool.submit(abs, -3).result())",
            "3\n",
        ),
    ];
    let children = "import os; print(len(os.listdir('/proc/self/task')), open(f'/proc/self/task/\
                    {__import__(\"threading\").get_native_id()}/children').read())";
    printed(
        &executor,
        "import multiprocessing.pool, concurrent.futures.process",
    )
    .await;
    let before = printed(&executor, children).await;
    for (source, expected) in sources {
        for _ in 0..2 {
            assert_eq!(printed(&executor, source).await, expected, "{source}");
        }
        assert_eq!(printed(&executor, children).await, before, "{source}");
    }
}

#[tokio::test]
async fn the_processes_of_another_run_are_not_listed() {
    let _undisturbed = undisturbed();
    let first = "import multiprocessing, time\nchild = multiprocessing.get_context('fork').Process(\
                 target=time.sleep, args=(60,), daemon=True)\nchild.start()";
    let list = "import multiprocessing; print(len(multiprocessing.active_children()))";
    let [first, second] = overlapping(first, list, list).await;
    assert_eq!(first.0.output.stdout.text, "1\n", "{first:?}");
    assert_eq!(second.0.output.stdout.text, "0\n", "{second:?}");
}

#[tokio::test]
async fn caches_that_follow_from_the_environment_are_each_runs_own() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    let folder = tempfile::tempdir().unwrap();
    let first = format!(
        "import os, tempfile, urllib.request\nos.environ['TMPDIR'] = {:?}\nprint(tempfile.gettempdir())\n\
         os.environ['http_proxy'] = 'http://127.0.0.1:9'\n\
         try: urllib.request.urlopen('http://127.0.0.1:1/')\nexcept OSError: pass\n",
        folder.path()
    );
    let expected = format!("{}\n", folder.path().display());
    let next =
        "import tempfile, urllib.request\nprint(tempfile.gettempdir(), urllib.request._opener)";
    for _ in 0..2 {
        assert_eq!(printed(&executor, &first).await, expected);
        let seen = printed(&executor, next).await;
        assert!(!seen.contains(&*folder.path().to_string_lossy()), "{seen}");
        assert!(seen.ends_with(" None\n"), "{seen}");
    }
    let own = "import urllib.request\nclass Mine(urllib.request.OpenerDirector):\n    def open(self, *a): return 'mine'\n\
               urllib.request.install_opener(Mine())\nprint(urllib.request.urlopen('http://x/'))\n\
               import tempfile; tempfile.tempdir = '/chosen'; print(tempfile.gettempdir()); tempfile.tempdir = None";
    assert_eq!(printed(&executor, own).await, "mine\n/chosen\n");
}

#[tokio::test]
async fn a_setting_that_two_runs_set_alike_is_put_back() {
    let _undisturbed = undisturbed();
    let change = "import sys; sys.setrecursionlimit(512)";
    overlapping(change, change, "").await;
    let source = "import sys; print(sys.getrecursionlimit())";
    assert_eq!(printed(&executor_with(1), source).await, "1000\n");
    // The second is told that it changed the setting, too.
    let [first, second] = overlapping(change, change, "").await;
    assert_eq!(first.1.len(), 1, "{first:?}");
    assert_eq!(second.1.len(), 1, "{second:?}");
}

#[tokio::test]
async fn what_a_library_left_in_circles_is_finalised_in_its_run() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let import = library(
        &folder,
        "circle_probe",
        "class Noisy:\n    def __init__(self): self.me = self\n    def __del__(self): print('gone')\n",
    );
    let source =
        format!("{import}import asyncio\nasyncio.run(asyncio.sleep(0))\ncircle_probe.Noisy()");
    assert_eq!(printed(&executor_with(1), &source).await, "gone\n");
}

#[tokio::test]
async fn functions_that_a_helper_module_registers_are_called_at_the_end_of_its_run() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let helper = "import atexit\natexit.register(print, 'helper ends')\n";
    std::fs::write(folder.path().join("exit_helper.py"), helper).unwrap();
    let path = folder.path().join("script.py");
    let executor = executor_with(1);
    for _ in 0..2 {
        let case = crate::support::Case::at(path.to_str().unwrap(), "import exit_helper\nprint(1)");
        let outcome = case.run(&executor).await;
        assert_eq!(
            outcome.output.stdout.text, "1\nhelper ends\n",
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_thread_that_its_run_left_behind_sees_no_main_module_and_registers_nothing() {
    let _undisturbed = undisturbed();
    let source = "import atexit, json, sys, threading, time\ndef work():\n    import __main__\n    while hasattr(__main__, 'work'): \
                  time.sleep(0.001)\n    __main__.left = 1\n    seen.append(hasattr(__main__, 'left'))\n\
                  seen = json.seen_probe = []\nthreading.Thread(target=work, daemon=True).start()\n";
    let executor = executor_with(1);
    let (outcome, _) = run(&executor, source).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    pyo3::Python::attach(|py| {
        let look = c"import sys, time, threading\nfor _ in range(2000):\n    if threading.active_count() == 1: break\n    \
                     time.sleep(0.001)\nassert not hasattr(sys.modules['__main__'], 'left')";
        py.run(look, None, None).unwrap();
    });
}
