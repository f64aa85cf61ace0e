//! What many streams of events hold when nothing happens. In a file of its own, since it looks at the whole process.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::sync::Arc;

use support::streaming::{held, start, until_line};
use tokio::sync::Notify;

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1);
    kib.unwrap().parse().unwrap()
}

/// The bound is for the server; here its clients' ends are in the same process.
#[tokio::test]
async fn a_thousand_idle_streams_are_cheap() {
    let release = Arc::new(Notify::new());
    let serving = start(held(&release), 1000).await;
    drop(serving.connect().await);
    let before = resident_kib();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = serving.connect().await;
        assert!(until_line(&mut stream, "event: status").await);
        streams.push(stream);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown <= 32 * 1024, "{grown} KiB");
    println!("1000 idle streams hold {grown} KiB");
    release.notify_one();
    for stream in &mut streams {
        assert!(until_line(stream, "event: end").await);
    }
}
