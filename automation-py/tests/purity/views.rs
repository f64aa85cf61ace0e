//! What each run has for itself: two runs on one worker, one after the other, and two at the same time.

use automation_core::executor::Ending;

use crate::{Ran, executor_with, overlapping, run, stdout, undisturbed};

/// A change that a run makes for itself, and what the next one and one at the same time print all the same.
const VIEWS: &[(&str, &str, &str)] = &[
    (
        "import warnings; warnings.simplefilter('error'); warnings.filterwarnings('ignore', 'x')",
        "import warnings; warnings.warn('seen'); print('no error', not any(f[1] and f[1].pattern == 'x' for f in warnings.filters))",
        "no error True\n",
    ),
    (
        "import warnings; warnings.resetwarnings()",
        "import warnings; print(len(warnings.filters) > 0)",
        "True\n",
    ),
    (
        "import warnings; caught = warnings.catch_warnings(record=True).__enter__()",
        "import warnings, sys; print(len(warnings.filters) > 0)",
        "True\n",
    ),
    (
        "import decimal; decimal.getcontext().prec = 3",
        "import decimal; print(decimal.getcontext().prec)",
        "28\n",
    ),
    (
        "import sys; sys.meta_path.insert(0, None); sys.path_hooks.clear()",
        "import sys; print(None in sys.meta_path, len(sys.path_hooks) > 1)\nimport stringprep",
        "False True\n",
    ),
    (
        "import sys; sys.meta_path = []; sys.path_hooks = []",
        "import sys; print(len(sys.meta_path) > 2, len(sys.path_hooks) > 1)\nimport nturl2path",
        "True True\n",
    ),
    (
        "import sys; sys.settrace(lambda *_: None); sys.setprofile(lambda *_: None)",
        "import sys; print(sys.gettrace(), sys.getprofile())",
        "None None\n",
    ),
    (
        "import logging; logging.basicConfig(level=10, format='first %(message)s'); logging.disable(50); \
         logging.getLogger('probe').setLevel(50); logging.getLogger('probe').propagate = False",
        "import logging, sys; logging.basicConfig(level=20, format='%(message)s', stream=sys.stdout)\n\
         logging.info('root'); logging.debug('no'); logging.getLogger('probe').info('child')\n\
         print(logging.root.level, len(logging.root.handlers))",
        "root\nchild\n20 1\n",
    ),
    (
        "import logging.config, sys\nlogging.config.dictConfig({'version': 1, 'handlers': {'h': {'class': \
         'logging.StreamHandler'}}, 'root': {'handlers': ['h'], 'level': 'DEBUG'}})",
        "import logging; print(logging.root.level, logging.root.handlers, logging.getLogger('probe').disabled)",
        "30 [] False\n",
    ),
    (
        "import asyncio; asyncio.set_event_loop(asyncio.new_event_loop()); asyncio.get_event_loop().close()",
        "import asyncio; loop = asyncio.get_event_loop(); print(loop.run_until_complete(asyncio.sleep(0, 'slept')))",
        "slept\n",
    ),
    (
        "import asyncio; asyncio.run(asyncio.sleep(0))",
        "import asyncio; loop = asyncio.get_event_loop(); print(loop.run_until_complete(asyncio.sleep(0, 'slept')))",
        "slept\n",
    ),
    (
        "import asyncio; asyncio.set_event_loop(None)",
        "import asyncio; print(asyncio.get_event_loop().is_closed())",
        "False\n",
    ),
];

fn printed((outcome, events): &Ran) -> &str {
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!((outcome.concern, &**events), (None, &[][..]), "{outcome:?}");
    &outcome.output.stdout.text
}

#[tokio::test]
async fn the_next_run_on_the_same_worker_begins_as_by_hand() {
    let _undisturbed = undisturbed();
    let executor = executor_with(1);
    for (change, next, expected) in VIEWS {
        for _ in 0..2 {
            printed(&run(&executor, change).await);
            assert_eq!(printed(&run(&executor, next).await), *expected, "{change}");
        }
    }
}

#[tokio::test]
async fn a_run_at_the_same_time_begins_as_by_hand() {
    let _undisturbed = undisturbed();
    for (change, other, expected) in VIEWS {
        let [first, second] = overlapping(change, other, "").await;
        printed(&first);
        assert_eq!(printed(&second), *expected, "{change}");
    }
}

