//! Many runs at once.

use std::sync::Arc;

use automation_core::Reason;
use automation_core::executor::Ending;
use serde_json::json;

use crate::support::{Case, executor, failure};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_never_see_each_other() {
    let source = r#"
import json, os, sys, time
import __main__
n = json.loads(sys.argv[1])['n']
os.environ['AUTOMATION_N'] = str(n)
for turn in range(20):
    assert __main__.n == n and sys.modules['__main__'].n == n
    assert os.environ['AUTOMATION_N'] == str(n)
    assert json.loads(sys.argv[1])['n'] == n
    print('out', n)
    print('err', n, file=sys.stderr)
    if turn % 5 == n % 5:
        time.sleep(0.001)
"#;
    let executor = Arc::new(executor());
    let runs: Vec<_> = (0..64)
        .map(|n| {
            let executor = Arc::clone(&executor);
            tokio::spawn(async move {
                let case = Case::new(source).with(json!({ "n": n }));
                let outcome = case.run(&executor).await;
                assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
                assert_eq!(outcome.output.stdout.text, format!("out {n}\n").repeat(20));
                assert_eq!(outcome.output.stderr.text, format!("err {n}\n").repeat(20));
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}

#[tokio::test]
async fn versions_of_one_script_run_side_by_side() {
    let executor = executor();
    for text in ["one", "two", "one"] {
        let outcome = Case::new(&format!("print('{text}')")).run(&executor).await;
        assert_eq!(outcome.output.stdout.text, format!("{text}\n"));
    }
    for path in ["/srv/a/probe.py", "/srv/b/probe.py"] {
        let outcome = Case::at(path, "raise ValueError").run(&executor).await;
        let text = &outcome.output.stderr.text;
        assert!(text.contains(&format!("File \"{path}\", line 1")), "{text}");
    }
}

#[tokio::test]
async fn executors_share_the_interpreter() {
    let (first, second) = (executor(), executor());
    for executor in [&first, &second] {
        assert_eq!(
            Case::new("print(1)").run(executor).await.output.stdout.text,
            "1\n"
        );
    }
    drop(first);
    assert_eq!(
        Case::new("print(2)").run(&second).await.output.stdout.text,
        "2\n"
    );
}

#[tokio::test]
async fn deep_recursion_is_an_exception_and_no_crash() {
    let executor = executor();
    for source in [
        "def f(): f()\nf()\n",
        "x = []\nfor _ in range(100_000): x = [x]\nrepr(x)\n",
        "import json\njson.loads('[' * 100_000)\n",
    ] {
        let outcome = Case::new(source).run(&executor).await;
        let (reason, message) = failure(&outcome);
        assert_eq!(reason, Reason::Exception);
        assert!(message.starts_with("RecursionError"), "{message}");
    }
}
