//! What backends and operators see of this node, and can end: presence, channels, connections.
//! Contract section 5.
//!
//! Connections belong to their workers, so those are asked, all at once and for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use super::Services;
use super::backend_api::addressee;
use super::errors::ApiError;
use super::identity::require_backend;
use super::reply::{self, Reply};
use super::request::{Call, text};
use crate::broker::NOTICE_BYTES_MAX;
use crate::clock::rfc3339;
use crate::event_log::{Data, Kind};
use crate::patience::{EVENT_TIMEOUT, together, within};
use crate::protocol::connection::{connection_id, serial_of};
use crate::router::notices::Notice;
use crate::worker::mailbox::{Control, Listed, Wanted, Whom};

/// Entries of a page when no `limit` is named, and the largest `limit`.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// What an operator may say to those who are disconnected.
const REASON_BYTES_MAX: usize = 255;
/// A worker that takes longer is busier than it should ever be.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

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
pub fn channels(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let limit = limit(call)?;
    let prefix = call.query("prefix").unwrap_or_default();
    let after = call.query("cursor");
    let interest = &services.router.interest;
    let mut page = interest.page(&prefix, after.as_deref(), limit + 1);
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
    }
    let views = page.iter().map(|(key, subscribers)| View {
        channel_key: key.as_str(),
        subscribers: *subscribers,
    });
    Ok(reply::ok(&Answer {
        success: true,
        channels: views.collect(),
        next_cursor: page
            .last()
            .filter(|_| !is_last)
            .map(|(key, _)| key.as_str()),
    }))
}

/// `GET /api/connections`
pub async fn connections(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let limit = limit(call)?;
    let after = match call.query("cursor").filter(|cursor| !cursor.is_empty()) {
        None => 0,
        Some(cursor) => serial_of(&cursor, &services.node)
            .ok_or_else(|| ApiError::bad_request("invalid_cursor", "cursor is none of ours"))?,
    };
    let user = call.query("user").filter(|user| !user.is_empty());
    let wanted = Wanted {
        whom: user.map_or(Whom::Everybody, |user| Whom::User(user.into())),
        after,
        limit: limit + 1,
    };
    let pages = ask_workers(services, |reply| Control::List {
        wanted: wanted.clone(),
        reply,
    });
    let mut page: Vec<Listed> = pages.await?.into_iter().flatten().collect();
    page.sort_unstable();
    let is_last = page.len() <= limit;
    page.truncate(limit);
    let views: Vec<ConnectionView<'_>> = page
        .iter()
        .map(|listed| ConnectionView {
            connection_id: connection_id(&services.node, listed.serial),
            user_id: &listed.user_id,
            address: listed.address.to_string(),
            connected_at: rfc3339(listed.opened_at),
            transport: if listed.is_stream { "sse" } else { "websocket" },
            channels: listed.channels,
        })
        .collect();
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer<'a> {
        success: bool,
        connections: &'a [ConnectionView<'a>],
        next_cursor: Option<&'a str>,
    }
    Ok(reply::ok(&Answer {
        success: true,
        connections: &views,
        next_cursor: views
            .last()
            .filter(|_| !is_last)
            .map(|view| view.connection_id.as_str()),
    }))
}

/// `POST /api/disconnect`: on this node, which counts, and then on all others.
pub async fn disconnect(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: DisconnectBody = call.json()?;
    let reason = body.reason()?;
    let (user_id, named) = match (text(body.user_id), text(body.connection_id)) {
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
    let whom = match (&user_id, &named) {
        (Some(user_id), _) => Some(Whom::User(user_id.as_str().into())),
        (None, named) => named
            .as_ref()
            .and_then(|named| serial_of(named, &services.node))
            .map(Whom::Connection),
    };
    let mut disconnected = 0;
    let is_ours_alone = matches!(whom, Some(Whom::Connection(_)));
    if let Some(whom) = whom {
        let counts = ask_workers(services, |reply| Control::Disconnect {
            whom: whom.clone(),
            message: reason.clone(),
            reply,
        });
        disconnected = counts.await?.into_iter().sum();
    }
    if !is_ours_alone {
        let notice = Notice::Disconnect {
            from: services.node.to_string(),
            user_id,
            connection_id: named,
            reason: reason.as_deref().map(str::to_owned),
        };
        let notice = notice.encode();
        if notice.len() > NOTICE_BYTES_MAX {
            return Err(ApiError::bad_request("invalid_user", "userId is too long"));
        }
        within(EVENT_TIMEOUT, services.broker.announce(notice)).await?;
    }
    #[derive(Serialize)]
    struct Answer {
        success: bool,
        disconnected: usize,
    }
    Ok(reply::ok(&Answer {
        success: true,
        disconnected,
    }))
}

/// The answers of all workers that live.
async fn ask_workers<T: Send + 'static>(
    services: &Services,
    mut message: impl FnMut(oneshot::Sender<T>) -> Control,
) -> Result<Vec<T>, ApiError> {
    let mut answers = Vec::new();
    for mailbox in services.router.mailboxes() {
        let (tx, rx) = oneshot::channel();
        if mailbox.control(message(tx)).is_ok() {
            answers.push(rx);
        }
    }
    let answers = tokio::time::timeout(WORKER_TIMEOUT, together(answers.into_iter())).await;
    let answers = answers.map_err(|_| ApiError::internal("a worker does not answer"))?;
    // A worker that ended meanwhile has no connections.
    Ok(answers.into_iter().flatten().collect())
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView<'a> {
    connection_id: String,
    user_id: &'a str,
    address: String,
    connected_at: String,
    transport: &'static str,
    channels: usize,
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
