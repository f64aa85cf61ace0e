//! The outermost layer: gives every request an id, writes the body of every error, adds the security headers,
//! and logs. It knows nothing of routes.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

use crate::config::HttpConfig;
use crate::error::{ApiError, shortened};

/// The header that carries a request's id, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id from outside is replaced: it is written to every log line of the request.
const REQUEST_ID_BYTES_MAX: usize = 64;

const PROBLEM_JSON: &str = "application/problem+json";
/// The existing clients were told the charset too.
const JSON: &str = "application/json; charset=utf-8";

/// What protects a browser that opens an answer as a page. `Strict-Transport-Security` is for whoever ends TLS.
const SECURITY_HEADERS: [(HeaderName, &str); 8] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("x-permitted-cross-domain-policies"),
        "none",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// Lets a request through and finishes its answer.
pub(crate) async fn finish(
    State(config): State<Arc<HttpConfig>>,
    request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let problem = accepts_problem_json(request.headers());
    let began = Instant::now();
    let mut response = next.run(request).await;
    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &error {
        let body = error.body(&id, config.expose_errors);
        write_body(
            &mut response,
            &body,
            if problem { PROBLEM_JSON } else { JSON },
        );
        if let Some(cause) = &error.cause {
            tracing::error!(
                request_id = id,
                code = error.code,
                cause,
                "could not do our part"
            );
        }
    }
    let refused = error.is_some_and(|error| error.is_refusal());
    log((&method, &path), response.status(), refused, began, &id);
    let headers = response.headers_mut();
    if headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json")
    {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let id = HeaderValue::from_str(&id).expect("a request id is made of visible ASCII characters");
    headers.insert(REQUEST_ID, id);
    response
}

/// Returns the id that came with the request, if it is harmless, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    given
        .filter(harmless)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Returns whether the client asks for RFC 9457's media type by name. Everybody else gets plain JSON, which is
/// what the existing clients look for.
fn accepts_problem_json(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let name = range.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(PROBLEM_JSON)
    })
}

fn write_body(response: &mut Response, body: &impl serde::Serialize, content_type: &'static str) {
    let bytes = serde_json::to_vec(body).expect("an error body has only texts and numbers");
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = Body::from(bytes);
}

fn log(
    (method, path): (&Method, &str),
    status: StatusCode,
    refused: bool,
    began: Instant,
    request_id: &str,
) {
    let (method, path) = (shortened(method.as_str()), shortened(path));
    let (status, ms) = (status.as_u16(), began.elapsed().as_secs_f64() * 1000.0);
    if refused {
        tracing::debug!(method, path, status, ms, request_id, "refused");
    } else {
        tracing::info!(method, path, status, ms, request_id, "answered");
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{REQUEST_ID, accepts_problem_json, request_id};

    #[test]
    fn only_harmless_request_ids_are_kept() {
        let id_for = |text: &'static str| {
            request_id(&HeaderMap::from_iter([(
                REQUEST_ID,
                HeaderValue::from_static(text),
            )]))
        };
        let longest: &'static str =
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
        for kept in ["a", "req-1.2_3", longest] {
            assert_eq!(id_for(kept), kept);
        }
        for replaced in [
            "",
            "a b",
            "a/b",
            "a\"b",
            "<x>",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_x",
        ] {
            assert_eq!(id_for(replaced).len(), 36, "{replaced:?}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn problem_json_is_for_who_asks_by_name() {
        for (accept, wanted) in [
            ("*/*", false),
            ("application/json", false),
            ("application/json, application/problem+json;q=0.9", true),
            ("Application/Problem+JSON", true),
        ] {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepts_problem_json(&headers), wanted, "{accept}");
        }
    }
}
