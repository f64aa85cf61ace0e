//! Deep recursion: never deeper than a stack bears. In a binary of its own, since the limit is the interpreter's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's tests")]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use automation_core::executor::Ending;

use self::tested::{Tested, executor};
use crate::support::Case;

/// Deep recursion through C code and through Python, as deep as a script may ask for.
const RECURSIONS: &[&str] = &[
    "def f(x): return sorted([1, 2], key=f)\nf(1)",
    "def f(): return f()\nf()",
    "class A:\n    def __repr__(self): return '%r' % (self,)\nrepr(A())",
    "class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
    "def f(): return eval('f()')\nf()",
    "nested = []\nfor _ in range(100_000): nested = [nested]\nrepr(nested)",
    "import json\nnested = []\nfor _ in range(100_000): nested = [nested]\njson.dumps(nested)",
    "import json\njson.loads('[' * 100_000)",
    "compile('-' * 100_000 + '1', 'x', 'eval')",
    "compile('(' * 100_000, 'x', 'eval')",
];

#[tokio::test]
async fn deep_recursion_overflows_no_stack() {
    let executor = executor();
    if cfg!(not(Py_3_12)) {
        let source = "import sys\nsys.setrecursionlimit(10**6)\nprint(sys.getrecursionlimit())\n";
        let outcome = Case::new(source).run(&executor).await;
        assert_eq!(outcome.output.stdout.text, "10000\n");
    }
    for recursion in RECURSIONS {
        for start in [
            "attempt()",
            "thread = threading.Thread(target=attempt)\nthread.start()\nthread.join()",
        ] {
            let source = format!(
                "import sys, threading\nsys.setrecursionlimit(60_000)\ndef attempt():\n    try:\n        exec({recursion:?}, {{}})\n    \
                 except (RecursionError, MemoryError, SyntaxError, ValueError) as error:\n        print('ended')\n{start}\n\
                 sys.setrecursionlimit(1000)\n"
            );
            let outcome = Case::new(&source).run(&executor).await;
            assert_eq!(
                outcome.ending,
                Ending::Completed,
                "{recursion}: {outcome:?}"
            );
        }
    }
}
