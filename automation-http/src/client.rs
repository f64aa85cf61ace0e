//! Who a client is, for bounds that are each client's own. It knows nothing of the bounds.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};

use crate::config::Network;

/// Returns the client of a request, by the extensions and headers of the request. All requests whose connection is
/// not known are one client's.
pub(crate) fn client(extensions: &Extensions, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| peer.ip());
    let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    bucket_of(client_of(peer, headers, trusted))
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
    use std::net::IpAddr;

    use axum::http::{HeaderMap, HeaderValue};

    use super::{bucket_of, client_of};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
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
