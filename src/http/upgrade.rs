//! From a request to a WebSocket: who may connect, and what the answer is. Contract section 4.
//! What it shares with a stream of server-sent events, which is no upgrade, is here too.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use tungstenite::handshake::server::create_response_with_body;

use super::Services;
use super::errors::ApiError;
use super::event_stream::{self, Wanted};
use super::identity::{Whence, bearer, note_failure};
use super::origin;
use crate::admission::{Permit, RetryAfter, client_address};
use crate::auth::Refusal;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::protocol::Close;
use crate::session::Identity;

/// The subprotocol that is answered when a token came with it.
const SUBPROTOCOL: &str = "fanfare";
/// The prefix of the subprotocol that carries a token.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// What a request is, as far as WebSockets go.
pub enum Considered {
    /// Not an upgrade.
    Other,
    /// An upgrade that is refused.
    Refused(Response<Full<Bytes>>),
    /// An upgrade, or a stream.
    Upgrade {
        /// 101; nothing for a stream, whose head goes with it.
        response: Response<Full<Bytes>>,
        /// For the worker.
        ticket: Box<Ticket>,
    },
}

/// What a worker has to know about a socket that it adopts.
pub struct Ticket {
    /// The client's address.
    pub address: IpAddr,
    /// Who it is; or with what the connection is to be closed after the upgrade.
    pub client: Result<Arc<Identity>, Close>,
    /// Held as long as the connection lives: node, address, user.
    pub permits: [Option<Permit>; 3],
    /// For server-sent events: of what. `None`: a WebSocket.
    pub stream: Option<Box<Wanted>>,
}

/// An upgrade that is whole, and how long its head is. `None` for everything that deserves a closer
/// look: other requests, parts of requests, what may have a body, what breaks the protocol. What it says
/// lies in `bytes` as before.
pub fn whole(bytes: &Bytes) -> Option<(usize, Request<()>)> {
    // Nothing else is parsed twice.
    if !bytes.starts_with(b"GET /") {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else {
        return None;
    };
    if length > HEAD_BYTES_MAX || head.version != Some(1) {
        return None;
    }
    let mut request = Request::new(());
    let path = bytes.slice_ref(head.path?.as_bytes());
    *request.uri_mut() = Uri::from(PathAndQuery::from_maybe_shared(path).ok()?);
    let headers = request.headers_mut();
    headers.reserve(head.headers.len());
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        headers.append(name, value);
    }
    let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT]
        .iter()
        .any(|name| headers.contains_key(name));
    (!has_body && is_upgrade(&request)).then_some((length, request))
}

/// The bytes of the answer to an upgrade, which is always 101.
pub fn encode(response: &Response<Full<Bytes>>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Waits for the keys that the token of an upgrade or of a stream needs, if they are not here yet.
pub async fn prepare<B>(services: &Services, request: &Request<B>) {
    let authority = services.authority();
    if authority.learns()
        && (is_upgrade(request) || request.uri().path() == event_stream::PATH)
        && let Some(token) = offered(request).token
    {
        authority.learn(token.as_bytes()).await;
    }
}

/// Looks at a request; takes permits only if it is an upgrade.
pub fn consider<B>(services: &Services, peer: SocketAddr, request: &Request<B>) -> Considered {
    let headers = request.headers();
    let path = request.uri().path();
    let address = || {
        let config = services.config();
        client_address(peer.ip(), headers, &config.server.trusted_proxies)
    };
    if path == event_stream::PATH {
        return event_stream::consider(services, address(), request);
    }
    if !is_upgrade(request) {
        return Considered::Other;
    }
    match admit(services, address(), request) {
        Ok((response, ticket)) => Considered::Upgrade {
            response,
            ticket: Box::new(ticket),
        },
        Err(response) => {
            let name = format!("GET {path} {}", response.status().as_u16());
            services.counters.http_responses.increment(&name);
            Considered::Refused(*response)
        }
    }
}

fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && matches!(request.uri().path(), "/ws" | "/")
        && any_names(request.headers(), UPGRADE, "websocket")
}

/// An answer instead of a connection.
pub(super) type Refused = Box<Response<Full<Bytes>>>;

