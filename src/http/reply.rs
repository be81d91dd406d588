//! Responses: JSON, and files for the browser.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::web::{self, Packed};

/// Not among the names that hyper knows.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// What every handler gives in the end.
pub type Reply = Response<Full<Bytes>>;

/// The policy of what is no page: opened as one all the same, it may do nothing and be in no frame.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
/// As Stripe has it: the Internet-Draft on `Idempotency-Key` names no header for this.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

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
            (CONTENT_SECURITY_POLICY, NO_PAGE),
        ],
    )
}

/// Says of an answer that it was given before, under the same idempotency key.
pub fn replayed(mut reply: Reply, is_replayed: bool) -> Reply {
    if is_replayed {
        let yes = HeaderValue::from_static("true");
        reply.headers_mut().insert(IDEMPOTENT_REPLAYED, yes);
    }
    reply
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
            (CONTENT_SECURITY_POLICY, NO_PAGE),
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

/// A file for the browser, or 304 if it has that already. It asks anew each time, so that page and
/// library are never older than the server. The page may be opened with a token in its address: no
/// other site is to learn it from `Referer`.
pub fn asset(packed: &'static Packed, asked: &HeaderMap) -> Reply {
    let Packed {
        asset,
        etag,
        gzipped,
    } = packed;
    let lists = |name: HeaderName, wanted: &str| {
        let lines = asked
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut items = lines.flat_map(|line| line.split(',')).map(str::trim);
        items.any(|item| item == wanted || item.trim_start_matches("W/") == wanted)
    };
    let is_gzipped = lists(ACCEPT_ENCODING, "gzip");
    let (status, body) = if lists(IF_NONE_MATCH, etag) {
        (StatusCode::NOT_MODIFIED, Bytes::new())
    } else if is_gzipped {
        (StatusCode::OK, Bytes::from_static(gzipped))
    } else {
        (StatusCode::OK, Bytes::from_static(asset.body))
    };
    let mut headers = vec![
        (CONTENT_TYPE, asset.content_type),
        (CACHE_CONTROL, "no-cache"),
        (ETAG, etag),
        (VARY, "accept-encoding"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
        (REFERRER_POLICY, "no-referrer"),
        // What the policy says already, for browsers that do not read it to the end.
        (X_FRAME_OPTIONS, "DENY"),
        (OPENER_POLICY, "same-origin"),
        (
            PERMISSIONS_POLICY,
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ];
    if is_gzipped && status == StatusCode::OK {
        headers.push((CONTENT_ENCODING, "gzip"));
    }
    if asset.is_library {
        headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
        headers.push((CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"));
    } else {
        headers.push((CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"));
    }
    with(status, body, &headers)
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
