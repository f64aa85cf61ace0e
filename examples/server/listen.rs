//! Where the server listens. `localhost` is two addresses, and which of them a client tries first is its own
//! choice: a server that listens on one only may not be found.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use tokio::net::TcpListener;

/// Free ports that are tried until one is free on both addresses of `localhost`.
const FREE_PORTS_MAX: usize = 16;

/// Listens on `address`; for 127.0.0.1 also on the same port of ::1, where there is IPv6.
///
/// # Errors
/// A sentence with the address that can't be had.
pub(crate) async fn listen(address: SocketAddr) -> Result<Vec<TcpListener>, String> {
    let tries = if address.port() == 0 {
        FREE_PORTS_MAX
    } else {
        1
    };
    let mut result = listen_once(address).await;
    for _ in 1..tries {
        if result.is_ok() {
            break;
        }
        result = listen_once(address).await;
    }
    result.map_err(|(address, error)| {
        format!("can't listen on {address}: {error}; AUTOMATION_HOST and AUTOMATION_PORT set another address")
    })
}

async fn listen_once(address: SocketAddr) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let first = bind(address).await?;
    if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Ok(vec![first]);
    }
    let port = first.local_addr().map_err(|error| (address, error))?.port();
    match bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(second) => Ok(vec![first, second]),
        Err((_, error)) if has_no_ipv6(&error) => Ok(vec![first]),
        Err(error) => Err(error),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, (SocketAddr, io::Error)> {
    TcpListener::bind(address)
        .await
        .map_err(|error| (address, error))
}

/// Returns whether this machine has no ::1 at all: without the protocol, or with it switched off.
fn has_no_ipv6(error: &io::Error) -> bool {
    let absent = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|code| absent.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::has_no_ipv6;

    #[test]
    fn only_a_machine_without_ipv6_is_excused() {
        for (code, excused) in [
            (Errno::AFNOSUPPORT, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::ADDRINUSE, false),
            (Errno::ACCESS, false),
        ] {
            assert_eq!(has_no_ipv6(&io::Error::from(code)), excused, "{code}");
        }
    }
}
