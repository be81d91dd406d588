//! What backends and operators see of all nodes, and can end: presence, channels, connections.
//! Contract section 5.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Services;
use super::backend_api::addressee;
use super::errors::ApiError;
use super::identity::require_backend;
use super::reply::{self, Reply};
use super::request::{Call, id_text, text};
use crate::event_log::{Data, Kind};
use crate::peers::{ConnectionView, Fault};
use crate::protocol::connection::serial_of;

/// Entries of a page when no `limit` is named, and the largest `limit`.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// What an operator may say to those who are disconnected.
const REASON_BYTES_MAX: usize = 255;

/// `GET /api/presence`
pub async fn presence(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let named = call.query("channel").map_or(Value::Null, Value::String);
    let config = services.config();
    let channel = addressee(&named, &config)?;
    if !config.channels.has_presence(channel.kind()) {
        return Err(ApiError::bad_request(
            "no_presence",
            "The channel keeps no presence",
        ));
    }
    let present = services.presence.list(&channel).await?;
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        channel_key: &'a str,
        users: &'a [Arc<str>],
        count: u64,
    }
    Ok(reply::ok(&Answer {
        success: true,
        channel_key: channel.as_str(),
        users: &present.users,
        count: present.count,
    }))
}

/// `GET /api/channels`
pub async fn channels(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let limit = limit(call)?;
    let prefix = call.query("prefix").unwrap_or_default();
    let after = call.query("cursor");
    let found = services.peers.channels(prefix, after, limit + 1).await?;
    let mut page = found.all;
    let is_last = page.len() <= limit;
    page.truncate(limit);
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct View<'a> {
        channel_key: &'a str,
        subscribers: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        channels: Vec<View<'a>>,
        next_cursor: Option<&'a str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        silent_nodes: &'a [Arc<str>],
    }
    let views = page.iter().map(|(key, subscribers)| View {
        channel_key: key,
        subscribers: *subscribers,
    });
    let last = page.last().filter(|_| !is_last);
    Ok(reply::ok(&Answer {
        success: true,
        channels: views.collect(),
        next_cursor: last.map(|(key, _)| key.as_str()),
        silent_nodes: &found.silent,
    }))
}

/// `GET /api/connections`
pub async fn connections(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let limit = limit(call)?;
    let after = call.query("cursor").filter(|cursor| !cursor.is_empty());
    if let Some(cursor) = &after {
        // Alone, a node can only have given out names of its own.
        let node = match cursor.rsplit_once('-') {
            Some((node, _)) if services.peers.is_shared() => node,
            _ => &services.node,
        };
        serial_of(cursor, node)
            .ok_or_else(|| ApiError::bad_request("invalid_cursor", "cursor is none of ours"))?;
    }
    let user = call.query("user").filter(|user| !user.is_empty());
    let found = services.peers.connections(user, after, limit + 1).await?;
    let mut page = found.all;
    let is_last = page.len() <= limit;
    page.truncate(limit);
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        connections: &'a [ConnectionView],
        next_cursor: Option<&'a str>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        silent_nodes: &'a [Arc<str>],
    }
    let last = page.last().filter(|_| !is_last);
    Ok(reply::ok(&Answer {
        success: true,
        connections: &page,
        next_cursor: last.map(|view| view.connection_id.as_str()),
        silent_nodes: &found.silent,
    }))
}

/// `POST /api/disconnect`
pub async fn disconnect(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: DisconnectBody = call.json()?;
    let reason = body.reason()?;
    let (user_id, named) = match (id_text(body.user_id), text(body.connection_id)) {
        (Some(user_id), None) => (Some(user_id), None),
        (None, Some(named)) => (None, Some(named)),
        _ => {
            return Err(ApiError::bad_request(
                "missing_fields",
                "Either userId or connectionId is required",
            ));
        }
    };
    services.event_log.record(
        Kind::Server,
        &Data {
            message: Some("disconnect"),
            user_id: user_id.as_deref(),
            connection_id: named.as_deref(),
            ip: Some(call.ip),
            reason: reason.as_deref(),
            ..Data::default()
        },
    );
    let closed = services.peers.disconnect(user_id, named, reason).await?;
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        disconnected: u64,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        silent_nodes: &'a [Arc<str>],
    }
    Ok(reply::ok(&Answer {
        success: true,
        disconnected: closed.all,
        silent_nodes: &closed.silent,
    }))
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Worker => Self::internal(&fault.to_string()),
            Fault::TooLong => Self::bad_request("too_long", "What is asked for is too long"),
            Fault::Broker(error) => error.into(),
        }
    }
}

fn limit(call: &Call) -> Result<usize, ApiError> {
    let Some(given) = call.query("limit") else {
        return Ok(PAGE);
    };
    let limit = given.parse().ok();
    limit
        .filter(|limit| (1..=PAGE_MAX).contains(limit))
        .ok_or_else(|| {
            ApiError::bad_request("invalid_limit", format!("limit must be 1 to {PAGE_MAX}"))
        })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DisconnectBody {
    user_id: Option<Value>,
    connection_id: Option<Value>,
    reason: Option<Value>,
}

impl DisconnectBody {
    fn reason(&self) -> Result<Option<Arc<str>>, ApiError> {
        match &self.reason {
            None => Ok(None),
            Some(Value::String(reason))
                if (1..=REASON_BYTES_MAX).contains(&reason.len())
                    && !reason.chars().any(char::is_control) =>
            {
                Ok(Some(reason.as_str().into()))
            }
            Some(_) => Err(ApiError::bad_request(
                "invalid_reason",
                format!("reason must be a string of 1 to {REASON_BYTES_MAX} bytes"),
            )),
        }
    }
}
