//! Thousands of runs of every sort, and then: nothing is left of them.
//!
//! A short round is part of the suite. `make torture` runs 10,000 (`TORTURE_RUNS`, `TORTURE_SEED`), prints what it
//! measured, and is also what finds a leak of a few bytes a run.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the measurement is the product, and a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of the executor, which use more of it"
)]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::Executor;
use automation_core::executor::{Ending, Outcome};
use automation_py::PythonExecutor;
use parking_lot::Mutex;
use serde_json::Value;

use self::support::Case;
use self::tested::{Tested, executor};

/// What a script of the mix does, and how it may end.
struct Kind {
    name: &'static str,
    source: &'static str,
    /// How often it is chosen, against the others.
    weight: usize,
    expected: fn(&Outcome) -> bool,
}

const fn kind(
    name: &'static str,
    weight: usize,
    expected: fn(&Outcome) -> bool,
    source: &'static str,
) -> Kind {
    Kind {
        name,
        source,
        weight,
        expected,
    }
}

fn completes(outcome: &Outcome) -> bool {
    outcome.ending == Ending::Completed && !outcome.still_running
}

fn fails(outcome: &Outcome) -> bool {
    matches!(outcome.ending, Ending::Failed(_)) && !outcome.still_running
}

/// Misbehaving scripts are cut short by their deadline of 60 ms, or cancelled before.
fn is_cut(outcome: &Outcome) -> bool {
    (fails(outcome) || outcome.ending == Ending::Cancelled) && !outcome.still_running
}

const KINDS: &[Kind] = &[
    kind(
        "prints",
        300,
        completes,
        "import json, sys\nprint(json.dumps({'a': [1, 2, 3]}))\n",
    ),
    kind(
        "imports",
        60,
        completes,
        "import argparse, dataclasses, decimal, logging, random, tempfile, urllib.parse\nprint(random.random(), tempfile.gettempdir())\n",
    ),
    kind(
        "raises",
        60,
        fails,
        "def f(n):\n    if n == 0:\n        raise ValueError('no')\n    f(n - 1)\nf(20)\n",
    ),
    kind("exits", 40, fails, "import sys\nsys.exit(3)\n"),
    kind(
        "floods",
        10,
        completes,
        "for _ in range(2000):\n    print('x' * 1000)\n",
    ),
    kind(
        "allocates",
        30,
        completes,
        "x = [bytearray(1000) for _ in range(2000)]\nd = {str(i): i for i in range(5000)}\n",
    ),
    kind("recurses", 10, fails, "def f(): f()\nf()\n"),
    kind(
        "starts threads",
        20,
        completes,
        "import threading\nts = [threading.Thread(target=print, args=(i,)) for i in range(3)]\n[t.start() for t in ts]\n[t.join() for t in ts]\n",
    ),
    kind(
        "starts a program",
        10,
        completes,
        "import subprocess\nprint(subprocess.run(['/bin/echo', 'hello'], capture_output=True, text=True).stdout)\n",
    ),
    kind(
        "changes the environment",
        20,
        completes,
        "import os\nos.environ['TORTURE'] = '1'\nos.environ.pop('PATH', None)\n",
    ),
    kind(
        "has cycles and finalisers",
        20,
        completes,
        "class A:\n    def __del__(self): print('gone')\na = A(); a.me = a\n",
    ),
    kind(
        "opens files",
        20,
        completes,
        "import tempfile\nwith tempfile.TemporaryFile() as f:\n    f.write(b'x' * 1000)\nopen('/proc/self/status')\n",
    ),
    kind(
        "runs asyncio",
        10,
        completes,
        "import asyncio\nasync def main():\n    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(5)))\nasyncio.run(main())\n",
    ),
    kind(
        "patches and undoes",
        10,
        completes,
        "import json\nfrom unittest import mock\nwith mock.patch('json.dumps', lambda x: 'patched'):\n    assert json.dumps(1) == 'patched'\nassert json.dumps(1) == '1'\n",
    ),
    kind(
        "sets process-wide state",
        10,
        completes,
        "import gc, logging, random, socket, sys, warnings\nlogging.basicConfig(level=logging.DEBUG)\nlogging.debug('here')\nwarnings.simplefilter('error')\nrandom.seed(1)\nsocket.setdefaulttimeout(5)\nsys.setrecursionlimit(500)\nsys.settrace(None)\n",
    ),
    kind("loops", 6, is_cut, "while True: pass\n"),
    kind(
        "loops and catches all",
        4,
        is_cut,
        "def f(): pass\nwhile True:\n    try:\n        while True: f()\n    except BaseException: pass\n",
    ),
    kind("sleeps", 6, is_cut, "import time\ntime.sleep(60)\n"),
    kind(
        "waits for a lock",
        4,
        is_cut,
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n",
    ),
    kind(
        "waits for a queue",
        4,
        is_cut,
        "import queue\nqueue.Queue().get()\n",
    ),
    kind(
        "waits for a socket",
        4,
        is_cut,
        "import socket\na, b = socket.socketpair()\na.recv(1)\n",
    ),
    kind(
        "waits for a program",
        4,
        is_cut,
        "import subprocess\nsubprocess.run(['sleep', '60'])\n",
    ),
    kind(
        "waits for a thread",
        4,
        is_cut,
        "import threading, time\nt = threading.Thread(target=time.sleep, args=(60,))\nt.start()\nt.join()\n",
    ),
    kind(
        "waits in asyncio",
        4,
        is_cut,
        "import asyncio\nasyncio.run(asyncio.sleep(60))\n",
    ),
    kind(
        "needs too much memory",
        10,
        fails,
        "x = []\nwhile True: x.append(bytearray(1 << 20))\n",
    ),
];

