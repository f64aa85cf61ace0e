//! A server whose threads are in scripts that nothing can stop: it goes on answering, and ends for its supervisor.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::Folder;

/// Keeps the GIL for about as many seconds as its parameter says times two.
const HOG: &str = r#"# /// script
# [tool.automation]
# description = "Computes in C and keeps the GIL"
# timeout_seconds = 1
# [tool.automation.parameters.count]
# type = "integer"
# required = true
# ///
import json, sys
sum(range(json.loads(sys.argv[1])["count"]))
"#;

/// Waits in foreign code that no signal ends.
const STUCK: &str = r#"# /// script
# [tool.automation]
# description = "Waits for a lock that nobody releases"
# timeout_seconds = 1
# ///
import ctypes
lib = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
lib.pthread_mutex_lock(mutex)
lib.pthread_mutex_lock(mutex)
"#;

#[test]
fn health_is_answered_while_a_script_keeps_the_gil() {
    let folder = Folder::new();
    folder.write("scripts/hog.py", HOG);
    let server = folder.start(|_| {});
    let client = server.client();
    let run = std::thread::spawn({
        let client = client.clone();
        move || {
            let begin = Instant::now();
            let body = json!({"script_name": "hog.py", "parameters": {"count": 400_000_000}});
            (client.post("manual", &body), begin.elapsed())
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let mut latencies = Vec::new();
    while latencies.len() < 300 {
        let begin = Instant::now();
        assert_eq!(client.get("/health").status, 200);
        latencies.push(begin.elapsed());
        std::thread::sleep(Duration::from_millis(4));
    }
    latencies.sort();
    assert!(
        latencies[296] <= Duration::from_millis(50),
        "{:?}",
        &latencies[280..]
    );
    let (answer, elapsed) = run.join().unwrap();
    assert!(
        answer.body.to_string().contains("\"still_running\":true"),
        "{}",
        answer.body
    );
    assert!(elapsed < Duration::from_millis(2200), "{elapsed:?}");
}

#[test]
fn a_server_whose_threads_are_used_up_ends_with_75() {
    let folder = Folder::new();
    folder.write("scripts/stuck.py", STUCK);
    let server = folder.start(|_| {});
    let runs: Vec<_> = (0..24)
        .map(|_| {
            let client = server.client();
            std::thread::spawn(move || {
                let _ = client.try_post("manual", &json!({"script_name": "stuck.py"}));
            })
        })
        .collect();
    let (status, _) = server.wait(Duration::from_secs(60));
    assert_eq!(status.code(), Some(75));
    for run in runs {
        run.join().unwrap();
    }
    let next = folder.start(|_| {});
    assert_eq!(
        next.client().get("/health").body["running"],
        0,
        "nothing is left open"
    );
}
