//! A process that ends right after its executor was dropped ends well: its workers may just be ending as well, and
//! OpenSSL gives back what it keeps for each of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the executor's suite")]
mod support;
#[path = "executor/tested.rs"]
mod tested;

use std::process::Command;
use std::sync::Arc;

use self::support::Case;
use self::tested::{Tested, executor};

const WORKERS: usize = 16;
/// About one process in thirty broke.
const PROCESSES: usize = 30;
/// Uses OpenSSL on every worker.
const SOURCE: &str = "\
import hashlib, ssl, time
ssl.RAND_bytes(4)
hashlib.new('sha256', b'x' * 10_000).digest()
time.sleep(0.05)
";

#[test]
fn a_process_ends_well_right_after_its_executor() {
    let program = std::env::current_exe().unwrap();
    for _ in 0..PROCESSES {
        let ended = Command::new(&program)
            .args(["--exact", "use_every_worker", "--ignored"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {said}", ended.status);
    }
}

#[tokio::test]
#[ignore = "the process of the test above"]
async fn use_every_worker() {
    let executor = Arc::new(Tested::builder().workers(WORKERS).build().unwrap());
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let executor = Arc::clone(&executor);
        runs.spawn(async move { Case::new(SOURCE).run(&executor).await });
    }
    while let Some(outcome) = runs.join_next().await {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    }
}