fn admit<B>(
    services: &Services,
    address: IpAddr,
    request: &Request<B>,
) -> Result<(Response<Full<Bytes>>, Ticket), Refused> {
    let headers = request.headers();
    check(services, address, headers)?;
    let mut response = switched(request).map_err(|error| {
        let error = error.to_string();
        let version = headers.get(SEC_WEBSOCKET_VERSION);
        if version.is_some_and(|version| version == "13") {
            let error = ApiError::bad_request("invalid_upgrade", error);
            return Box::new(error.into_response());
        }
        let mut response = ApiError::invalid_upgrade_version(error).into_response();
        // RFC 6455 section 4.4: say which version is spoken.
        let version = HeaderValue::from_static("13");
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, version);
        Box::new(response)
    })?;
    let [on_node, from_address] = permits(services, address)?;
    let admission = &services.admission;

    let offered = offered(request);
    if offered.by_subprotocol {
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let mut of_user = None;
    let client = match offered.token {
        None => Err(Refusal::Missing),
        Some(token) => services.identify(&token),
    };
    let client = match client {
        Err(refusal) => {
            note_failure(services, Whence::of(address, headers), refusal.check());
            // One that is past the budget is told by the next answer.
            let _ = admission.request(address);
            Err(Close::Unauthorized)
        }
        Ok(identity) => match admission.connect_user(address, &identity.user_id) {
            Some(permit) => {
                of_user = Some(permit);
                Ok(Arc::new(identity))
            }
            None => Err(Close::LimitReached),
        },
    };
    let permits = [Some(on_node), Some(from_address), of_user];
    Ok((
        response,
        Ticket {
            address,
            client,
            permits,
            stream: None,
        },
    ))
}

/// The 101. Of a list in several lines (RFC 9110 section 5.3) tungstenite reads the first only, and as
/// `Upgrade` it takes no list at all: then it looks at a request that says the same plainly.
fn switched<B>(request: &Request<B>) -> tungstenite::Result<Response<Full<Bytes>>> {
    let headers = request.headers();
    let has_one = |name| headers.get_all(name).iter().nth(1).is_none();
    let is_plain = has_one(CONNECTION)
        && has_one(UPGRADE)
        && headers
            .get(UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if is_plain {
        return create_response_with_body(request, Full::default);
    }
    let mut plain = Request::new(());
    *plain.method_mut() = request.method().clone();
    *plain.version_mut() = request.version();
    plain.headers_mut().clone_from(headers);
    if any_names(headers, CONNECTION, "upgrade") {
        let option = HeaderValue::from_static("Upgrade");
        plain.headers_mut().insert(CONNECTION, option);
    }
    let protocol = HeaderValue::from_static("websocket");
    plain.headers_mut().insert(UPGRADE, protocol);
    create_response_with_body(&plain, Full::default)
}

/// Whether anybody may connect from there now.
pub(super) fn check(
    services: &Services,
    address: IpAddr,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if !origin::is_allowed(&services.config().server.allowed_origins, headers) {
        note_failure(services, Whence::of(address, headers), "origin");
        let error = ApiError::new(
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            "Origin not allowed",
        );
        return Err(Box::new(error.into_response()));
    }
    Ok(())
}

/// Leave for one more connection: of the node, and of the address.
pub(super) fn permits(services: &Services, address: IpAddr) -> Result<[Permit; 2], Refused> {
    let admission = &services.admission;
    let too_many = |retry_after| Box::new(ApiError::rate_limited(retry_after).into_response());
    admission.knock(address).map_err(too_many)?;
    let on_node = admission.connect_node().ok_or_else(|| {
        unavailable(
            "too_many_connections",
            "Too many connections",
            RetryAfter(5),
        )
    })?;
    let from_address = admission
        .connect(address)
        .ok_or_else(|| too_many(RetryAfter(5)))?;
    admission.accept(address).map_err(|retry_after| {
        unavailable("too_many_accepts", "Too many new connections", retry_after)
    })?;
    Ok([on_node, from_address])
}

fn unavailable(code: &'static str, text: &'static str, retry_after: RetryAfter) -> Refused {
    let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, text).into_response();
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(retry_after.0));
    Box::new(response)
}