/// A small generator of pseudo-random numbers (splitmix64), so that a seed gives the same mix again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn kind(&mut self) -> &'static Kind {
        let total: usize = KINDS.iter().map(|kind| kind.weight).sum();
        let mut place = self.below(total);
        for kind in KINDS {
            if place < kind.weight {
                return kind;
            }
            place -= kind.weight;
        }
        &KINDS[0]
    }
}

/// What a script can see of what others left behind. Printed as JSON.
const PROBE: &str = r#"
import builtins, decimal, gc, json, locale, logging, os, random, signal, socket, sys, threading, time, warnings
import asyncio, subprocess, tempfile
watched = [builtins, json, logging, os, random, socket, subprocess, sys, threading, time, tempfile]
names = {m.__name__: sorted(n for n in vars(m) if not n.startswith('__')) for m in watched if m is not sys}
gc.collect()
umask = os.umask(0); os.umask(umask)
print(json.dumps({
    'names': names,
    'same': [json.dumps.__module__, print.__name__, threading.Thread.start.__qualname__],
    'environ': sorted(os.environ),
    'cwd': os.getcwd(), 'umask': umask,
    'root handlers': [repr(h) for h in logging.root.handlers], 'root level': logging.root.level,
    'filters': len(warnings.filters), 'timeout': socket.getdefaulttimeout(),
    'recursion': sys.getrecursionlimit(), 'trace': repr(sys.gettrace()), 'profile': repr(sys.getprofile()),
    'precision': decimal.getcontext().prec, 'gc': [gc.isenabled(), *gc.get_threshold()],
    'locale': locale.setlocale(locale.LC_ALL), 'meta_path': [repr(f)[:40] for f in sys.meta_path],
    'signals': {s.name: repr(signal.getsignal(s))[:40] for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)},
}, sort_keys=True))
"#;

/// What the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    rss_kib: usize,
    threads: usize,
    files: usize,
    objects: usize,
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

async fn held(executor: &PythonExecutor) -> Held {
    let source = "import gc\ngc.collect()\nprint(len(gc.get_objects()))\n";
    let objects = Case::new(source).run(executor).await.output.stdout.text;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.unwrap().trim().trim_end_matches(" kB").trim();
    Held {
        rss_kib: rss.parse().unwrap(),
        threads: count("/proc/self/task"),
        files: count("/proc/self/fd"),
        objects: objects.trim().parse().unwrap(),
    }
}

