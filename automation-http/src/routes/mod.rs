//! The routes, and the layers around them in their order.

mod asked;
mod events;
mod execute;
mod executions;
mod health;
mod logs;
mod manual;
mod metrics;
mod output;
mod parameters;
mod python_check;
mod release;
mod retry;
mod scripts;
mod stats;
mod table;
mod test;
mod validate;

use std::any::Any;
use std::sync::Arc;

use automation_core::{Automation, Execution, Reason, Status};
use axum::Router;
use axum::extract::{FromRef, Request};
use axum::http::{Method, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

use crate::config::HttpConfig;
use crate::error::ApiError;
use crate::rate_limit::{self, RateLimiter};
use crate::streams::Streams;
use crate::{answer, guard};
use table::Route;
pub(crate) use table::table;

/// What handlers share.
#[derive(Debug, Clone)]
struct Shared {
    automation: Automation,
    config: Arc<HttpConfig>,
    streams: Arc<Streams>,
}

impl FromRef<Shared> for Automation {
    fn from_ref(shared: &Shared) -> Self {
        shared.automation.clone()
    }
}

/// Builds the router. From the outside in: the answer's finish (id, error body, headers, log), the guard, CORS,
/// the net for panics, and on the routes of `POST` the rate limit. So every answer, also a refusal or a
/// panic, is finished; a refused page learns nothing; and the frontend can read every error of its own.
pub(crate) fn router(automation: Automation, config: HttpConfig) -> Router {
    let limiter = RateLimiter::new(&config);
    let config = Arc::new(config);
    let shared = Shared {
        automation,
        streams: Streams::new(config.streams),
        config: Arc::clone(&config),
    };
    let add = |router, route| with_route(router, route, limiter.as_ref());
    table::table()
        .into_iter()
        .fold(Router::new(), add)
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
        .layer(CatchPanicLayer::custom(caught))
        .layer(cors(&config))
        .layer(from_fn_with_state(Arc::clone(&config), guard::guard))
        .layer(from_fn_with_state(config, answer::finish))
}

/// Adds a route; some clients end its path with a slash.
fn with_route(
    router: Router<Shared>,
    Route {
        path,
        handler,
        is_limited,
        ..
    }: Route,
    limiter: Option<&Arc<RateLimiter>>,
) -> Router<Shared> {
    let handler = match limiter.filter(|_| is_limited) {
        Some(limiter) => {
            handler.route_layer(from_fn_with_state(Arc::clone(limiter), rate_limit::limit))
        }
        None => handler,
    };
    router
        .route(&format!("{path}/"), handler.clone())
        .route(path, handler)
}

fn cors(config: &HttpConfig) -> CorsLayer {
    let exposed = rate_limit::EXPOSED
        .into_iter()
        .chain([answer::REQUEST_ID, header::RETRY_AFTER, header::LOCATION])
        .chain([output::TRUNCATED, header::CONTENT_DISPOSITION]);
    CorsLayer::new()
        .allow_origin(config.frontend.header_value())
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
        // The answer differs by origin: the guard refuses all but one.
        .vary([header::ORIGIN])
        .expose_headers(exposed.collect::<Vec<_>>())
}

async fn route_not_found(request: Request) -> ApiError {
    ApiError::route_not_found(request.uri().path())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method(), request.uri().path())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is the layer's"
)]
fn caught(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

/// Returns the sentence about a run, for instance `Automation completed successfully`.
fn message_of(what: &str, completed: &str, execution: &Execution) -> String {
    let reason = execution.reason.map(Reason::as_str);
    match execution.status {
        Status::Starting if execution.is_waiting() => {
            format!("{what} waits: {}", reason.unwrap_or("scheduled"))
        }
        Status::Starting | Status::Running => {
            format!("{what} accepted, it is {}", execution.status)
        }
        Status::Completed => format!("{what} {completed}"),
        Status::Cancelled => format!("{what} cancelled"),
        Status::Failed => {
            let cause = execution.error.as_deref().or(reason);
            format!("{what} failed: {}", cause.unwrap_or("unknown"))
        }
    }
}
