//! Errors on the wire: one body for the existing clients and for RFC 9457. Internal causes stay in the log.

use std::error::Error as StdError;
use std::time::Duration;

use automation_core::{Error, ErrorKind, Problem};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Characters of a request's method or path that are repeated.
const SHORTENED_CHARS_MAX: usize = 256;

/// The result of a handler.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// An answer that is an error. It travels in the response's extensions; [`crate::answer`] writes the body,
/// since only the outermost layer knows the request's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    title: &'static str,
    // Boxed texts keep the error small enough to be returned by value.
    detail: Box<str>,
    problems: Vec<Problem>,
    retry_after: Option<Duration>,
    /// For the log, and for clients in development.
    pub(crate) cause: Option<Box<str>>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<Box<str>>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            problems: Vec::new(),
            retry_after: None,
            cause: None,
        }
    }

    pub(crate) fn invalid_request(problems: Vec<Problem>) -> Self {
        Error::InvalidRequest { problems }.into()
    }

    pub(crate) fn route_not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "route_not_found",
            "Route not found",
            format!("no route {}", shortened(path)),
        )
    }

    pub(crate) fn method_not_allowed(method: &Method, path: &str) -> Self {
        let (method, path) = (shortened(method.as_str()), shortened(path));
        let detail = format!("method {method} is not allowed for {path}");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method not allowed",
            detail,
        )
    }

    pub(crate) fn forbidden(detail: impl Into<Box<str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// Returns whether the guard let nobody in: whoever can cause such an error can cause any number of them.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    pub(crate) fn unsupported_media_type(detail: impl Into<Box<str>>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Unsupported media type",
            detail,
        )
    }

    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "Body too large",
            detail,
        )
    }

    pub(crate) fn body_too_slow(limit: Duration) -> Self {
        let detail = format!("the body did not arrive within {} seconds", limit.as_secs());
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            "Body too slow",
            detail,
        )
    }

    pub(crate) fn quota_exceeded(detail: String, retry_after: Duration) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "quota_exceeded",
            "Quota exceeded",
            detail,
        );
        Self {
            retry_after: Some(retry_after),
            ..error
        }
    }

    /// More is asked for at once than there is.
    pub(crate) fn overloaded(detail: String, retry_after: Duration) -> Self {
        let kind = ErrorKind::Overloaded;
        let (status, title) = status_and_title(kind);
        Self {
            retry_after: Some(retry_after),
            ..Self::new(status, kind.as_str(), title, detail)
        }
    }

    /// An error whose cause is ours and only ours to know.
    pub(crate) fn internal(cause: String) -> Self {
        let error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "the server failed",
        );
        Self {
            cause: Some(cause.into()),
            ..error
        }
    }

    /// Returns the body. `expose` shows the cause.
    pub(crate) fn body<'a>(&'a self, request_id: &'a str, expose: bool) -> ErrorBody<'a> {
        ErrorBody {
            success: false,
            error: &self.detail,
            message: &self.detail,
            code: self.code,
            kind: format!("urn:automation:error:{}", self.code),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: &self.problems,
            cause: self.cause.as_deref().filter(|_| expose),
        }
    }
}

/// The body of every error.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    success: bool,
    error: &'a str,
    message: &'a str,
    code: &'static str,
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    errors: &'a [Problem],
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(wait) = self.retry_after {
            let seconds = HeaderValue::from(whole_seconds_up(wait));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let (status, title) = status_and_title(kind);
        let ours =
            status.is_server_error() && matches!(kind, ErrorKind::Storage | ErrorKind::Executor);
        let retry_after = error.retry_after();
        let detail = match (ours, retry_after) {
            (true, Some(_)) => format!("the {kind} is unavailable, try again later"),
            (true, None) => format!("the {kind} failed"),
            (false, _) => error.to_string(),
        };
        Self {
            status: if retry_after.is_some() {
                StatusCode::SERVICE_UNAVAILABLE
            } else {
                status
            },
            code: kind.as_str(),
            title,
            detail: detail.into(),
            problems: problems_in_document(&error),
            retry_after,
            cause: ours.then(|| with_sources(&error).into()),
        }
    }
}

