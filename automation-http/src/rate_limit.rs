//! How often a client may ask for a run: a fixed window that begins with its first request, as the existing
//! clients know it, told in the standard `RateLimit` headers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::client::client;
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
    let client = client(
        request.extensions(),
        request.headers(),
        &limiter.trusted_proxies,
    );
    let standing = limiter.count(client);
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::{CLIENTS_MAX, RateLimiter};
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
}
