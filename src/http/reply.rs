//! Responses: JSON, and files for the browser.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::web::{self, Asset};

/// What every handler gives in the end.
pub type Reply = Response<Full<Bytes>>;

/// A JSON answer, which nobody may keep.
pub fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(body).expect("strings, numbers and kept JSON are JSON");
    with(
        status,
        body.into(),
        &[
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
    )
}

/// 200 with JSON.
pub fn ok(body: &impl Serialize) -> Reply {
    json(StatusCode::OK, body)
}

/// JSON that is written already.
pub fn document(json: &'static str) -> Reply {
    with(
        StatusCode::OK,
        Bytes::from_static(json.as_bytes()),
        &[
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "no-cache"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
    )
}

/// Text that nobody may keep.
pub fn text(content_type: &str, body: Bytes) -> Reply {
    with(
        StatusCode::OK,
        body,
        &[
            (CONTENT_TYPE, content_type),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
    )
}

/// A file for the browser. The page may be opened with a token in its address: no other site is to
/// learn it from `Referer`.
pub fn asset(asset: &'static Asset) -> Reply {
    with(
        StatusCode::OK,
        Bytes::from_static(asset.body),
        &[
            (CONTENT_TYPE, asset.content_type),
            (CACHE_CONTROL, "no-cache"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
            (REFERRER_POLICY, "no-referrer"),
        ],
    )
}

/// 204 for `OPTIONS`.
pub fn options(allow: &str) -> Reply {
    with(StatusCode::NO_CONTENT, Bytes::new(), &[(ALLOW, allow)])
}

/// 302, which nobody may keep, because it depends on the configuration.
pub fn redirect(to: &'static str) -> Reply {
    with(
        StatusCode::FOUND,
        Bytes::new(),
        &[(LOCATION, to), (CACHE_CONTROL, "no-store")],
    )
}

fn with(status: StatusCode, body: Bytes, headers: &[(HeaderName, &str)]) -> Reply {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
