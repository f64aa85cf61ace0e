//! The accept loop: bounds what a connection may cost before there is a request, and ends it gracefully.
//!
//! `axum::serve` installs no timer, so that hyper's own deadline for headers never fires.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::config::Network;
use crate::connections::{ByAddress, Counted, Idle, Idler, Work};
use crate::stall::Unstalled;

/// After a failed accept (most often: no file descriptor is left) a retry at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a request's line and headers, and of what is read ahead, that each connection may hold.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A client that takes nothing of its answer for longer is given up.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// What connections may cost.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections at once. For a further one, the one that has done nothing for the longest time is closed;
    /// if all have a request in work, it waits. Default 1024.
    pub connections_max: usize,
    /// Connections of one address at once; further ones are closed. Loopback and trusted proxies are exempt, as
    /// many clients stand behind them. Default 64.
    pub per_address_max: usize,
    /// Time in which a request's line and headers have to arrive. Default 10 seconds.
    pub header_time_max: Duration,
    /// Proxies that are exempt from `per_address_max`.
    pub trusted_proxies: Vec<Network>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            per_address_max: 64,
            header_time_max: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The address of ours to which a request's connection was made, in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalAddress(pub(crate) IpAddr);

/// The connection of a request, in its extensions, for answers that take long.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    idler: Arc<Idler>,
    stops: watch::Receiver<bool>,
}

impl Connection {
    /// Keeps the connection from giving way to others until the answer is dropped.
    pub(crate) fn work(&self) -> Work {
        self.idler.work()
    }

    /// Waits until the server is about to stop: answers without an end are ended then.
    pub(crate) async fn stops(mut self) {
        if self.stops.wait_for(|stops| *stops).await.is_err() {
            tracing::debug!("a connection outlives the server");
        }
    }
}

/// Serves `app` on `listeners` until `stop` ends, then lets open requests finish.
///
/// Returns when the last connection is closed; whoever can't wait drops the future, which closes the rest.
/// Requests carry their client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) {
    let door = Door::new(listeners, limits);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let (stops, stopping) = watch::channel(false);
    loop {
        let guest = tokio::select! {
            () = &mut stop => break,
            guest = door.admit() => guest,
        };
        while connections.try_join_next().is_some() {}
        let idler = Arc::new(Idler::new(&door.idle));
        let connection = graceful.watch(connection(
            guest.stream,
            guest.peer,
            app.clone(),
            &idler,
            &stopping,
            door.header_time_max,
        ));
        connections.spawn(async move {
            let _held = (guest.place, guest.counted);
            tokio::select! {
                biased;
                () = idler.closed() => tracing::debug!(peer = %guest.peer, "an idle connection gave way"),
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(peer = %guest.peer, %error, "a connection ended early");
                }
            }
        });
    }
    drop(door);
    stops.send_replace(true);
    graceful.shutdown().await;
}

/// Where connections come in.
struct Door {
    listeners: Vec<TcpListener>,
    places: Arc<Semaphore>,
    by_address: Arc<ByAddress>,
    idle: Arc<Idle>,
    header_time_max: Duration,
}

/// A connection that was let in, and what it holds as long as it is open.
struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    counted: Counted,
}

impl Door {
    fn new(listeners: Vec<TcpListener>, limits: ConnectionLimits) -> Self {
        Self {
            listeners,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            header_time_max: limits.header_time_max,
            by_address: Arc::new(ByAddress::new(limits)),
            idle: Arc::default(),
        }
    }

    /// Waits for a connection that may be served. Dropping the future closes one that waits for its place.
    async fn admit(&self) -> Guest {
        loop {
            let (stream, peer) = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    self.idle.close_first();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(counted) = self.by_address.enter(peer.ip()) else {
                continue;
            };
            let Some(place) = self.place().await else {
                continue;
            };
            // Answers are written whole: waiting for more to send would only delay them. A connection for which
            // this can't be set is already broken, and its first read says so.
            let _ = stream.set_nodelay(true);
            return Guest {
                stream,
                peer,
                place,
                counted,
            };
        }
    }

    /// Waits for a connection on any listener.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let mut accepted = self.listeners.iter().map(|one| one.poll_accept(context));
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Waits for a place; when none is free, a connection that does nothing gives way.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.idle.close_first();
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    idler: &Arc<Idler>,
    stops: &watch::Receiver<bool>,
    header_time_max: Duration,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    let idler = Arc::clone(idler);
    let this = Connection {
        idler: Arc::clone(&idler),
        stops: stops.clone(),
    };
    let local = stream
        .local_addr()
        .map(|address| LocalAddress(address.ip()));
    let local = local.ok();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(this.clone());
        if let Some(local) = local {
            request.extensions_mut().insert(local);
        }
        let (app, idler) = (app.clone(), Arc::clone(&idler));
        async move { idler.busy_while(app.oneshot(request)).await }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time_max)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(
            TokioIo::new(Unstalled::new(stream, WRITE_TIME_MAX)),
            service,
        )
}
