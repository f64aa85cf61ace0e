//! Streams of events over real sockets: many idle ones, readers that do not read, and the server's end.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::{Ending, FnExecutor, Invocation, Outcome, RunEvent};
use automation_http::{ConnectionLimits, StreamLimits, router, serve};
use axum::http::StatusCode;
use serde_json::json;
use support::{App, config};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    app: App,
    place: String,
}

/// Serves one run that is under way.
async fn start(executor: FnExecutor, streams_max: usize) -> Serving {
    let mut streams = StreamLimits::default();
    streams.streams_max = streams_max;
    streams.per_client_max = streams_max;
    let app = App::running(executor, config().with_streams(streams));
    let body = json!({"script_name": "slow.py"});
    let asked = app.post("/api/automation/manual?wait=0", &body).await;
    asked.data_of(StatusCode::ACCEPTED);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut limits = ConnectionLimits::default();
    limits.connections_max = streams_max + 16;
    let served = router(app.automation.clone(), config().with_streams(streams));
    let task = tokio::spawn(serve(vec![listener], served, limits, async {
        let _ = stopped.await;
    }));
    let place = asked.header("location").unwrap().to_owned();
    Serving {
        address,
        stop,
        task,
        app,
        place,
    }
}

impl Serving {
    async fn open(&self, stream: TcpStream) -> BufReader<TcpStream> {
        let mut stream = BufReader::with_capacity(256, stream);
        let request = format!(
            "GET {}/events HTTP/1.1\r\nhost: localhost\r\n\r\n",
            self.place
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        self.open(TcpStream::connect(self.address).await.unwrap())
            .await
    }
}

/// Reads until a line begins as `start` does.
async fn until_line(stream: &mut BufReader<TcpStream>, start: &str) -> bool {
    let mut line = String::new();
    while stream.read_line(&mut line).await.unwrap() > 0 {
        if line.starts_with(start) {
            return true;
        }
        line.clear();
    }
    false
}

/// Runs go on until they are released.
fn held(release: &Arc<Notify>) -> FnExecutor {
    let release = Arc::clone(release);
    FnExecutor::new(move |_: Invocation| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            Outcome::new(Ending::Completed)
        }
    })
}

#[cfg(target_os = "linux")]
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1);
    kib.unwrap().parse().unwrap()
}

/// The bound is for the server; here its clients' ends are in the same process.
#[cfg(target_os = "linux")]
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

#[tokio::test]
async fn a_reader_who_does_not_read_holds_up_nobody_and_little() {
    const LINES: usize = 3000;
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
