//! A request as handlers see it: read whole, within limits, with JSON and query taken apart.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use hyper::{HeaderMap, Method};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use url::form_urlencoded;

use super::errors::ApiError;
use super::identity::Whence;
use crate::trace::Context;

/// Of a body that is too large, how much is read all the same.
const MAX_DISCARDED_BYTES: usize = 8 << 20;

/// A request that has a handler.
#[derive(Debug)]
pub struct Call {
    /// What to answer as; never `HEAD` or `OPTIONS`.
    pub method: Method,
    /// Whether it is the operator who asks, over the control socket.
    pub operator: bool,
    /// The headers.
    pub headers: HeaderMap,
    /// What stands after the question mark.
    pub query: String,
    /// What stands where the route has `{id}`.
    pub id: Option<String>,
    /// Who asks: the client's address, past trusted proxies.
    pub ip: IpAddr,
    /// The body, empty for methods that have none.
    pub body: Bytes,
    /// Its span, if it is recorded.
    pub trace: Option<Context>,
}

impl Call {
    /// The body as a JSON object. What is not JSON is 400, whatever it is called; JSON under another
    /// name is 415.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        let not_json = || ApiError::bad_request("invalid_json", "The body is not valid JSON");
        let text = std::str::from_utf8(&self.body).map_err(|_| not_json())?;
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let parsed = if text.starts_with('{') {
            serde_json::from_str::<T>(text)
        } else {
            serde_json::from_str::<IgnoredAny>(text).map_err(|_| not_json())?;
            Err(serde::de::Error::custom("expected a JSON object"))
        };
        if matches!(&parsed, Err(error) if !error.is_data()) {
            return Err(not_json());
        }
        if !is_json(&self.headers) {
            return Err(ApiError::media_type());
        }
        parsed.map_err(|error| ApiError::bad_request("invalid_body", error.to_string()))
    }

    /// Where it comes from.
    pub fn whence(&self) -> Whence<'_> {
        Whence::of(self.ip, &self.headers)
    }

    /// The first value of a query parameter.
    pub fn query(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The `Idempotency-Key`: 1 to 255 visible ASCII characters.
    pub fn idempotency_key(&self) -> Result<Option<&str>, ApiError> {
        let Some(value) = self.headers.get("idempotency-key") else {
            return Ok(None);
        };
        match value.to_str() {
            Ok(key)
                if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Ok(Some(key))
            }
            _ => Err(ApiError::bad_request(
                "invalid_idempotency_key",
                "Idempotency-Key must be 1 to 255 visible ASCII characters",
            )),
        }
    }
}

/// An idempotency key as the store gets it: one of another route or owner never equals it, because
/// the client's part has no line feed in it.
pub fn scoped_key(route: &str, owner: &str, key: &str) -> String {
    format!("{route}\n{owner}\n{key}")
}

