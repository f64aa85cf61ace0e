//! `GET /health`: whether runs can be accepted and executed now. 503 when not, for monitors that read no body.
//! `/health/ready` says why not; `/health/live` only that the process answers, for who would restart it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::dto::{HealthDto, LiveDto, ReadyDto, timestamp};

/// The name under which clients know the service.
const SERVICE: &str = "automation-executor";

/// Asks nobody: a restart mends neither a storage that is away nor a script that holds the interpreter.
pub(super) async fn live() -> Json<LiveDto> {
    Json(LiveDto { status: "live" })
}

pub(super) async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<ReadyDto>) {
    let health = shared.automation.health().await;
    let causes = health.obstacles();
    if let Some(cause) = &health.storage_error {
        tracing::warn!(cause, "the storage does not work");
    }
    let (status, word) = match causes.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = ReadyDto {
        status: word,
        causes,
    };
    (status, Json(body))
}

pub(super) async fn health(State(shared): State<Shared>) -> Response {
    let Shared {
        automation, config, ..
    } = shared;
    let health = automation.health().await;
    if let Some(cause) = &health.storage_error {
        tracing::warn!(cause, "the storage does not work");
    }
    let (status, word) = if health.is_ready() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let body = HealthDto {
        status: word,
        timestamp: timestamp(config.clock.now()),
        version: env!("CARGO_PKG_VERSION"),
        service: SERVICE,
        environment: config.environment.clone(),
        python_available: health.executor.available,
        python_version: health.executor.version,
        storage_available: health.storage.is_some() && health.storage_error.is_none(),
        accepting: health.accepting,
        quarantined: health.quarantined.len(),
        running: health.running,
        queued: health.queued,
        spooled: health.spooled,
    };
    (status, Json(body)).into_response()
}
