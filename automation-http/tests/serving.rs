//! The accept loop over real sockets: deadlines, hang-ups and the end.
#![expect(
    clippy::unwrap_used,
    reason = "clippy knows only the functions that are marked as tests"
)]

mod support;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use automation_http::{ConnectionLimits, HttpConfig, RateLimit, router, serve};
use support::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    app: App,
}

async fn start(header_time_max: Duration) -> Serving {
    start_with(|limits| limits.header_time_max = header_time_max).await
}

async fn start_with(configure: impl FnOnce(&mut ConnectionLimits)) -> Serving {
    start_on("127.0.0.1:0", configure, support::config()).await
}

async fn start_on(
    address: &str,
    configure: impl FnOnce(&mut ConnectionLimits),
    config: HttpConfig,
) -> Serving {
    let app = App::new();
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut limits = ConnectionLimits::default();
    configure(&mut limits);
    let served = router(app.automation.clone(), config);
    let task = tokio::spawn(serve(vec![listener], served, limits, async {
        let _ = stopped.await;
    }));
    Serving {
        address,
        stop,
        task,
        app,
    }
}

impl Serving {
    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn manual(script: &str) -> String {
    let body = format!("{{\"script_name\": \"{script}\", \"ticket_id\": \"T-1\"}}");
    format!(
        "POST /api/automation/manual HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn requests_are_served() {
    let serving = start(Duration::from_secs(10)).await;
    let answer = serving
        .exchange("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let answer = serving.exchange("GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
}

/// Sends a request from one of our own addresses to a server on any of them, and returns the status line.
async fn exchange_between(from: &str, to: SocketAddr, request: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(from.parse().unwrap(), 0))
        .unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn clients_are_told_apart_by_their_address() {
    let limit = RateLimit::new(NonZeroU32::MIN, Duration::from_secs(60));
    let config = support::config().with_rate_limit(Some(limit));
    let serving = start_on("127.0.0.1:0", |_| {}, config).await;
    for (from, status) in [
        ("127.0.0.1", "200 OK"),
        ("127.0.0.1", "429 Too Many Requests"),
        ("127.0.0.2", "200 OK"),
        ("127.0.0.2", "429 Too Many Requests"),
    ] {
        let answer = exchange_between(from, serving.address, &manual("disk_cleanup.py")).await;
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{from}");
    }
}

#[tokio::test]
async fn a_server_on_all_addresses_is_addressed_by_the_one_that_was_reached() {
    // The way there decides which of our addresses is used; nothing is sent.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("192.0.2.1:9").is_err() {
        return; // This machine has no address but loopback, which is always served.
    }
    let ours = probe.local_addr().unwrap().ip();
    let config = support::config().with_bound("0.0.0.0".parse().unwrap());
    let serving = start_on("0.0.0.0:0", |_| {}, config).await;
    let to = SocketAddr::new(ours, serving.address.port());
    for (host, status) in [
        (to.to_string(), "200 OK"),
        (ours.to_string(), "200 OK"),
        ("192.0.2.1".to_owned(), "403 Forbidden"),
        ("0.0.0.0".to_owned(), "403 Forbidden"),
        ("evil.example".to_owned(), "403 Forbidden"),
    ] {
        let request = format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = exchange_between(&ours.to_string(), to, &request).await;
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{host}");
    }
}

#[tokio::test]
async fn headers_have_a_size() {
    let serving = start(Duration::from_secs(10)).await;
    for (kib, served) in [(16, true), (300, false)] {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        let padding = "x".repeat(kib * 1024);
        let request = format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {padding}\r\n\r\n"
        );
        // A refusal may come as the end of a connection in the middle of the request.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 OK"), served, "{kib} KiB");
    }
}

#[tokio::test]
async fn who_never_finishes_its_headers_is_closed() {
    let serving = start(Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut sockets = Vec::new();
    for beginning in ["", "GET", "GET /health HTTP/1.1\r\nhost: local"] {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        sockets.push(stream);
    }
    for mut stream in sockets {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
            .await
            .expect("it is closed");
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_run_outlives_the_client_that_hangs_up() {
    let serving = start(Duration::from_secs(10)).await;
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    stream
        .write_all(manual("slow.py").as_bytes())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = serving.app.get("/api/automation/logs/T-1").await;
        if answer.status == 200 && answer.data()[0]["status"] == "completed" {
            return;
        }
    }
    panic!("the run did not complete");
}

#[tokio::test]
async fn open_requests_are_answered_before_the_end() {
    let serving = start(Duration::from_secs(10)).await;
    let mut open = TcpStream::connect(serving.address).await.unwrap();
    open.write_all(manual("slow.py").as_bytes()).await.unwrap();
    let _idle = TcpStream::connect(serving.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    serving.stop.send(()).unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("Automation completed successfully"),
        "{answer}"
    );
    tokio::time::timeout(Duration::from_secs(3), serving.task)
        .await
        .expect("it ends")
        .unwrap();
    assert!(
        TcpStream::connect(serving.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn who_says_nothing_gives_way_to_who_asks() {
    let serving = start_with(|limits| limits.connections_max = 4).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(serving.address).await.unwrap());
    }
    let began = Instant::now();
    for _ in 0..10 {
        let answer = serving
            .exchange("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}
