//! The routes, and the layers around them in their order.

mod execute;
mod health;
mod logs;
mod manual;
mod python_check;
mod release;
mod retry;
mod scripts;
mod stats;
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
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;

use crate::config::HttpConfig;
use crate::error::ApiError;
use crate::rate_limit::{self, RateLimiter};
use crate::{answer, guard};

/// What handlers share.
#[derive(Debug, Clone)]
struct Shared {
    automation: Automation,
    config: Arc<HttpConfig>,
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
        config: Arc::clone(&config),
    };
    let limited = |routes: MethodRouter<Shared>| limited(routes, limiter.as_ref());
    [
        ("/api/automation/execute", limited(post(execute::execute))),
        ("/api/automation/manual", limited(post(manual::manual))),
        ("/api/automation/test", limited(post(test::test))),
        ("/api/automation/logs/{ticket_id}", get(logs::logs)),
        ("/api/automation/stats", get(stats::stats)),
        ("/api/automation/scripts", get(scripts::scripts)),
        (
            "/api/automation/scripts/{name}/release",
            limited(post(release::release)),
        ),
        (
            "/api/automation/executions/{id}/retry",
            limited(post(retry::retry)),
        ),
        (
            "/api/automation/scripts/validate",
            limited(post(validate::validate)),
        ),
        (
            "/api/automation/python/check",
            get(python_check::python_check),
        ),
        ("/api/health", get(health::health)),
        ("/health", get(health::health)),
    ]
    .into_iter()
    .fold(Router::new(), with_route)
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
    (path, routes): (&str, MethodRouter<Shared>),
) -> Router<Shared> {
    router
        .route(&format!("{path}/"), routes.clone())
        .route(path, routes)
}

fn limited(
    routes: MethodRouter<Shared>,
    limiter: Option<&Arc<RateLimiter>>,
) -> MethodRouter<Shared> {
    match limiter {
        Some(limiter) => {
            routes.route_layer(from_fn_with_state(Arc::clone(limiter), rate_limit::limit))
        }
        None => routes,
    }
}

fn cors(config: &HttpConfig) -> CorsLayer {
    let exposed = rate_limit::EXPOSED
        .into_iter()
        .chain([answer::REQUEST_ID, header::RETRY_AFTER]);
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

/// Returns the sentence about a run's end, for instance `Automation completed successfully`.
fn message_of(what: &str, completed: &str, execution: &Execution) -> String {
    match execution.status {
        Status::Starting if execution.is_waiting() => {
            let reason = execution.reason;
            format!(
                "{what} waits: {}",
                reason.map_or("scheduled", Reason::as_str)
            )
        }
        Status::Completed => format!("{what} {completed}"),
        Status::Cancelled => format!("{what} cancelled"),
        Status::Failed | Status::Starting | Status::Running => {
            let reason = execution.reason.map_or("unknown", Reason::as_str);
            format!(
                "{what} failed: {}",
                execution.error.as_deref().unwrap_or(reason)
            )
        }
    }
}