/// Returns what is wrong, with pointers into the request's document: a schema knows only the parameters.
fn problems_in_document(error: &Error) -> Vec<Problem> {
    let mut problems = error.problems();
    if matches!(error, Error::InvalidParameters { .. }) {
        for problem in &mut problems {
            problem.pointer.insert_str(0, "/parameters");
        }
    }
    problems
}

/// Returns a kind's status, for errors that do not pass by themselves, and its title.
const fn status_and_title(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, "Invalid request"),
        ErrorKind::InvalidParameters => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid parameters"),
        ErrorKind::AutomationNotPossible => {
            (StatusCode::UNPROCESSABLE_ENTITY, "Automation not possible")
        }
        ErrorKind::ScriptNotFound => (StatusCode::NOT_FOUND, "Script not found"),
        ErrorKind::NoScriptForCategory => (StatusCode::NOT_FOUND, "No script for this category"),
        ErrorKind::ExecutionNotFound => (StatusCode::NOT_FOUND, "Execution not found"),
        ErrorKind::TicketNotFound => (StatusCode::NOT_FOUND, "Ticket not found"),
        ErrorKind::InvalidScript => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid script"),
        ErrorKind::Conflict => (StatusCode::CONFLICT, "Conflict"),
        ErrorKind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Overloaded"),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "Not supported"),
        ErrorKind::Closed => (StatusCode::SERVICE_UNAVAILABLE, "Shut down"),
        ErrorKind::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "Storage error"),
        ErrorKind::Executor => (StatusCode::INTERNAL_SERVER_ERROR, "Executor error"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "Unmapped error"),
    }
}

/// Returns an error and its causes in one line.
fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Returns the beginning of a text of a client, for logs and answers.
pub(crate) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(SHORTENED_CHARS_MAX);
    end.map_or(text, |(end, _)| &text[..end])
}

/// Returns a time in whole seconds, rounded up, so that who waits that long has waited long enough.
pub(crate) const fn whole_seconds_up(time: Duration) -> u64 {
    time.as_secs() + (time.subsec_nanos() > 0) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use automation_core::executor::ExecutorError;
    use automation_core::storage::StorageError;
    use automation_core::{Error, ErrorKind};

    use super::{ApiError, status_and_title, whole_seconds_up};

    #[test]
    fn every_kind_has_its_intended_status() {
        let intended = [
            (ErrorKind::InvalidRequest, 400),
            (ErrorKind::InvalidParameters, 422),
            (ErrorKind::AutomationNotPossible, 422),
            (ErrorKind::ScriptNotFound, 404),
            (ErrorKind::NoScriptForCategory, 404),
            (ErrorKind::ExecutionNotFound, 404),
            (ErrorKind::TicketNotFound, 404),
            (ErrorKind::InvalidScript, 422),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Overloaded, 503),
            (ErrorKind::Unsupported, 501),
            (ErrorKind::Closed, 503),
            (ErrorKind::Storage, 500),
            (ErrorKind::Executor, 500),
        ];
        for kind in ErrorKind::ALL {
            let (_, status) = intended
                .iter()
                .find(|(named, _)| *named == kind)
                .expect("a kind is not in the table");
            let (mapped, title) = status_and_title(kind);
            assert_eq!(mapped.as_u16(), *status, "{kind}");
            assert_ne!(title, "Unmapped error", "{kind}");
        }
    }

    #[test]
    fn causes_of_ours_are_hidden_unless_exposed() {
        let error = Error::from(StorageError::Unusable {
            backend: "sqlite",
            detail: "/var/lib/x.db is locked".into(),
        });
        let api = ApiError::from(error);
        let hidden = serde_json::to_string(&api.body("r", false)).unwrap();
        assert!(!hidden.contains("x.db"), "{hidden}");
        let shown = serde_json::to_value(api.body("r", true)).unwrap();
        assert!(shown["cause"].as_str().unwrap().contains("x.db"), "{shown}");
    }

    #[test]
    fn what_passes_by_itself_is_503() {
        let error = Error::from(StorageError::Unavailable {
            backend: "sqlite",
            detail: "disk full".into(),
        });
        let api = ApiError::from(error);
        assert_eq!((api.status.as_u16(), api.code), (503, "storage"));
        let error = Error::from(ExecutorError::Unavailable {
            detail: "no thread".into(),
        });
        assert_eq!(ApiError::from(error).status.as_u16(), 503);
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(whole_seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds_up(Duration::from_secs(2)), 2);
    }
}