/// The text of a member that must be a string with something in it.
pub fn text(member: Option<Value>) -> Option<String> {
    match member {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// The id in a member: a text, or a whole number, as which applications with such ids write them.
pub fn id_text(member: Option<Value>) -> Option<String> {
    match member {
        Some(Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        member => text(member),
    }
}

/// Reads a body of at most `max_bytes` within `patience`.
///
/// The rest of one that is too large is thrown away up to `MAX_DISCARDED_BYTES`, because a client
/// that is still sending when the connection closes never gets to read the 413.
pub async fn read_body<B>(
    headers: &HeaderMap,
    body: B,
    max_bytes: usize,
    patience: Duration,
) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
{
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let too_large = announced.is_some_and(|bytes| bytes > max_bytes);
    let most = max_bytes.saturating_add(MAX_DISCARDED_BYTES);
    if too_large && (headers.contains_key(EXPECT) || announced > Some(most)) {
        return Err(ApiError::body_too_large(max_bytes));
    }
    let mut kept = Kept {
        bytes: BytesMut::new(),
        seen: 0,
        max_bytes,
        too_large,
    };
    let outcome = tokio::time::timeout(patience, kept.fill(body, most)).await;
    match outcome {
        _ if kept.too_large => Err(ApiError::body_too_large(max_bytes)),
        Ok(Ok(())) => Ok(kept.bytes.freeze()),
        Ok(Err(())) => Err(ApiError::bad_request(
            "incomplete_body",
            "The body did not arrive whole",
        )),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

/// What has arrived of a body: its bytes, or only their number once they are too many.
struct Kept {
    bytes: BytesMut,
    seen: usize,
    max_bytes: usize,
    too_large: bool,
}

impl Kept {
    /// Takes what comes until the end, or until `most` bytes; `Err`: it broke off.
    async fn fill<B: Body<Data = Bytes>>(&mut self, body: B, most: usize) -> Result<(), ()> {
        let mut body = Box::pin(body);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ())?.into_data() else {
                continue; // trailers
            };
            self.seen = self.seen.saturating_add(data.len());
            self.too_large |= self.seen > self.max_bytes;
            if self.too_large {
                self.bytes = BytesMut::new();
            } else {
                self.bytes.extend_from_slice(&data);
            }
            if self.seen > most {
                break;
            }
        }
        Ok(())
    }
}

/// Whether the body is called JSON, or nothing at all.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("");
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || essence
            .strip_prefix("application/")
            .is_some_and(|subtype| subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    /// A body that never comes.
    struct Never;

    impl Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    fn call(content_type: Option<&str>, body: &[u8]) -> Call {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        Call {
            method: Method::POST,
            operator: false,
            headers,
            query: "a=1&b=%C3%A9+x&a=2&empty=".into(),
            id: None,
            ip: IpAddr::from([127, 0, 0, 1]),
            body: Bytes::copy_from_slice(body),
            trace: None,
        }
    }

    #[derive(Debug, Deserialize)]
    struct Sample {
        wallet: Option<Value>,
    }

    fn outcome(
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Option<String>, (u16, &'static str)> {
        match call(content_type, body).json::<Sample>() {
            Ok(body) => Ok(text(body.wallet)),
            Err(error) => Err((error.status.as_u16(), error.code)),
        }
    }

    #[test]
    fn json_is_taken_under_its_names_only() {
        let body = br#" {"wallet":"w"} "#;
        for good in [
            None,
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("application/vnd.api+json"),
        ] {
            assert_eq!(outcome(good, body), Ok(Some("w".into())), "{good:?}");
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/json",
            "",
            "+json",
        ] {
            assert_eq!(
                outcome(Some(bad), body),
                Err((415, "unsupported_media_type")),
                "{bad:?}"
            );
            assert_eq!(outcome(Some(bad), b"wallet=w"), Err((400, "invalid_json")));
        }
    }

    #[test]
    fn what_is_no_json_object_is_told_apart() {
        let not_json: [&[u8]; 8] = [
            b"",
            b"{",
            b"wallet",
            b"{\"wallet\":}",
            b"{\"wallet\":\"\xff\"}",
            b"{} x",
            b"{'a':1}",
            b"[",
        ];
        for body in not_json {
            assert_eq!(outcome(None, body), Err((400, "invalid_json")), "{body:?}");
        }
        let not_object: [&[u8]; 5] = [
            b"[]",
            b"[\"w\"]",
            b"null",
            b"\"w\"",
            b"{\"wallet\":1,\"wallet\":2}",
        ];
        for body in not_object {
            assert_eq!(outcome(None, body), Err((400, "invalid_body")), "{body:?}");
        }
        let deep = format!(
            "{{\"wallet\":{}{}}}",
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        assert_eq!(outcome(None, deep.as_bytes()), Err((400, "invalid_json")));
        let deep = format!("{{\"other\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(outcome(None, deep.as_bytes()), Ok(None));
        assert_eq!(outcome(None, b"{\"wallet\":\"\"}"), Ok(None));
        assert_eq!(outcome(None, b"{\"wallet\":7}"), Ok(None));
    }

    #[test]
    fn queries_are_decoded() {
        let call = call(None, b"");
        assert_eq!(call.query("a").as_deref(), Some("1"));
        assert_eq!(call.query("b").as_deref(), Some("é x"));
        assert_eq!(call.query("empty").as_deref(), Some(""));
        assert_eq!(call.query("none"), None);
    }

    #[test]
    fn idempotency_keys_are_bounded_and_cannot_meet_across_scopes() {
        let with = |key: &str| {
            let mut call = call(None, b"");
            call.headers.insert("idempotency-key", key.parse().unwrap());
            call.idempotency_key()
                .map(|key| key.map(str::to_owned))
                .ok()
        };
        assert_eq!(call(None, b"").idempotency_key(), Ok(None));
        assert_eq!(with("k-1"), Some(Some("k-1".into())));
        assert!(with(&"k".repeat(255)).is_some());
        assert_eq!(with(&"k".repeat(256)), None);
        assert_eq!(with(""), None);
        assert_eq!(with("a b"), None);
        assert_eq!(with("é"), None);
        assert_ne!(scoped_key("r", "a", "b"), scoped_key("r", "a\nb", ""));
        assert_ne!(scoped_key("r", "a\nb", "c"), scoped_key("r", "a", "b\tc"));
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_and_time() {
        let patience = Duration::from_millis(50);
        let read = |bytes: &'static [u8], max| {
            let body = Full::new(Bytes::from_static(bytes));
            async move { read_body(&HeaderMap::new(), body, max, patience).await }
        };
        assert_eq!(read(b"12345", 5).await.unwrap(), "12345");
        assert_eq!(read(b"123456", 5).await.unwrap_err().status, 413);

        let mut announced = HeaderMap::new();
        announced.insert(CONTENT_LENGTH, 6.into());
        let never = Never;
        let error = read_body(&announced, never, 5, patience).await.unwrap_err();
        assert_eq!(error.status, 413);
        let never = Never;
        let error = read_body(&HeaderMap::new(), never, 5, patience)
            .await
            .unwrap_err();
        assert_eq!(error.status, 408);
    }
}
