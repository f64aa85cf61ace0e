//! Request bodies: their content type, their size, the time they may take, and the strict JSON profile.
//! What the fields mean is `request`'s business.

use std::time::Duration;

use automation_core::Problem;
use automation_core::json::{self, JsonErrorKind};
use automation_core::limits::JSON_BYTES_MAX;
use axum::body::{HttpBody, to_bytes};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// Bytes of a body that are read at most: past this one nobody needs to know how long it is.
const BODY_BYTES_MAX: usize = 2 * JSON_BYTES_MAX;

/// A body that takes longer holds its connection for nothing.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// The JSON object of a request's body.
#[derive(Debug)]
pub(crate) struct Document(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        read(request).await
    }
}

impl<S: Send + Sync> OptionalFromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Option<Self>> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        read(request).await.map(Some)
    }
}

async fn read(request: Request) -> ApiResult<Document> {
    check_content_type(request.headers())?;
    let too_large = || ApiError::body_too_large(BODY_BYTES_MAX);
    let body = request.into_body();
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let bytes = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| ApiError::body_too_slow(BODY_TIME_MAX))?
        .map_err(|error| {
            if is_length_limit(&error) {
                too_large()
            } else {
                malformed("the body ended early")
            }
        })?;
    json::read_object(&bytes)
        .map(Document)
        .map_err(|error| match error.kind {
            JsonErrorKind::TooLong => ApiError::body_too_large(JSON_BYTES_MAX),
            _ => malformed(error.to_string()),
        })
}

fn malformed(detail: impl Into<String>) -> ApiError {
    ApiError::invalid_request(vec![Problem::new("", detail)])
}

fn is_length_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// A page can send forms and plain text to foreign servers without asking first, but not this type.
fn check_content_type(headers: &HeaderMap) -> ApiResult<()> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    let name = given
        .and_then(|given| given.split(';').next())
        .unwrap_or_default();
    if name.trim().eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::unsupported_media_type(given))
    }
}
