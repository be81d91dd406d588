//! `GET /sse`: from a request to a stream of server-sent events. Who may have one is decided as for a
//! WebSocket (`upgrade`), but what is refused is refused with a status, which ends a browser's attempts.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::Services;
use super::errors::ApiError;
use super::identity::{Whence, note_failure};
use super::origin::Shared;
use super::upgrade::{Considered, Refused, Ticket, in_query, offered, permits};
use crate::admission::RetryAfter;
use crate::auth::Refusal;
use crate::protocol::event_stream::{ids_fit, parse_id};
use crate::protocol::{ChannelKey, Epoch, Position};
use crate::session::Identity;

/// Where it is.
pub const PATH: &str = "/sse";

/// What a stream is of.
#[derive(Debug)]
pub struct Wanted {
    /// The head of the answer, as it is written.
    pub head: Vec<u8>,
    /// In the order in which they were asked for; none twice.
    pub channels: Vec<Followed>,
}

/// A channel of a stream.
#[derive(Debug)]
pub struct Followed {
    /// As the client wrote it.
    pub channel: Box<RawValue>,
    /// The same, if it is one.
    pub key: Option<ChannelKey>,
    /// Where the stream stood before.
    pub recover: Option<Position>,
}

/// Looks at a request for [`PATH`].
pub fn consider<B>(services: &Services, address: IpAddr, request: &Request<B>) -> Considered {
    let method = request.method();
    let outcome = match *method {
        Method::HEAD => check(services, address, request)
            .map(|_| Considered::Refused(head(services, request.headers()))),
        Method::GET => open(services, address, request),
        _ => return Considered::Other,
    };
    let (considered, status) = match outcome {
        Ok(considered) => {
            let status = match &considered {
                Considered::Refused(response) => response.status(),
                _ => StatusCode::OK,
            };
            (considered, status)
        }
        Err(refused) => {
            let mut response = *refused;
            share(services, request.headers(), response.headers_mut());
            let status = response.status();
            (Considered::Refused(response), status)
        }
    };
    let name = format!("{method} {PATH} {}", status.as_u16());
    services.counters.http_responses.increment(&name);
    considered
}

fn open<B>(
    services: &Services,
    address: IpAddr,
    request: &Request<B>,
) -> Result<Considered, Refused> {
    let (identity, channels) = check(services, address, request)?;
    let [on_node, from_address] = permits(services, address)?;
    let Some(of_user) = services.admission.connect_user(address, &identity.user_id) else {
        let error = ApiError::too_many("limit_reached", "Too many connections", RetryAfter(60));
        return Err(Box::new(error.into_response()));
    };
    let head = written(&head(services, request.headers()), services.clock.unix_ms());
    Ok(Considered::Upgrade {
        response: Response::default(),
        ticket: Box::new(Ticket {
            address,
            client: Ok(Arc::new(identity)),
            permits: [Some(on_node), Some(from_address), Some(of_user)],
            stream: Some(Box::new(Wanted { head, channels })),
        }),
    })
}

/// Everything but the limits: who it is, and what is wanted.
fn check<B>(
    services: &Services,
    address: IpAddr,
    request: &Request<B>,
) -> Result<(Identity, Vec<Followed>), Refused> {
    let headers = request.headers();
    super::upgrade::check(services, address, headers)?;
    let admission = &services.admission;
    let too_many = |retry_after| Box::new(ApiError::rate_limited(retry_after).into_response());
    admission.request(address).map_err(too_many)?;
    if !accepts(headers) {
        let error = ApiError::new(
            StatusCode::NOT_ACCEPTABLE,
            "not_acceptable",
            "This is text/event-stream",
        );
        return Err(Box::new(error.into_response()));
    }
    let token = offered(request).token.ok_or(Refusal::Missing);
    let identity = token
        .and_then(|token| services.identify(&token))
        .map_err(|refusal| {
            note_failure(services, Whence::of(address, headers), refusal.check());
            Box::new(ApiError::from(refusal).into_response())
        })?;
    let query = request.uri().query().unwrap_or_default();
    let limits = &services.config().limits;
    let bytes_max = limits.channel_key_bytes;
    let channels = followed(query, headers, &identity.user_id, bytes_max);
    if channels.is_empty() {
        let error = ApiError::bad_request("missing_fields", "channels is required");
        return Err(Box::new(error.into_response()));
    }
    if channels.len() > limits.channels_per_connection
        || !ids_fit(channels.iter().filter_map(|one| one.key.as_ref()))
    {
        let error = ApiError::bad_request(
            "limit_reached",
            "Too many or too long channels for one stream: their positions must fit into Last-Event-ID",
        );
        return Err(Box::new(error.into_response()));
    }
    Ok((identity, channels))
}

