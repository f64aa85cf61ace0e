//! Who may talk to the server at all: requests for a host that is ours, from pages that are the frontend's.
//! A web page of somebody else must not be able to drive a server on its visitor's machine.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::{HttpConfig, address_of, is_loopback_host};
use crate::error::{ApiError, ApiResult};
use crate::serve::LocalAddress;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Another port of the same host is the same site, and still not the frontend.
const FOREIGN_SITES: [&[u8]; 2] = [b"cross-site", b"same-site"];

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

/// Against other pages: browsers send `Origin` with every request that could change something, and say with the
/// others, for instance of an image, that another site asks.
fn check_origin(config: &HttpConfig, headers: &HeaderMap) -> ApiResult<()> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if let Some(origin) = origins.find(|origin| !config.frontend.is(origin)) {
        let detail = format!("origin {origin:?} is not the frontend's");
        return Err(ApiError::forbidden(detail));
    }
    let sites = headers.get_all(SEC_FETCH_SITE).iter();
    let foreign = sites
        .into_iter()
        .any(|site| FOREIGN_SITES.contains(&site.as_bytes()));
    if foreign && !headers.contains_key(header::ORIGIN) {
        return Err(ApiError::forbidden("the request is another site's"));
    }
    Ok(())
}