async fn probe(executor: &PythonExecutor) -> Value {
    let text = Case::new(PROBE).run(executor).await.output.stdout.text;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[derive(Debug, Default)]
struct Tally {
    runs: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

async fn one(executor: &PythonExecutor, kind: &'static Kind, cancel: bool, tally: &Mutex<Tally>) {
    let mut case = Case::at(
        &format!("/srv/scripts/{}.py", kind.name.replace(' ', "_")),
        kind.source,
    );
    let misbehaves = std::ptr::fn_addr_eq(kind.expected, is_cut as fn(&Outcome) -> bool);
    case.invocation.limits.memory_bytes = 32 * 1024 * 1024;
    if misbehaves {
        case.invocation.limits.timeout = Duration::from_millis(60);
    }
    if cancel && misbehaves {
        let token = case.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            token.cancel();
        });
    }
    let outcome = case.run(executor).await;
    let mut tally = tally.lock();
    *tally.runs.entry(kind.name).or_default() += 1;
    let stranger = outcome.output.stderr.text.contains("DEBUG:") && !kind.source.contains("DEBUG");
    if !(kind.expected)(&outcome) || stranger {
        let stderr: String = outcome.output.stderr.text.chars().take(600).collect();
        let still = outcome.still_running;
        tally.wrong.push(format!(
            "{}: {:?}, still running: {still}\n{stderr}",
            kind.name, outcome.ending
        ));
    }
}

async fn mix(executor: &Arc<PythonExecutor>, runs: usize, seed: u64) -> Tally {
    let (left, numbers) = (
        Arc::new(AtomicUsize::new(runs)),
        Arc::new(Mutex::new(Numbers(seed))),
    );
    let tally = Arc::new(Mutex::new(Tally::default()));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (executor, left) = (Arc::clone(executor), Arc::clone(&left));
            let (numbers, tally) = (Arc::clone(&numbers), Arc::clone(&tally));
            tokio::spawn(async move {
                let next = |left: usize| left.checked_sub(1);
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    let (kind, cancel) = {
                        let mut numbers = numbers.lock();
                        (numbers.kind(), numbers.below(3) == 0)
                    };
                    one(&executor, kind, cancel, &tally).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    std::mem::take(&mut *tally.lock())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the settings of a test come from its environment"
)]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_thousands_of_runs() {
    let (runs, seed) = (
        setting("TORTURE_RUNS", 600) as usize,
        setting("TORTURE_SEED", 1),
    );
    // On a machine that is busy, 16 scripts that import for the first time end slowly.
    let grace = Duration::from_secs(5);
    let executor = Arc::new(PythonExecutor::builder().grace(grace).build().unwrap());
    // Every script once: what is imported for the first time stays.
    let warm = mix(&executor, KINDS.len() * 20, seed).await;
    assert!(warm.wrong.is_empty(), "{:#?}", warm.wrong);
    let (clean, mut former) = (probe(&executor).await, held(&executor).await);
    let first = former;
    println!("| runs | RSS KiB | threads | files | Python objects |\n|---:|---:|---:|---:|---:|");
    let mut counted = BTreeMap::new();
    for quarter in 1..=4 {
        let tally = mix(&executor, runs / 4, seed + quarter).await;
        assert!(tally.wrong.is_empty(), "seed {seed}: {:#?}", tally.wrong);
        for (name, count) in tally.runs {
            *counted.entry(name).or_insert(0) += count;
        }
        former = held(&executor).await;
        let Held {
            rss_kib,
            threads,
            files,
            objects,
        } = former;
        println!(
            "| {} | {rss_kib} | {threads} | {files} | {objects} |",
            runs as u64 / 4 * quarter
        );
    }
    println!("{counted:?}");
    let seen = probe(&executor).await;
    for (what, before) in clean.as_object().unwrap() {
        assert_eq!(
            &seen[what], before,
            "a script sees what others left: {what}"
        );
    }
    assert!(former.threads <= first.threads + 16, "{first:?} {former:?}");
    assert!(former.files <= first.files + 8, "{first:?} {former:?}");
    let objects = former.objects.saturating_sub(first.objects);
    assert!(
        objects < 500 + runs / 2,
        "{objects} objects more after {runs} runs"
    );
    let rss = former.rss_kib.saturating_sub(first.rss_kib);
    assert!(rss < 48 * 1024 + runs, "{rss} KiB more after {runs} runs");
    let health = executor.health().await;
    assert!(
        health.available && health.quarantined_threads == 0,
        "{health:?}"
    );
}
