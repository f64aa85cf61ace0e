//! What the router has to be told. Every value is checked when it is made; nothing is read from outside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use automation_core::{Clock, SystemClock};
use ipnet::IpNet;
use thiserror::Error as ThisError;

use crate::origin::Origin;
use crate::streams::StreamLimits;

/// Why a value can't be used. The messages say what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not an origin.
    #[error(
        "{value:?} is not an origin: http:// or https://, a host and perhaps a port are, without a path, \
         for instance http://localhost:3000"
    )]
    Origin {
        /// What was given.
        value: String,
    },
    /// Not a host.
    #[error("{value:?} is not a host: a name or an address without a scheme, a port or a path is")]
    Host {
        /// What was given.
        value: String,
    },
    /// Not a network.
    #[error("{value:?} is not a network: an address or a range such as 10.0.0.0/8 is")]
    Network {
        /// What was given.
        value: String,
    },
}

/// What the router has to be told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpConfig {
    pub(crate) frontend: Origin,
    pub(crate) allowed_hosts: Vec<Host>,
    pub(crate) bound: Option<IpAddr>,
    pub(crate) rate_limit: Option<RateLimit>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) streams: StreamLimits,
    pub(crate) environment: String,
    pub(crate) expose_errors: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl HttpConfig {
    /// Creates a configuration for pages of one origin: loopback hosts only, 50 runs in 15 minutes a client,
    /// causes of errors hidden.
    #[must_use]
    pub fn new(frontend: Origin) -> Self {
        Self {
            frontend,
            allowed_hosts: Vec::new(),
            bound: None,
            rate_limit: Some(RateLimit::default()),
            trusted_proxies: Vec::new(),
            streams: StreamLimits::default(),
            environment: "production".to_owned(),
            expose_errors: false,
            clock: Arc::new(SystemClock),
        }
    }

    /// Adds hosts under which the server may be addressed, beside loopback and the bound address.
    #[must_use]
    pub fn with_allowed_hosts(mut self, hosts: impl IntoIterator<Item = Host>) -> Self {
        self.allowed_hosts.extend(hosts);
        self
    }

    /// Says on which address the server listens, under which it may then be addressed. An unspecified address
    /// (`0.0.0.0`, `::`) adds nothing.
    #[must_use]
    pub fn with_bound(mut self, address: IpAddr) -> Self {
        self.bound = (!address.is_unspecified()).then_some(address);
        self
    }

    /// Sets how many runs a client may ask for; `None` is no limit.
    #[must_use]
    pub const fn with_rate_limit(mut self, limit: Option<RateLimit>) -> Self {
        self.rate_limit = limit;
        self
    }

    /// Adds proxies whose `X-Forwarded-For` is believed.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: impl IntoIterator<Item = Network>) -> Self {
        self.trusted_proxies.extend(proxies);
        self
    }

    /// Sets how many streams of events may be open.
    #[must_use]
    pub const fn with_streams(mut self, limits: StreamLimits) -> Self {
        self.streams = limits;
        self
    }

    /// Sets the environment's name that `/health` shows.
    #[must_use]
    pub fn with_environment(mut self, name: impl Into<String>) -> Self {
        self.environment = name.into();
        self
    }

    /// Shows the causes of our own errors to clients. For development only: they may name paths and hosts.
    #[must_use]
    pub const fn with_exposed_errors(mut self, expose: bool) -> Self {
        self.expose_errors = expose;
        self
    }

    /// Sets the clock of `/health`.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

/// How many runs a client may ask for in a window that begins with its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub(crate) requests: NonZeroU32,
    pub(crate) window: Duration,
}

impl RateLimit {
    /// Creates a limit. The window is held to at least one second, since clients are told whole seconds.
    #[must_use]
    pub fn new(requests: NonZeroU32, window: Duration) -> Self {
        Self {
            requests,
            window: window.max(Duration::from_secs(1)),
        }
    }
}

impl Default for RateLimit {
    /// 50 requests in 15 minutes.
    fn default() -> Self {
        Self::new(
            NonZeroU32::new(50).expect("50 is not 0"),
            Duration::from_secs(15 * 60),
        )
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests in {} seconds",
            self.requests,
            self.window.as_secs()
        )
    }
}

/// A host under which the server may be addressed, with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Returns whether a host of a request, as `http::uri::Authority` gives it, is this one.
    pub(crate) fn is(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }
}

impl FromStr for Host {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self(format!("[{address}]")));
        }
        let refused = || ConfigError::Host {
            value: text.to_owned(),
        };
        is_host(text)
            .then(|| Self(text.to_ascii_lowercase()))
            .ok_or_else(refused)
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Returns whether an address is in the range; an IPv4 address may come in its IPv6 form.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let single = text.parse::<IpAddr>().map(IpNet::from);
        single
            .or_else(|_| text.parse::<IpNet>())
            .map(Self)
            .map_err(|_| ConfigError::Network {
                value: text.to_owned(),
            })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns whether `text` is a name or an address, with an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    address_of(text).is_some() || (!text.is_empty() && text.bytes().all(in_name))
}

/// Returns whether `host`, as `http::uri::Authority` gives it, names this machine itself.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || address_of(host).is_some_and(|address| address.is_loopback())
}

/// Returns the address that `host` writes out, if it is one.
pub(crate) fn address_of(host: &str) -> Option<IpAddr> {
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Network, is_loopback_host};

    #[test]
    fn hosts_have_no_port_and_no_wildcard() {
        for (text, host) in [
            ("Desk.Example", "desk.example"),
            ("10.0.0.5", "10.0.0.5"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert!(text.parse::<Host>().unwrap().is(host), "{text}");
        }
        for text in [
            "",
            "a:80",
            "http://a",
            "a/b",
            "*",
            "*.example",
            "u@a",
            "a b",
            "a,b",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn networks_hold_v4_in_v6_form() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        assert!(network.contains("10.1.2.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("11.0.0.1".parse().unwrap()));
        assert!(
            "10.0.0.1"
                .parse::<Network>()
                .unwrap()
                .contains("10.0.0.1".parse().unwrap())
        );
        assert!("10.0.0.0/33".parse::<Network>().is_err());
        assert!("proxy".parse::<Network>().is_err());
    }

    #[test]
    fn loopback_is_what_it_says() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "localhost.",
            "localhost.evil.example",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "[::]",
            "::1",
            "128.0.0.1",
            "",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
