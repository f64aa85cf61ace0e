//! The HTTP door: an axum router over one [`Automation`] handle, and the loop that serves it.
//!
//! It translates and guards, and decides nothing: what a request does is the handle's business, what it looks
//! like on the wire is this crate's. It reads no environment; everything comes in through [`HttpConfig`].
#![forbid(unsafe_code)]

mod answer;
mod config;
mod connections;
mod document;
mod dto;
mod error;
mod guard;
mod origin;
mod rate_limit;
mod request;
mod routes;
mod serve;

pub use config::{ConfigError, Host, HttpConfig, Network, RateLimit};
pub use origin::Origin;
pub use serve::{ConnectionLimits, serve};

use automation_core::Automation;
use axum::Router;

/// The routes of the interface, as methods and paths; `{name}` stands for one segment.
pub const ROUTES: [(&str, &str); 11] = [
    ("POST", "/api/automation/execute"),
    ("POST", "/api/automation/manual"),
    ("POST", "/api/automation/test"),
    ("GET", "/api/automation/logs/{ticket_id}"),
    ("GET", "/api/automation/stats"),
    ("GET", "/api/automation/scripts"),
    ("POST", "/api/automation/scripts/{name}/release"),
    ("POST", "/api/automation/executions/{id}/retry"),
    ("POST", "/api/automation/scripts/validate"),
    ("GET", "/api/automation/python/check"),
    ("GET", "/health"),
];

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
