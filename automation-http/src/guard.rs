//! Who may talk to the server at all: requests for a host that is ours, from pages that are the frontend's.
//! A web page of somebody else must not be able to drive a server on its visitor's machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::{HttpConfig, address_of, is_loopback_host};
use crate::error::{ApiError, ApiResult};
use crate::serve::LocalAddress;

/// Refuses requests for a foreign host or from a foreign page.
pub(crate) async fn guard(
    State(config): State<Arc<HttpConfig>>,
    request: Request,
    next: Next,
) -> Response {
    match check_host(&config, &request).and_then(|()| check_origin(&config, request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Against DNS rebinding: a page can point its own name at our address, but can't change the `Host` it sends.
fn check_host(config: &HttpConfig, request: &Request) -> ApiResult<()> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(ApiError::invalid_request(vec![problem(
            "exactly one Host header is expected",
        )]));
    };
    let authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    let Some(authority) = authority else {
        return Err(ApiError::invalid_request(vec![problem(
            "the Host header is not a host",
        )]));
    };
    let local = request.extensions().get::<LocalAddress>();
    // A request line with a whole URI names a host too, and proxies go by that one.
    for authority in [Some(&authority), request.uri().authority()]
        .into_iter()
        .flatten()
    {
        if !is_ours(config, authority, local) {
            let detail = format!("host {:?} is not served here", authority.as_str());
            return Err(ApiError::forbidden(detail));
        }
    }
    Ok(())
}

fn problem(detail: &str) -> automation_core::Problem {
    automation_core::Problem::new("", detail)
}

/// An address that the client has reached is ours, and can't be the name of somebody else's page.
fn is_ours(config: &HttpConfig, authority: &Authority, local: Option<&LocalAddress>) -> bool {
    let host = authority.host();
    let address = address_of(host).map(|address| address.to_canonical());
    let reached = local.map(|LocalAddress(local)| local.to_canonical());
    !authority.as_str().contains('@')
        && (is_loopback_host(host)
            || (address.is_some() && [config.bound, reached].contains(&address))
            || config.allowed_hosts.iter().any(|allowed| allowed.is(host)))
}

/// Against other pages: browsers send `Origin` with every request that could change something.
fn check_origin(config: &HttpConfig, headers: &HeaderMap) -> ApiResult<()> {
    let foreign = headers
        .get_all(header::ORIGIN)
        .iter()
        .find(|origin| !config.frontend.is(origin));
    foreign.map_or(Ok(()), |origin| {
        Err(ApiError::forbidden(format!(
            "origin {origin:?} is not the frontend's"
        )))
    })
}
