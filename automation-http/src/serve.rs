//! The accept loop: bounds what a connection may cost before there is a request, and ends it gracefully.
//!
//! `axum::serve` installs no timer, so that hyper's own deadline for headers never fires.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::config::Network;

/// After a failed accept (most often: no file descriptor is left) a retry at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may cost.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections at once; further ones wait in the system's queue. Default 1024.
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

/// Serves `app` on `listener` until `stop` ends, then lets open requests finish.
///
/// Returns when the last connection is closed; whoever can't wait drops the future, which closes the rest.
/// Requests carry their client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let by_address = Arc::new(ByAddress::new(&limits));
    let graceful = GracefulShutdown::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        while tasks.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer, place)) => {
                let Some(counted) = by_address.enter(peer.ip()) else {
                    continue;
                };
                let connection = graceful.watch(connection(stream, peer, app.clone(), &limits));
                tasks.spawn(async move {
                    let _held = (place, counted);
                    if let Err(error) = connection.await {
                        tracing::debug!(%peer, %error, "connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Waits for a free place, then for a connection.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are small and written whole: waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: &ConnectionLimits,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time_max)
        .serve_connection(TokioIo::new(stream), service)
}

/// Counts the connections of each address.
#[derive(Debug)]
struct ByAddress {
    counts: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
    exempt: Vec<Network>,
}

impl ByAddress {
    fn new(limits: &ConnectionLimits) -> Self {
        Self {
            counts: Mutex::default(),
            max: limits.per_address_max,
            exempt: limits.trusted_proxies.clone(),
        }
    }

    /// Counts a connection until the answer is dropped; `None` when its address has too many.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        let exempt =
            address.is_loopback() || self.exempt.iter().any(|network| network.contains(address));
        if *count >= self.max && !exempt {
            return None;
        }
        *count += 1;
        Some(Counted {
            by_address: Arc::clone(self),
            address,
        })
    }
}

struct Counted {
    by_address: Arc<ByAddress>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.by_address.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ByAddress, ConnectionLimits};

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let proxy = "10.0.0.1".parse().unwrap();
        let limits = ConnectionLimits {
            per_address_max: 2,
            trusted_proxies: vec![proxy],
            ..ConnectionLimits::default()
        };
        let counts = Arc::new(ByAddress::new(&limits));
        let client = "192.0.2.1".parse().unwrap();
        let held = [counts.enter(client), counts.enter(client)];
        assert!(held.iter().all(Option::is_some));
        assert!(counts.enter(client).is_none());
        assert!(counts.enter("192.0.2.2".parse().unwrap()).is_some());
        drop(held);
        assert!(counts.enter(client).is_some());
        for exempt in ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"] {
            let held: Vec<_> = (0..5)
                .map(|_| counts.enter(exempt.parse().unwrap()))
                .collect();
            assert!(held.iter().all(Option::is_some), "{exempt}");
        }
        assert!(
            counts.counts.lock().is_empty(),
            "nothing is remembered of those who left"
        );
    }
}
