//! `GET /control/tail`: frames as they pass, one JSON object a line, until the client goes.
//!
//! What is shown of them is `protocol::shape`'s: no value of anybody's. The queue of who watches is bounded
//! (`worker::tap`); what it could not take is counted in a line of its own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use url::form_urlencoded;

use super::Parts;
use crate::clock::rfc3339;
use crate::http::errors::ApiError;
use crate::patience::together;
use crate::protocol::ChannelKey;
use crate::protocol::connection::{connection_id, serial_of};
use crate::worker::mailbox::Control;
use crate::worker::tap::{Seen, Tapped, Watched, Way, tap};

/// Watchers at once; more are told to come later.
pub const TAILS_MAX: usize = 8;
/// For the workers to begin.
const BEGINNING: Duration = Duration::from_secs(5);

/// Begins to watch, and shows what passes from then on.
pub(super) async fn tail(
    parts: &Parts,
    tails: &Arc<Semaphore>,
    query: Option<&str>,
) -> Result<Response<super::Body>, ApiError> {
    let services = &parts.services;
    let watched = watched(
        query.unwrap_or_default(),
        &services.node,
        services.config().limits.channel_key_bytes,
    )?;
    let place = Arc::clone(tails).try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::CONFLICT,
            "too_many_tails",
            "Others watch already, as many as may at once",
        )
    })?;
    let (tap, tapped) = tap(watched);
    let mut begun = Vec::new();
    for mailbox in services.router.mailboxes() {
        let (reply, has_begun) = oneshot::channel();
        let tap = tap.clone();
        // A worker that has ended has nothing to show.
        if mailbox.control(Control::Watch { tap, reply }).is_ok() {
            begun.push(has_begun);
        }
    }
    // One that is too busy begins later.
    let _ = tokio::time::timeout(BEGINNING, together(begun.into_iter())).await;
    let shown = Shown {
        tapped,
        told: 0,
        node: services.node.clone(),
        beginning: Some(json!({ "node": services.node, "watching": true })),
        _place: place,
    };
    let body = shown.map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/x-ndjson"),
    );
    Ok(response)
}

fn watched(query: &str, node: &str, key_bytes: usize) -> Result<Watched, ApiError> {
    let named: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let wrong = |text: &str| Err(ApiError::bad_request("invalid_tail", text.to_owned()));
    let [(name, value)] = &named[..] else {
        return wrong("Name one of user, channel and connection");
    };
    match name.as_str() {
        "user" if !value.is_empty() => Ok(Watched::User(value.as_str().into())),
        "channel" => match ChannelKey::parse(value, key_bytes) {
            Ok(key) => Ok(Watched::Channel(key)),
            Err(_) => wrong("That is no channel's key"),
        },
        "connection" => match serial_of(value, node) {
            Some(serial) => Ok(Watched::Connection(serial)),
            None => wrong("That is no connection of this node"),
        },
        _ => wrong("Name one of user, channel and connection"),
    }
}

/// The body.
struct Shown {
    tapped: Tapped,
    /// Lost frames that the client knows of.
    told: u64,
    node: Arc<str>,
    /// Says that it has begun.
    beginning: Option<Value>,
    _place: OwnedSemaphorePermit,
}

impl Shown {
    fn line(&self, seen: &Seen) -> Value {
        let shape = seen.shape.as_deref();
        json!({
            "at": rfc3339(seen.unix_ms),
            "connectionId": connection_id(&self.node, seen.serial),
            "userId": seen.user_id,
            "direction": match seen.way {
                Way::In => "in",
                Way::Out => "out",
            },
            "frame": seen.frame,
            "bytes": seen.bytes,
            "type": shape.and_then(|shape| shape.kind.as_deref()),
            "channel": shape.and_then(|shape| shape.channel.as_deref()),
            "shape": shape.map(|shape| &shape.members),
        })
    }
}

impl Body for Shown {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = |value: &Value| Some(Ok(Frame::data(format!("{value}\n").into())));
        if let Some(beginning) = self.beginning.take() {
            return Poll::Ready(line(&beginning));
        }
        let dropped = self.tapped.dropped();
        if dropped > self.told {
            let lost = json!({ "dropped": dropped - self.told });
            self.told = dropped;
            return Poll::Ready(line(&lost));
        }
        // It ends when no worker is left.
        let seen = ready!(self.tapped.frames.poll_recv(context));
        Poll::Ready(seen.and_then(|seen| line(&self.line(&seen))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_three_is_named() {
        let watched = |query| watched(query, "n", 255);
        assert_eq!(watched("user=ann").unwrap(), Watched::User("ann".into()));
        assert_eq!(watched("connection=n-7").unwrap(), Watched::Connection(7));
        assert!(matches!(
            watched("channel=post_1").unwrap(),
            Watched::Channel(key) if key.as_str() == "post_1"
        ));
        for wrong in [
            "",
            "user=",
            "user=ann&channel=post_1",
            "channel=post",
            "connection=m-7",
            "connection=7",
            "all=1",
        ] {
            assert!(watched(wrong).is_err(), "{wrong}");
        }
    }
}