#[tokio::test]
async fn a_seed_is_the_runs_own() {
    let _undisturbed = undisturbed();
    let seeded = "import random\nrandom.seed(1)\nfrom random import randint\n";
    let numbers = "print([random.random(), randint(0, 99), random.choice('abc'), random.sample(range(9), 3)])";
    let one = executor_with(1);
    let script = format!("{seeded}{numbers}");
    let by_hand = format!(
        "import subprocess, sys\n\
         print(subprocess.check_output([sys.executable, '-c', {script:?}], text=True), end='')"
    );
    let expected = stdout(&one, &by_hand).await;
    let unseeded = "import random\nprint(random.random())";
    let [first, second] = overlapping(seeded, unseeded, numbers).await;
    assert_eq!(printed(&first), expected);
    let [first, third] = overlapping(seeded, unseeded, numbers).await;
    assert_eq!(printed(&first), expected);
    assert_ne!(printed(&second), printed(&third));
    assert_ne!(stdout(&one, unseeded).await, stdout(&one, unseeded).await);
    let source = "import inspect, random\nstate = random.getstate(); random.setstate(state); a = random.random()\n\
                  random.setstate(state); print(a == random.random(), inspect.signature(random.randint))";
    assert_eq!(stdout(&one, source).await, "True (a, b)\n");
}

#[tokio::test]
async fn log_lines_go_to_the_run_that_wrote_them() {
    let _undisturbed = undisturbed();
    let first = "import logging, sys, threading\n\
                 logging.basicConfig(level=10, format='first %(message)s', stream=sys.stdout)\nlogging.info('begin')\n";
    let second = "import logging, sys\nlogging.getLogger('probe').info('nobody listens')\n\
                  logging.basicConfig(level=20, format='second %(message)s', stream=sys.stdout)\n\
                  logging.debug('no')\nlogging.info('here')\n";
    let rest = "logging.debug('end')\nt = threading.Thread(target=logging.info, args=('thread',)); t.start(); t.join()\n";
    let [first, second] = overlapping(first, second, rest).await;
    assert_eq!(printed(&first), "first begin\nfirst end\nfirst thread\n");
    assert_eq!(printed(&second), "second here\n");
}

#[tokio::test]
async fn handlers_of_a_run_are_flushed_and_closed_at_its_end() {
    let _undisturbed = undisturbed();
    let source = r#"
import atexit, logging, logging.handlers, sys
class Shown(logging.StreamHandler):
    def close(self):
        print('closed')
        super().close()
shown = Shown(sys.stdout)
memory = logging.handlers.MemoryHandler(100, target=shown)
logging.root.addHandler(memory)
atexit.register(logging.warning, 'at exit')
logging.warning('kept')
"#;
    let executor = executor_with(1);
    for _ in 0..2 {
        assert_eq!(stdout(&executor, source).await, "kept\nat exit\nclosed\n");
    }
}

#[tokio::test]
async fn what_a_library_sets_when_it_is_imported_stays_for_all() {
    let _undisturbed = undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let library = r#"
import logging, sys, types, warnings
log = logging.getLogger('library_probe')
log.addHandler(logging.NullHandler())
log.setLevel(7)
warnings.filterwarnings('ignore', 'library_probe .*')
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None): return None
sys.meta_path.append(Finder)
types.library_probe = 1
"#;
    std::fs::write(folder.path().join("library_probe.py"), library).unwrap();
    let executor = executor_with(1);
    let source = format!(
        "import sys\nsys.path.append({:?})\nimport library_probe, logging, types, warnings\n\
         print(len(library_probe.log.handlers), library_probe.log.level, types.library_probe, \
         library_probe.Finder in sys.meta_path)\nwarnings.warn('library_probe x')\n\
         library_probe.log.setLevel(50); library_probe.log.addHandler(logging.StreamHandler())\n",
        folder.path()
    );
    for _ in 0..2 {
        let (outcome, events) = run(&executor, &source).await;
        assert_eq!(outcome.output.stdout.text, "1 7 1 True\n", "{outcome:?}");
        assert_eq!(outcome.output.stderr.text, "");
        assert_eq!((outcome.concern, events), (None, vec![]));
    }
    // It is the test's own, and no other test's.
    stdout(&executor, "print()").await;
    pyo3::Python::attach(|py| {
        let undo = c"import sys, types\ndel types.library_probe, sys.meta_path[-1]";
        py.run(undo, None, None).unwrap();
    });
}

#[tokio::test]
async fn a_level_that_a_run_sets_makes_no_other_run_log() {
    let _undisturbed = undisturbed();
    let executor = executor_with(4);
    let loud = "import logging, time\nlogging.basicConfig(level=10)\nlogging.debug('here')\ntime.sleep(0.002)\n";
    let quiet = "import asyncio\nasyncio.run(asyncio.sleep(0.001))\n";
    for _ in 0..100 {
        let (_, first, _, second) = tokio::join!(
            run(&executor, loud),
            run(&executor, quiet),
            run(&executor, loud),
            run(&executor, quiet)
        );
        assert_eq!(first.0.output.stderr.text, "");
        assert_eq!(second.0.output.stderr.text, "");
    }
}
