//! What a run used is in its outcome, and its output is kept up to its own limit.

use automation_core::executor::Ending;

use crate::MIB;
use crate::support::{Case, executor, run};

#[tokio::test]
async fn a_short_run_has_every_figure() {
    let usage = run("print('x')").await.usage;
    assert!(usage.cpu_us.is_some());
    assert!(usage.memory_peak_bytes.unwrap() < 4 * MIB);
    assert_eq!((usage.children, usage.threads), (Some(0), Some(0)));
}

#[tokio::test]
async fn each_stream_is_kept_up_to_the_limit() {
    let source = "import sys\nfor stream in (sys.stdout, sys.stderr):\n    stream.write('a' * 5000 + 'b' * 5000)";
    let executor = executor();
    let mut case = Case::new(source);
    case.invocation.limits.stream_bytes = 1000;
    let outcome = case.run(&executor).await;
    for stream in [&outcome.output.stdout, &outcome.output.stderr] {
        let expected = format!(
            "{}\n[... 9000 bytes omitted ...]\n{}",
            "a".repeat(500),
            "b".repeat(500)
        );
        assert_eq!(stream.text, expected);
        assert_eq!(stream.bytes_total, 10_000);
        assert!(stream.is_truncated());
    }
    let mut case = Case::new(source);
    case.invocation.limits.stream_bytes = 10_000;
    let outcome = case.run(&executor).await;
    assert!(!outcome.output.stdout.is_truncated());
    let mut case = Case::new("print('x' * 3_000_000)");
    case.invocation.limits.stream_bytes = 4 << 20;
    let outcome = case.run(&executor).await;
    assert_eq!(outcome.ending, Ending::Completed);
    assert_eq!(outcome.output.stdout.text.len(), 3_000_001);
}
