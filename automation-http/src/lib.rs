//! The HTTP door: an axum router over one [`Automation`] handle, and the loop that serves it.
//!
//! It translates and guards, and decides nothing: what a request does is the handle's business, what it looks
//! like on the wire is this crate's. It reads no environment; everything comes in through [`HttpConfig`].
#![forbid(unsafe_code)]

mod answer;
mod client;
mod config;
mod connections;
mod document;
mod dto;
mod error;
mod exposition;
mod guard;
mod origin;
mod rate_limit;
mod request;
mod routes;
mod serve;
mod stall;
mod streams;

pub use config::{ConfigError, Host, HttpConfig, Network, RateLimit};
pub use origin::Origin;
pub use serve::{ConnectionLimits, serve};
pub use streams::StreamLimits;

use automation_core::Automation;
use axum::Router;
use axum::http::Method;

/// Returns every route, as a method and a path; `{name}` stands for one segment.
#[must_use]
pub fn routes() -> Vec<(Method, &'static str)> {
    let routes = routes::table().into_iter();
    routes.map(|route| (route.method, route.path)).collect()
}

/// Returns the router that answers for `automation`.
///
/// The address of a client is taken from the request's
/// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo), which [`serve`] adds. Without it all clients share
/// one rate limit.
///
/// ```
/// use automation_http::{HttpConfig, Origin, router};
/// # fn example(automation: automation_core::Automation) -> Result<(), automation_http::ConfigError> {
/// let config = HttpConfig::new("http://localhost:3000".parse::<Origin>()?);
/// let app = router(automation, config);
/// # drop(app);
/// # Ok(())
/// # }
/// ```
pub fn router(automation: Automation, config: HttpConfig) -> Router {
    routes::router(automation, config)
}
