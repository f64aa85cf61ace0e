//! What scripts have used goes back to the system: the C library keeps what was freed, a heap a thread.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails as the test does"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::Ending;
use automation_py::PythonExecutor as Tested;

use self::support::Case;

fn executor() -> Tested {
    Tested::builder().build().unwrap()
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB").trim();
    kib.parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_scripts_is_given_back_to_the_system() {
    let executor = Arc::new(executor());
    // Sleeping keeps several threads at it; a large block that is freed makes the C library keep such ones.
    let source = "import time\nkept = []\nfor n in range(30):\n    kept.append(bytearray(1 << 20))\n\
        large = bytearray(24 << 20)\ndel large\ntime.sleep(0.05)\nagain = bytearray(24 << 20)\ntime.sleep(0.05)\n";
    Case::new("pass\n").run(&executor).await;
    let before = resident_mib();
    for _ in 0..3 {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                let executor = Arc::clone(&executor);
                tokio::spawn(async move { Case::new(source).run(&executor).await })
            })
            .collect();
        for run in runs {
            assert_eq!(run.await.unwrap().ending, Ending::Completed);
        }
    }
    let mut left = 0;
    for _ in 0..50 {
        left = resident_mib().saturating_sub(before);
        if left < 24 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left < 24, "{left} MiB are still there");
}