/// A token and how it came.
pub struct Offered<'a> {
    /// As it was shown, if one was.
    pub token: Option<Cow<'a, str>>,
    /// Then the subprotocol has to be answered, or browsers give up.
    by_subprotocol: bool,
}

/// The token of a request: query, else header, else subprotocol.
pub fn offered<B>(request: &Request<B>) -> Offered<'_> {
    let subprotocols = request
        .headers()
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let mut by_subprotocol = false;
    let mut in_subprotocol = None;
    for protocol in subprotocols {
        by_subprotocol |= protocol == SUBPROTOCOL;
        in_subprotocol = in_subprotocol.or_else(|| protocol.strip_prefix(BEARER_SUBPROTOCOL));
    }
    let query = request.uri().query().unwrap_or_default();
    let in_query = in_query(query, "token");
    let token = in_query
        .or_else(|| bearer(request.headers()).map(String::from_utf8_lossy))
        .or_else(|| in_subprotocol.map(Cow::from));
    Offered {
        token,
        by_subprotocol,
    }
}

/// A parameter of the query: the first that is not empty, if any is there.
pub(super) fn in_query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    // A token comes first and needs no escapes; looking for them takes longer than all the rest.
    let plain = query
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='))
        .filter(|value| !value.is_empty() && !value.contains(['%', '+', '&']));
    if let Some(value) = plain {
        return Some(value.into());
    }
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value)
}

/// Whether a list, which may come in several lines, has this word.
fn any_names(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| names(value, word))
}

/// Whether a comma-separated header value has this word, in any case.
fn names(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn token(uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let request = request(uri, headers);
        offered(&request).token.map(Cow::into_owned)
    }

    #[test]
    fn a_token_may_come_in_three_ways() {
        let header = ("authorization", "bearer h.h.h");
        let protocol = ("sec-websocket-protocol", "fanfare, bearer.p.p.p");
        assert_eq!(
            token("/ws?token=q.q.q", &[header, protocol]).unwrap(),
            "q.q.q"
        );
        assert_eq!(token("/ws?token=q%2Eq.q&x", &[]).unwrap(), "q.q.q");
        assert_eq!(token("/ws?token=q.q&token=x", &[]).unwrap(), "q.q");
        assert_eq!(token("/ws?x=token&token=q.q", &[]).unwrap(), "q.q");
        assert_eq!(token("/ws?token=", &[header, protocol]).unwrap(), "h.h.h");
        assert_eq!(token("/ws", &[protocol]).unwrap(), "p.p.p");
        assert_eq!(token("/ws", &[("authorization", "Basic x")]), None);
        assert!(offered(&request("/ws?token=q", &[protocol])).by_subprotocol);
        assert!(!offered(&request("/ws?token=q", &[header])).by_subprotocol);
    }

    #[test]
    fn lists_may_come_in_several_lines_and_name_others() {
        let is_switched = |lists: &[(&str, &str)]| {
            let rest = [
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            let request = request("/ws", &[lists, &rest].concat());
            is_upgrade(&request) && switched(&request).is_ok()
        };
        let (connection, upgrade) = (("connection", "Upgrade"), ("upgrade", "websocket"));
        let (keep_alive, h2c) = (("connection", "keep-alive"), ("upgrade", "h2c"));
        for good in [
            &[connection, upgrade][..],
            &[
                ("connection", "keep-alive, upgrade"),
                ("upgrade", "WebSocket"),
            ],
            &[keep_alive, connection, upgrade],
            &[connection, keep_alive, upgrade],
            &[connection, ("upgrade", "h2c, websocket")],
            &[connection, h2c, upgrade],
            &[keep_alive, connection, upgrade, h2c],
        ] {
            assert!(is_switched(good), "{good:?}");
        }
        for bad in [
            &[upgrade][..],
            &[connection],
            &[connection, h2c],
            &[keep_alive, upgrade],
            &[keep_alive, ("connection", "close"), upgrade],
            &[keep_alive, upgrade, h2c],
        ] {
            assert!(!is_switched(bad), "{bad:?}");
        }
    }
}
