//! What goes wrong, as clients are told: `{"error": TEXT, "code": SLUG}`. The one table from the
//! errors of other layers to statuses.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::reply;
use crate::admission::{NotNow, RetryAfter};
use crate::auth::Refusal;
use crate::broker;
use crate::protocol::{ChannelError, EventError};

/// An answer that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// For people.
    pub error: Cow<'static, str>,
    /// For programs: a word of a small set.
    pub code: &'static str,
    /// What the status obliges to say beside it.
    pub beside: Beside,
    /// What the operator should read, if it is the server's fault.
    pub fault: Option<Arc<str>>,
}

/// What some statuses oblige to say in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// 401: a way in (RFC 9110 section 11.6.1).
    Bearer,
    /// 405: what the path has instead.
    Allow(String),
    /// 408, 413: the rest of the body may still come, so the connection is of no more use.
    Close,
    /// 426: to what, as an option of the connection (RFC 9110 sections 15.5.22 and 7.8).
    Upgrade,
    /// 429, 503
    RetryAfter(RetryAfter),
}

impl Beside {
    fn insert_into(self, headers: &mut HeaderMap) {
        let mut insert = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        match self {
            Self::Nothing => {}
            Self::Bearer => insert(WWW_AUTHENTICATE, "Bearer"),
            Self::Allow(methods) => insert(ALLOW, &methods),
            Self::Close => insert(CONNECTION, "close"),
            Self::Upgrade => {
                insert(UPGRADE, "websocket");
                insert(CONNECTION, "upgrade");
            }
            Self::RetryAfter(seconds) => insert(RETRY_AFTER, &seconds.to_string()),
        }
    }
}

impl ApiError {
    /// An error without more to say.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        error: impl Into<Cow<'static, str>>,
    ) -> Self {
        let beside = if status == StatusCode::UNAUTHORIZED {
            Beside::Bearer
        } else {
            Beside::Nothing
        };
        Self {
            status,
            error: error.into(),
            code,
            beside,
            fault: None,
        }
    }

    /// 400
    pub fn bad_request(code: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, error)
    }

    /// 401
    pub fn unauthorized(code: &'static str, error: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, error)
    }

    /// 404 with a text.
    pub fn not_found(code: &'static str, error: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, error)
    }

    /// 404: no such path.
    pub fn no_route() -> Self {
        Self::not_found("not_found", "Not found")
    }

    /// 405
    pub fn method(allow: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method not allowed",
        )
        .with(Beside::Allow(allow.to_owned()))
    }

    /// 408
    pub fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "The body did not arrive in time",
        )
        .with(Beside::Close)
    }

    /// 413, for a body
    pub fn body_too_large(max_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("The body is larger than {max_bytes} bytes"),
        )
        .with(Beside::Close)
    }

    /// 413, for an event or what becomes one.
    pub fn event_too_large(max_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "event_too_large",
            format!("The event is larger than {max_bytes} bytes"),
        )
    }

    /// 415
    pub fn media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type must be application/json",
        )
    }

    /// 426: this path is for WebSockets.
    pub fn upgrade_required() -> Self {
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "Connect with a WebSocket client",
        )
        .with(Beside::Upgrade)
    }

    /// 426: an upgrade that names no version of WebSockets, or another than ours.
    pub fn invalid_upgrade_version(error: String) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "invalid_upgrade", error).with(Beside::Upgrade)
    }

    /// 429
    pub fn rate_limited(retry_after: RetryAfter) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "Too many requests",
        )
        .with(Beside::RetryAfter(retry_after))
    }

    /// 429, for another reason than the number of requests.
    pub fn too_many(code: &'static str, error: &'static str, retry_after: RetryAfter) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, error).with(Beside::RetryAfter(retry_after))
    }

    /// 500: a fault that the client is told nothing about.
    pub fn internal(fault: &str) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal server error",
        );
        error.fault = Some(fault.into());
        error
    }

    fn unavailable(code: &'static str, error: &'static str, retry_after: RetryAfter) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error)
            .with(Beside::RetryAfter(retry_after))
    }

    fn with(mut self, beside: Beside) -> Self {
        self.beside = beside;
        self
    }

    /// The response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = json!({"error": self.error, "code": self.code});
        let mut response = reply::json(self.status, &body);
        self.beside.insert_into(response.headers_mut());
        response
    }
}

