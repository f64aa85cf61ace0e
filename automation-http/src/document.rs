//! Request bodies: their content type, their size, the time they may take, and the strict JSON profile.
//! What the fields mean is `request`'s business.

use std::time::Duration;

use automation_core::Problem;
use automation_core::json::{self, JsonErrorKind};
use automation_core::limits::JSON_BYTES_MAX;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// Bytes of a body that are read at most: past this one nobody needs to know how long it is.
const BODY_BYTES_MAX: usize = 2 * JSON_BYTES_MAX;

/// A body that takes longer holds its connection for nothing.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The JSON object of a request's body.
#[derive(Debug)]
pub(crate) struct Document(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        check_encoding(request.headers())?;
        parse(&bytes_of(request.into_body()).await?)
    }
}

impl<S: Send + Sync> OptionalFromRequest<S> for Document {
    type Rejection = ApiError;

    /// A body whose length is not told in advance may turn out to be none.
    async fn from_request(request: Request, _: &S) -> ApiResult<Option<Self>> {
        let (parts, body) = request.into_parts();
        let bytes = bytes_of(body).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        check_encoding(&parts.headers)?;
        parse(&bytes).map(Some)
    }
}

async fn bytes_of(body: Body) -> ApiResult<Bytes> {
    let too_large = || ApiError::body_too_large(BODY_BYTES_MAX);
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| ApiError::body_too_slow(BODY_TIME_MAX))?
        .map_err(|error| {
            if is_length_limit(&error) {
                too_large()
            } else {
                malformed("the body ended early")
            }
        })
}

/// Some clients on Windows begin their text with a byte order mark.
fn parse(bytes: &[u8]) -> ApiResult<Document> {
    json::read_object(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))
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

fn check_encoding(headers: &HeaderMap) -> ApiResult<()> {
    check_content_type(headers)?;
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut encodings = encodings.map(|value| value.to_str().unwrap_or_default().trim());
    match encodings.find(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        Some(encoding) => Err(ApiError::unsupported_media_type(format!(
            "content encoding is {encoding:?}, the body is expected as it is"
        ))),
        None => Ok(()),
    }
}

/// A page can send forms and plain text to foreign servers without asking first, but not this type.
fn check_content_type(headers: &HeaderMap) -> ApiResult<()> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Err(ApiError::unsupported_media_type(
            "content type is missing, application/json is expected",
        ));
    };
    let given = given.to_str().unwrap_or_default();
    let (name, parameters) = given.split_once(';').unwrap_or((given, ""));
    if !name.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type(format!(
            "content type is {given:?}, application/json is expected"
        )));
    }
    let mut parameters = parameters.split(';').filter_map(|one| one.split_once('='));
    let charset = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    match charset.map(|(_, charset)| charset.trim().trim_matches('"')) {
        Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => Err(
            ApiError::unsupported_media_type(format!("charset is {charset:?}, utf-8 is expected")),
        ),
        _ => Ok(()),
    }
}
