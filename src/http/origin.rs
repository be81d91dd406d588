//! Where pages come from that ask: who may open sockets, and what browsers are told so that pages of
//! other hosts may use the API (the Fetch standard, "CORS protocol").
//!
//! Cookies are never read nor set, so nothing here concerns credentials: a page shows a token itself.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method};

use crate::config::AllowedOrigins;

/// What pages may send. Not `X-API-Key`: a key in a page is everybody's.
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, \
                               Traceparent, Tracestate, X-User-Wallet";
/// What pages may read of an answer, beside what they always may.
const ANSWER_HEADERS: &str = "Retry-After, WWW-Authenticate";
/// For how long, in seconds, a browser need not ask again. Chromium takes no more than two hours.
const MAX_AGE: &str = "7200";

/// Whether a browser may come from where it says it does; who says nothing is no browser.
pub fn is_allowed(allowed: &AllowedOrigins, headers: &HeaderMap) -> bool {
    let AllowedOrigins::SameHostAnd(allowed) = allowed else {
        return true;
    };
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let origin = origin.to_ascii_lowercase();
    let same_host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .zip(origin.split_once("://"))
        .is_some_and(|(host, (_, named))| host.eq_ignore_ascii_case(named));
    same_host || allowed.contains(&origin)
}

/// Whether this is a browser's question, before it sends the request itself, whether it may.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// With whom an answer is shared.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    /// The value of `Access-Control-Allow-Origin`; `None`: with no page of another host.
    with: Option<HeaderValue>,
    /// Whether whoever keeps the answer must not give it to others.
    varies: bool,
}

impl Shared {
    /// With the page that asks, if its origin is allowed. Also an answer that says no: a page has to
    /// learn why.
    pub fn of(allowed: &AllowedOrigins, asked: &HeaderMap) -> Self {
        let is_any = *allowed == AllowedOrigins::Any;
        let with = asked
            .get(ORIGIN)
            .filter(|_| is_allowed(allowed, asked))
            .map(|origin| match is_any {
                true => HeaderValue::from_static("*"),
                false => origin.clone(),
            });
        Self {
            with,
            varies: !is_any,
        }
    }

    /// Says so.
    pub fn tell(self, answer: &mut HeaderMap) {
        if self.varies {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = self.with {
            // What is there already is for everybody.
            let told = answer.entry(ACCESS_CONTROL_ALLOW_ORIGIN);
            told.or_insert(origin);
            let exposed = HeaderValue::from_static(ANSWER_HEADERS);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// What a preflight is told beside that: the methods that the path has.
pub fn permit(methods: &str, answer: &mut HeaderMap) {
    if let Ok(methods) = HeaderValue::from_str(methods) {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        (
            VARY,
            "Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    ] {
        answer.append(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn listed() -> AllowedOrigins {
        AllowedOrigins::SameHostAnd(vec!["https://fonana.me".into()])
    }

    #[test]
    fn browsers_may_come_from_the_same_host_and_the_listed_ones() {
        let allowed = |origin: &str| {
            let headers = headers(&[("host", "Rt.Example:3002"), ("origin", origin)]);
            is_allowed(&listed(), &headers)
        };
        assert!(allowed("https://fonana.me"));
        assert!(allowed("HTTPS://Fonana.me"));
        assert!(allowed("http://rt.example:3002"));
        for origin in [
            "https://fonana.me.evil.example",
            "http://fonana.me",
            "null",
            "rt.example",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
        assert!(is_allowed(&listed(), &HeaderMap::new()));
        let evil = headers(&[("origin", "https://evil.example")]);
        assert!(is_allowed(&AllowedOrigins::Any, &evil));
    }

    #[test]
    fn an_answer_is_shared_with_those_alone() {
        let shared = |allowed: &AllowedOrigins, origin: &str| {
            let mut answer = HeaderMap::new();
            Shared::of(allowed, &headers(&[("origin", origin)])).tell(&mut answer);
            let value = |name| {
                answer
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            (value(ACCESS_CONTROL_ALLOW_ORIGIN), value(VARY))
        };
        let vary = Some("Origin".to_owned());
        let good = "https://fonana.me";
        assert_eq!(shared(&listed(), good), (Some(good.into()), vary.clone()));
        assert_eq!(
            shared(&listed(), "https://evil.example"),
            (None, vary.clone())
        );
        assert_eq!(shared(&listed(), "null"), (None, vary));
        assert_eq!(
            shared(&AllowedOrigins::Any, "https://evil.example"),
            (Some("*".into()), None)
        );
    }
}