impl From<broker::Error> for ApiError {
    fn from(error: broker::Error) -> Self {
        let fault = error.to_string();
        let mut told = match error {
            broker::Error::Unavailable => {
                Self::unavailable("unavailable", "Service unavailable", RetryAfter(1))
            }
            broker::Error::Overloaded => {
                Self::unavailable("overloaded", "Service overloaded", RetryAfter(1))
            }
            broker::Error::Closed => Self::unavailable(
                "shutting_down",
                "The server is shutting down",
                RetryAfter(5),
            ),
            broker::Error::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "store_full",
                "The store is full",
            ),
            broker::Error::Storage(_) => Self::internal(""),
        };
        told.fault = Some(fault.into());
        told
    }
}

impl From<NotNow> for ApiError {
    fn from(not_now: NotNow) -> Self {
        match not_now {
            NotNow::TooMany(retry_after) => Self::rate_limited(retry_after),
            NotNow::Unknown(error) => error.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::unauthorized("no_token", "No token provided"),
            Refusal::Expired => Self::unauthorized("token_expired", "Token expired"),
            Refusal::Revoked => Self::unauthorized("token_revoked", "Token revoked"),
            Refusal::Invalid(_) => Self::unauthorized("invalid_token", "Invalid token"),
        }
    }
}

impl From<ChannelError> for ApiError {
    fn from(error: ChannelError) -> Self {
        Self::bad_request("invalid_channel", error.to_string())
    }
}

impl ApiError {
    /// Of an event that was to be published.
    pub fn event(error: EventError, max_bytes: usize) -> Self {
        match error {
            EventError::TooLarge => Self::event_too_large(max_bytes),
            EventError::NotAnObject
            | EventError::NoType
            | EventError::HasMeta
            | EventError::TooDeep => Self::bad_request("invalid_event", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_and_broker_table() {
        let row = |error: broker::Error| {
            let told = ApiError::from(error);
            let retry = matches!(told.beside, Beside::RetryAfter(_));
            (told.status.as_u16(), told.code, retry)
        };
        assert_eq!(row(broker::Error::Unavailable), (503, "unavailable", true));
        assert_eq!(row(broker::Error::Overloaded), (503, "overloaded", true));
        assert_eq!(row(broker::Error::Closed), (503, "shutting_down", true));
        assert_eq!(row(broker::Error::Full), (507, "store_full", false));
        assert_eq!(
            row(broker::Error::storage("disk")),
            (500, "internal", false)
        );
    }

    #[test]
    fn a_fault_is_for_the_operator_only() {
        let told = ApiError::from(broker::Error::storage("secret path"));
        assert!(told.fault.as_deref().unwrap().contains("secret path"));
        assert!(!told.error.contains("secret path"));
    }

    #[test]
    fn refusals_have_the_words_of_their_type() {
        for refusal in [
            Refusal::Missing,
            Refusal::Expired,
            Refusal::Revoked,
            Refusal::Invalid("signature"),
        ] {
            let told = ApiError::from(refusal);
            assert_eq!(told.error, refusal.to_string());
            let response = told.into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        }
    }

    #[test]
    fn an_upgrade_is_asked_for_by_the_book() {
        for error in [
            ApiError::upgrade_required(),
            ApiError::invalid_upgrade_version("No version".into()),
        ] {
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
            assert_eq!(response.headers()[UPGRADE], "websocket");
            assert_eq!(response.headers()[CONNECTION], "upgrade");
        }
    }
}
