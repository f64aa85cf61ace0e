//! A served run under way, for the tests of streams over real sockets.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(
    clippy::unwrap_used,
    reason = "only code inside test functions may do so without saying"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use automation_core::executor::{Ending, FnExecutor, Invocation, Outcome};
use automation_http::{ConnectionLimits, StreamLimits, router, serve};
use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::{App, config};

pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<()>,
    pub(crate) app: App,
    pub(crate) place: String,
}

/// Serves one run that is under way.
pub(crate) async fn start(executor: FnExecutor, streams_max: usize) -> Serving {
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
    pub(crate) async fn open(&self, stream: TcpStream) -> BufReader<TcpStream> {
        let mut stream = BufReader::with_capacity(256, stream);
        let request = format!(
            "GET {}/events HTTP/1.1\r\nhost: localhost\r\n\r\n",
            self.place
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    pub(crate) async fn connect(&self) -> BufReader<TcpStream> {
        self.open(TcpStream::connect(self.address).await.unwrap())
            .await
    }
}

/// Reads until a line begins as `start` does.
pub(crate) async fn until_line(stream: &mut BufReader<TcpStream>, start: &str) -> bool {
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
pub(crate) fn held(release: &Arc<Notify>) -> FnExecutor {
    let release = Arc::clone(release);
    FnExecutor::new(move |_: Invocation| {
        let release = Arc::clone(&release);
        async move {
            release.notified().await;
            Outcome::new(Ending::Completed)
        }
    })
}
