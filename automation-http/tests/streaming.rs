//! Streams of events over real sockets: readers that do not read, and the server's end.
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::{Ending, FnExecutor, Invocation, Outcome, RunEvent};
use support::streaming::{held, start, until_line};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

#[tokio::test]
async fn a_reader_who_does_not_read_holds_up_nobody_and_little() {
    const LINES: usize = 500;
    let (go, sent) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&go), Arc::clone(&sent));
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            wait.notified().await;
            for _ in 0..LINES {
                let text = "x".repeat(8 * 1024);
                invocation.host.emit(RunEvent::Log { text });
                count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            Outcome::new(Ending::Completed)
        }
    });
    let serving = start(executor, 8).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut lazy = serving
        .open(socket.connect(serving.address).await.unwrap())
        .await;
    assert!(until_line(&mut lazy, "event: status").await);
    let mut eager = serving.connect().await;
    assert!(until_line(&mut eager, "event: status").await);
    go.notify_one();
    assert!(
        until_line(&mut eager, "event: end").await,
        "the other has everything"
    );
    assert_eq!(sent.load(Ordering::Relaxed), LINES);
    let mut lines = 0;
    while until_line(&mut lazy, "event: ").await {
        lines += 1;
    }
    assert_eq!(lines, LINES + 3, "it finds the rest in the storage");
}

#[tokio::test]
async fn streams_end_when_the_server_does_and_their_clients_can_come_back() {
    let release = Arc::new(Notify::new());
    let serving = start(held(&release), 8).await;
    let mut stream = serving.connect().await;
    assert!(until_line(&mut stream, "event: status").await);
    serving.stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), serving.task);
    ended
        .await
        .expect("an open stream holds up the end")
        .unwrap();
    assert!(
        !until_line(&mut stream, "event: ").await,
        "without an end event"
    );
    release.notify_one();
    let again = serving.app.get(&format!("{}/events", serving.place)).await;
    assert!(again.text.contains("event: end"));
}

#[tokio::test]
async fn a_stream_is_no_idle_connection_that_gives_way() {
    let release = Arc::new(Notify::new());
    let serving = start(held(&release), 4).await;
    let mut stream = serving.connect().await;
    assert!(until_line(&mut stream, "event: status").await);
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(serving.address).await.unwrap());
    }
    let mut other = serving.connect().await;
    assert!(until_line(&mut other, "event: status").await);
    release.notify_one();
    assert!(until_line(&mut stream, "event: end").await);
}
