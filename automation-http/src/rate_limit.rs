//! How often a client may ask for a run: a fixed window that begins with its first request, as the existing
//! clients know it, told in the standard `RateLimit` headers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::{HttpConfig, Network, RateLimit};
use crate::error::{ApiError, whole_seconds_up};

/// Clients that are remembered at once. The one whose window ends first gives way.
const CLIENTS_MAX: usize = 10_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The headers that scripts of the frontend may read.
pub(crate) const EXPOSED: [HeaderName; 4] = [LIMIT, REMAINING, RESET, POLICY];

/// Counts the requests of each client.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    limit: RateLimit,
    trusted_proxies: Vec<Network>,
    windows: Mutex<HashMap<IpAddr, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    used: u32,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    remaining: u32,
    reset_seconds: u64,
    exceeded: bool,
}

impl RateLimiter {
    /// Returns the limiter that a configuration asks for, if it asks for one.
    pub(crate) fn new(config: &HttpConfig) -> Option<Arc<Self>> {
        config.rate_limit.map(|limit| {
            let trusted_proxies = config.trusted_proxies.clone();
            Arc::new(Self {
                limit,
                trusted_proxies,
                windows: Mutex::default(),
            })
        })
    }

    fn count(&self, client: IpAddr) -> Standing {
        let now = Instant::now();
        let mut windows = self.windows.lock();
        make_room(&mut windows, client, now);
        let fresh = Window {
            ends: now + self.limit.window,
            used: 0,
        };
        let window = windows.entry(client).or_insert(fresh);
        if window.ends <= now {
            *window = fresh;
        }
        let requests = self.limit.requests.get();
        let exceeded = window.used >= requests;
        window.used = requests.min(window.used + 1);
        Standing {
            remaining: requests - window.used,
            reset_seconds: whole_seconds_up(window.ends - now),
            exceeded,
        }
    }
}

fn make_room(windows: &mut HashMap<IpAddr, Window>, client: IpAddr, now: Instant) {
    if windows.len() < CLIENTS_MAX || windows.contains_key(&client) {
        return;
    }
    windows.retain(|_, window| window.ends > now);
    if windows.len() < CLIENTS_MAX {
        return;
    }
    let first = windows
        .iter()
        .min_by_key(|(_, window)| window.ends)
        .map(|(client, _)| *client);
    if let Some(first) = first {
        windows.remove(&first);
    }
}

/// Counts a request, and refuses it if its client has used up its window.
pub(crate) async fn limit(
    State(limiter): State<Arc<RateLimiter>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| peer.ip());
    let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let client = client_of(peer, request.headers(), &limiter.trusted_proxies);
    let standing = limiter.count(bucket_of(client));
    let mut response = if standing.exceeded {
        let wait = std::time::Duration::from_secs(standing.reset_seconds);
        let detail = format!("more than {} from this client", limiter.limit);
        ApiError::quota_exceeded(detail, wait).into_response()
    } else {
        next.run(request).await
    };
    tell(response.headers_mut(), limiter.limit, standing);
    response
}

fn tell(headers: &mut HeaderMap, limit: RateLimit, standing: Standing) {
    let policy = format!("{};w={}", limit.requests, limit.window.as_secs());
    let policy =
        HeaderValue::from_str(&policy).expect("digits, a semicolon and letters are visible");
    headers.insert(LIMIT, HeaderValue::from(limit.requests.get()));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(standing.reset_seconds));
    headers.insert(POLICY, policy);
}

/// Returns who is behind a connection: its peer, or, if that is a trusted proxy, the nearest address in
/// `X-Forwarded-For` that is not one. Entries to its left are what the client says of itself.
fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer;
    let forwarded = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let entries: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    for entry in entries.into_iter().rev() {
        let Some(address) = forwarded_address(entry.trim()).filter(|_| is_trusted(client)) else {
            break;
        };
        client = address;
    }
    client
}

/// Reads an entry of `X-Forwarded-For`; some proxies add the port.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(entry);
    bare.parse()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// One household has a whole /64 of IPv6 addresses: it is one client.
fn bucket_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU32;
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderValue};

    use super::{CLIENTS_MAX, RateLimiter, bucket_of, client_of};
    use crate::config::{HttpConfig, RateLimit};

    fn limiter(requests: u32, seconds: u64) -> std::sync::Arc<RateLimiter> {
        let limit = RateLimit::new(
            NonZeroU32::new(requests).unwrap(),
            Duration::from_secs(seconds),
        );
        let config =
            HttpConfig::new("http://localhost:3000".parse().unwrap()).with_rate_limit(Some(limit));
        RateLimiter::new(&config).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_begins_with_the_first_request_and_ends_for_good() {
        let limiter = limiter(2, 10);
        let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
        let first = limiter.count(a);
        assert_eq!(
            (first.remaining, first.reset_seconds, first.exceeded),
            (1, 10, false)
        );
        tokio::time::advance(Duration::from_millis(4500)).await;
        let second = limiter.count(a);
        assert_eq!(
            (second.remaining, second.reset_seconds, second.exceeded),
            (0, 6, false)
        );
        assert!(limiter.count(a).exceeded);
        assert!(
            !limiter.count(b).exceeded,
            "another client has its own window"
        );
        tokio::time::advance(Duration::from_millis(5500)).await;
        assert_eq!(limiter.count(a).remaining, 1, "the window ended");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_clients_is_bounded() {
        let limiter = limiter(1, 60);
        for client in 0..CLIENTS_MAX + 500 {
            limiter.count(IpAddr::V4(Ipv4Addr::from_bits(
                u32::try_from(client).unwrap(),
            )));
        }
        assert_eq!(limiter.windows.lock().len(), CLIENTS_MAX);
        let newest = IpAddr::V4(Ipv4Addr::from_bits(
            u32::try_from(CLIENTS_MAX + 499).unwrap(),
        ));
        assert!(
            limiter.count(newest).exceeded,
            "the newest client is remembered"
        );
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        for (peer, forwarded, client) in [
            ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9, 10.0.0.7", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9, rubbish", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
            ("::1", "[2001:db8::1]:80", "2001:db8::1"),
            ("::1", "[2001:db8::1]", "2001:db8::1"),
            ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ] {
            let headers = HeaderMap::from_iter([(
                "x-forwarded-for".parse().unwrap(),
                HeaderValue::from_static(forwarded),
            )]);
            assert_eq!(
                client_of(address(peer), &headers, &trusted),
                address(client),
                "{peer} {forwarded}"
            );
        }
    }

    #[test]
    fn several_forwarded_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        let trusted = ["10.0.0.1".parse().unwrap()];
        assert_eq!(
            client_of(address("10.0.0.1"), &headers, &trusted),
            address("203.0.113.9")
        );
    }

    #[test]
    fn a_v6_household_is_one_client() {
        assert_eq!(
            bucket_of(address("2001:db8::1")),
            bucket_of(address("2001:db8::ffff:1"))
        );
        assert_ne!(
            bucket_of(address("2001:db8::1")),
            bucket_of(address("2001:db8:0:1::1"))
        );
        assert_eq!(bucket_of(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }
}