/// The channels of `channels=A,B` and of each `channel=A`, and where `Last-Event-ID` (or, for
/// those who cannot set it, `lastEventId=`) says that the stream stood in them.
fn followed(query: &str, headers: &HeaderMap, user: &str, bytes_max: usize) -> Vec<Followed> {
    let id = headers
        .get("last-event-id")
        .map(|id| String::from_utf8_lossy(id.as_bytes()))
        .filter(|id| !id.is_empty())
        .or_else(|| in_query(query, "lastEventId"));
    let before = id.map(|id| parse_id(&id));
    let mut all: Vec<Followed> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let names: Vec<&str> = match &*name {
            "channels" => value.split(',').collect(),
            "channel" => vec![&*value],
            _ => continue,
        };
        for name in names.into_iter().map(str::trim) {
            let key = ChannelKey::resolve(&Value::from(name), Some(user), bytes_max).ok();
            let is_known = key.is_some() && all.iter().any(|one| one.key == key);
            let Ok(channel) = to_raw_value(name) else {
                continue;
            };
            if name.is_empty() || is_known {
                continue;
            }
            let recover = match (&before, &key) {
                (Some(Some(before)), Some(key)) => {
                    let mut entries = before.iter();
                    let entry = entries.find(|(name, _)| name == key.as_str());
                    entry.map(|(_, position)| position.clone())
                }
                // It stood somewhere, and nobody can tell where: that nothing was missed cannot be said.
                (Some(None), _) => Some(Position {
                    epoch: Epoch::new("unknown"),
                    offset: 0,
                }),
                _ => None,
            };
            all.push(Followed {
                channel,
                key,
                recover,
            });
        }
    }
    all
}

/// Whether the client takes what there is: it says so, or says nothing.
fn accepts(headers: &HeaderMap) -> bool {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .peekable();
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        matches!(&*kind, "text/event-stream" | "text/*" | "*/*") && !is_refused
    };
    ranges.peek().is_none() || ranges.any(takes)
}

/// The head of a stream.
fn head(services: &Services, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // nginx passes each message on at once.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    share(services, asked, headers);
    response
}

/// With pages of other hosts that are allowed to connect.
fn share(services: &Services, asked: &HeaderMap, answer: &mut HeaderMap) {
    Shared::of(&services.config().server.allowed_origins, asked).tell(answer);
}

/// As it goes over the wire: the body has no length, it ends with the connection.
fn written(response: &Response<Full<Bytes>>, now_ms: u64) -> Vec<u8> {
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms);
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut line = |name: &[u8], value: &[u8]| {
        head.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    };
    for (name, value) in response.headers() {
        line(name.as_str().as_bytes(), value.as_bytes());
    }
    line(b"date", httpdate::fmt_http_date(now).as_bytes());
    line(b"connection", b"close");
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn channels_come_in_lists_and_one_by_one_each_once() {
        let query =
            "channels=post_1,,notifications,post_1,x&token=t&channel=post_a%2Cb&channels=feed";
        let id = headers(&[("last-event-id", "post_1@e1:5,post_a%2Cb@:7,post_9@:1")]);
        let all = followed(query, &id, "u1", 255);
        let told: Vec<_> = all
            .iter()
            .map(|one| {
                let at = one.recover.as_ref().map(|at| at.offset);
                (
                    one.channel.get(),
                    one.key.as_ref().map(ChannelKey::as_str),
                    at,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("\"post_1\"", Some("post_1"), Some(5)),
                ("\"notifications\"", Some("notifications_u1"), None),
                ("\"x\"", None, None),
                ("\"post_a,b\"", Some("post_a,b"), Some(7)),
                ("\"feed\"", Some("feed_u1"), None),
            ]
        );
    }

    #[test]
    fn an_id_may_come_in_the_query_and_a_strange_one_proves_nothing() {
        let none = headers(&[]);
        let recover = |query: &str, headers: &HeaderMap| {
            let all = followed(query, headers, "u1", 255);
            let at = all[0].recover.as_ref();
            at.map(|at| (at.epoch.as_str().to_owned(), at.offset))
        };
        let query = "channels=post_1&lastEventId=post_1%40e1%3A5";
        assert_eq!(recover(query, &none), Some(("e1".into(), 5)));
        let stronger = headers(&[("last-event-id", "post_1@e1:6")]);
        assert_eq!(recover(query, &stronger), Some(("e1".into(), 6)));
        assert_eq!(recover("channels=post_1&lastEventId=", &none), None);
        let strange = headers(&[("last-event-id", "41")]);
        assert_eq!(
            recover("channels=post_1", &strange),
            Some(("unknown".into(), 0))
        );
    }

    #[test]
    fn whoever_takes_something_else_only_is_told_apart() {
        for taken in [
            "text/event-stream",
            "*/*",
            "application/json, text/*;q=0.1",
            "Text/Event-Stream; charset=utf-8",
        ] {
            assert!(accepts(&headers(&[("accept", taken)])), "{taken}");
        }
        assert!(accepts(&headers(&[])));
        for refused in [
            "application/json",
            "text/event-stream;q=0",
            "text/html, x/*",
        ] {
            assert!(!accepts(&headers(&[("accept", refused)])), "{refused}");
        }
    }
}
