//! A way to the server that can be cut at the worst moments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// Where a connection is cut, once, when the client sends a text, or so many journeys later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before anything of it reaches the server.
    Before,
    /// After all but its end has reached the server.
    Half,
    /// After all of it has reached the server, and before an answer does the client.
    After,
}

/// A proxy that cuts the connection on which a text is sent, the first time.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts one on the runtime of the caller.
    pub(crate) async fn start(folder: &Path, text: &'static str, later: usize, cut: Cut) -> Self {
        Self::with(folder, move |client, server, cuts| {
            tokio::spawn(pass(client, server, (text, later, cut), cuts))
        })
        .await
    }

    /// Starts one that cuts every connection after a number of bytes that looks random, in the middle of whatever is
    /// on its way then.
    pub(crate) async fn cutting_all(folder: &Path, mut seed: u64) -> Self {
        Self::with(folder, move |client, server, cuts| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bytes = 20_000 + usize::try_from(seed >> 33).unwrap() % 150_000;
            tokio::spawn(pass_some(client, server, bytes, cuts))
        })
        .await
    }

    async fn with(
        folder: &Path,
        mut pass: impl FnMut(TcpStream, UnixStream, Arc<AtomicUsize>) -> JoinHandle<()> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (socket, cuts) = (folder.join(".s.PGSQL.5432"), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                pass(client, server, Arc::clone(&counted));
            }
        });
        Self { port, cuts }
    }

    /// Returns how many connections were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Acquire)
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: UnixStream,
    (text, later, cut): (&str, usize, Cut),
    cuts: Arc<AtomicUsize>,
) {
    let (mut sent, mut answered) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut journeys = None;
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                // What is sent together arrives together, since the pause is longer than it takes to send it.
                let mut whole = sent[..length].to_vec();
                let is_found = whole.windows(text.len()).any(|window| window == text.as_bytes());
                journeys = journeys.map(|count: usize| count + 1).or(is_found.then_some(0));
                if journeys == Some(later) && cuts.swap(1, Ordering::AcqRel) == 0 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    while let Ok(more @ 1..) = client.try_read(&mut sent) {
                        whole.extend_from_slice(&sent[..more]);
                    }
                    let reach = match cut {
                        Cut::Before => 0,
                        Cut::Half => whole.len().saturating_sub(12),
                        Cut::After => whole.len(),
                    };
                    server.write_all(&whole[..reach]).await.unwrap();
                    drop(client);
                    // The server goes on for a while with what it has.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    return;
                }
                if server.write_all(&whole).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Passes so many bytes, in both directions together.
async fn pass_some(
    mut client: TcpStream,
    mut server: UnixStream,
    mut bytes: usize,
    cuts: Arc<AtomicUsize>,
) {
    let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    while bytes > 0 {
        let passed = tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                let length = length.min(bytes);
                server.write_all(&sent[..length]).await.map(|()| length)
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                let length = length.min(bytes);
                client.write_all(&answered[..length]).await.map(|()| length)
            }
        };
        let Ok(passed) = passed else { return };
        bytes -= passed;
    }
    cuts.fetch_add(1, Ordering::AcqRel);
}
