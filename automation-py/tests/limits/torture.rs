//! A thousand random runs with random limits. Slow: `cargo test -p automation-py --test limits -- --ignored`.

use std::time::{Duration, Instant};

use automation_core::Reason;
use automation_core::executor::Ending;

use crate::support::{Case, executor, failure};
use crate::{MIB, assert_next_run_works, limited, resident_bytes};

const RUNS: usize = 1000;

/// What a run does, over and over, until it is refused memory or has done it often enough.
const STEPS: [&str; 16] = [
    "held.append(bytes(size))",
    "held.append([None] * (size // 8))",
    "held.append({n: str(n) for n in range(size // 64)})",
    "held.append([object() for _ in range(size // 32)])",
    "held.append('x' * size + '\\u00e9')",
    "held.append(json.loads('[' + '[1, {\"a\": 2.5}],' * (size // 16) + '1]'))",
    "held.append(re.findall('.', 'ab' * (size // 8)))",
    "held.append(zlib.decompress(zlib.compress(bytes(size))))",
    "held.append(list(map(str, range(size // 64))))",
    "held.append(functools.reduce(lambda n, _: (n,), range(size // 64), ()))",
    "held.append(type('T', (), {'a%d' % n: n for n in range(50)}))",
    "names = {}; exec(''.join(f'def f{n}(): return [{n}, \"{n}\"]\\n' for n in range(200)), names); held.append(names)",
    "held.append(compile('x = [' + '1,' * (size // 200) + ']', 'x', 'exec'))",
    "held.append(xml.etree.ElementTree.fromstring('<a>' + '<b c=\"d\">e</b>' * (size // 64) + '</a>'))",
    "held.append([n ** 50 for n in range(size // 64)])",
    "importlib.reload(random.choice([string, colorsys, textwrap, heapq]))",
];

const PRELUDE: &str = "import json, re, zlib, functools, xml.etree.ElementTree, importlib, random, string, colorsys, \
     textwrap, heapq\nheld = []\n";

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn source(&mut self) -> String {
        let steps: Vec<_> = (0..3).map(|_| STEPS[self.next(STEPS.len())]).collect();
        let size = [600, 5_000, 40_000, 200_000, 500_000][self.next(5)];
        let body = steps.join("\n        ");
        let catches = ["MemoryError", "BaseException", "()"][self.next(3)];
        format!(
            "{PRELUDE}for size in [{size}] * 40:\n    try:\n        {body}\n    except {catches}:\n        if len(held) % 2: held.clear()\n"
        )
    }
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_thousand_limited_runs_leave_a_sound_process() {
    let executor = executor();
    limited(&executor, 512, PRELUDE).await;
    let before = resident_bytes();
    let mut numbers = Numbers(2024);
    let (mut refused, mut completed, mut failed, mut timed_out) = (0, 0, 0, 0);
    let (begin, mut half) = (Instant::now(), before);
    for number in 0..RUNS {
        let source = numbers.source();
        let mut case = Case::new(&source).within(Duration::from_secs(60));
        case.invocation.limits.memory_bytes = (3 + numbers.next(14) as u64) * MIB;
        let outcome = case.run(&executor).await;
        match &outcome.ending {
            Ending::Completed => completed += 1,
            Ending::Failed(_) if failure(&outcome).0 == Reason::MemoryLimit => refused += 1,
            Ending::Failed(_) if failure(&outcome).0 == Reason::Exception => failed += 1,
            Ending::Failed(_)
                if failure(&outcome).0 == Reason::Timeout && !outcome.still_running =>
            {
                timed_out += 1;
            }
            _ => panic!("run {number}: {source}\n{outcome:?}"),
        }
        if number % 20 == 0 {
            assert_next_run_works(&executor).await;
        }
        if number == RUNS / 2 {
            half = resident_bytes();
        }
    }
    assert_next_run_works(&executor).await;
    let mib_more = |since: u64| resident_bytes().saturating_sub(since) / MIB;
    let (grown, grown_late) = (mib_more(before), mib_more(half));
    println!(
        "{RUNS} runs in {:.0?}: {refused} refused memory, {completed} completed, {failed} failed otherwise, {timed_out} timed out; {grown} MiB more than at first, {grown_late} more than after half of them",
        begin.elapsed()
    );
    assert!(refused > RUNS / 5, "the limits are met");
    assert!(grown_late < 40, "{grown_late} MiB more in the second half");
}
