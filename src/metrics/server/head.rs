//! The head of a request, as much of it as matters here. Pure.

use super::CONNECTIONS;

/// Bytes of a head that are read. RFC 9112 leaves the bound to us; a scraper sends a few hundred.
pub(super) const MOST_BYTES: usize = 8 * 1024;
/// Header fields of a head.
const MOST_FIELDS: usize = 64;
/// Bytes of a target that are passed on.
const MOST_TARGET_BYTES: usize = 1_024;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// `GET` or `HEAD`.
    pub method: &'static str,
    /// The path, without its query: visible ASCII only.
    pub path: String,
    /// The query, where one means something.
    pub query: String,
    /// What stands after `Bearer` in the field `Authorization`.
    pub token: Option<Vec<u8>>,
    /// Whether it was asked for under a name that others may give out: then a page of theirs may ask, in
    /// the browser of somebody who reaches this listener (DNS rebinding).
    pub is_by_name: bool,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    Method,
    Timeout,
    TargetTooLong,
    TooLarge,
    Busy,
    Unauthorized,
    TokenRequired,
    Plain,
}

impl Refusal {
    const fn row(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Malformed => ("400 Bad Request", "", "Malformed request", "bad_request"),
            Self::Method => (
                "405 Method Not Allowed",
                "Allow: GET, HEAD\r\n",
                "Method not allowed",
                "method_not_allowed",
            ),
            Self::Timeout => ("408 Request Timeout", "", "Request timeout", "timeout"),
            Self::TargetTooLong => ("414 URI Too Long", "", "URI too long", "uri_too_long"),
            Self::TooLarge => (
                "431 Request Header Fields Too Large",
                "",
                "Request header too large",
                "header_too_large",
            ),
            Self::Unauthorized => (
                "401 Unauthorized",
                "WWW-Authenticate: Bearer\r\n",
                "Authentication required",
                "unauthorized",
            ),
            Self::TokenRequired => (
                "403 Forbidden",
                "",
                "Others reach this address: set metrics.token to see who is connected",
                "token_required",
            ),
            Self::Plain => (
                "400 Bad Request",
                "",
                "This port speaks HTTPS",
                "tls_required",
            ),
            Self::Busy => (
                "503 Service Unavailable",
                "Retry-After: 1\r\n",
                "Too many requests at once",
                "busy",
            ),
        }
    }

    /// The whole response.
    pub fn response(self) -> Vec<u8> {
        let (status, extra, error, code) = self.row();
        let body = format!(r#"{{"error":"{error}","code":"{code}"}}"#);
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{extra}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// Reads a head from the beginning of `bytes`; `None`: more is needed.
pub(super) fn parse(bytes: &[u8]) -> Option<Result<Head, Refusal>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Err(Refusal::TooLarge));
        }
        Err(_) => return Some(Err(Refusal::Malformed)),
    }
    let method = match request.method {
        Some("GET") => "GET",
        Some("HEAD") => "HEAD",
        _ => return Some(Err(Refusal::Method)),
    };
    let target = request.path.unwrap_or_default();
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = if path == CONNECTIONS { query } else { "" };
    if path.len() + query.len() > MOST_TARGET_BYTES {
        return Some(Err(Refusal::TargetTooLong));
    }
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !is_plain(path) || !is_plain(query) {
        return Some(Err(Refusal::Malformed));
    }
    Some(Ok(Head {
        method,
        path: path.to_string(),
        query: query.to_string(),
        token: request.headers.iter().find_map(bearer),
        is_by_name: request.headers.iter().any(is_name),
    }))
}

/// Whether a field is a `Host` that is neither an address nor `localhost`.
fn is_name(field: &httparse::Header<'_>) -> bool {
    if !field.name.eq_ignore_ascii_case("host") {
        return false;
    }
    let authority = std::str::from_utf8(field.value).ok();
    let authority = authority.and_then(|text| text.parse::<hyper::http::uri::Authority>().ok());
    !authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
    })
}

/// The token of a field, if it is one: RFC 6750, section 2.1, where the scheme's case does not matter.
fn bearer(field: &httparse::Header<'_>) -> Option<Vec<u8>> {
    const SCHEME: &[u8] = b"bearer ";
    if !field.name.eq_ignore_ascii_case("authorization") {
        return None;
    }
    let (scheme, token) = field.value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_known_when_it_is_whole() {
        let whole = b"HEAD /stats?token=x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\nGET";
        for end in 0..whole.len() - 3 {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        let head = Head {
            method: "HEAD",
            path: "/stats".into(),
            query: String::new(),
            token: None,
            is_by_name: true,
        };
        assert_eq!(parse(whole), Some(Ok(head)));
        let token = |field: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
            parse(text.as_bytes()).unwrap().unwrap().token
        };
        assert_eq!(token("authorization: bearer  x y "), Some(b"x y".to_vec()));
        assert_eq!(token("Authorization: Basic x"), None);
        assert_eq!(token("Authorization: Bearer"), None);
    }

    #[test]
    fn what_is_refused_has_its_reason() {
        let refusal = |text: &str| parse(text.as_bytes()).unwrap().unwrap_err();
        assert_eq!(refusal("POST / HTTP/1.1\r\n\r\n"), Refusal::Method);
        assert_eq!(refusal("GET / HTTP/2.0\r\n\r\n"), Refusal::Malformed);
        assert_eq!(
            refusal("GET http://h/ HTTP/1.1\r\n\r\n"),
            Refusal::Malformed
        );
        assert_eq!(refusal("GET /\u{e9} HTTP/1.1\r\n\r\n"), Refusal::Malformed);
        assert_eq!(refusal("\u{16}\u{3}\u{1}"), Refusal::Malformed);
        let long = "x".repeat(MOST_BYTES);
        assert_eq!(refusal(&format!("GET /{long}")), Refusal::TooLarge);
        let long = &long[..2_000];
        assert_eq!(
            refusal(&format!("GET /{long} HTTP/1.1\r\n\r\n")),
            Refusal::TargetTooLong
        );
        let fields = "a: b\r\n".repeat(MOST_FIELDS + 1);
        assert_eq!(
            refusal(&format!("GET / HTTP/1.1\r\n{fields}\r\n")),
            Refusal::TooLarge
        );
    }
}
