//! Carries out what sessions ask of the broker, the store and the token checker.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::connection::CallInFlight;
use super::replay;
use crate::access_backend::Question;
use crate::auth::trial::Event;
use crate::broker::{Error, NotificationQuery, Publication, traced};
use crate::event_log::{Data, Kind};
use crate::http::Services;
use crate::inbox;
use crate::limits::{CALL_TIMEOUT_MS, QUEUE_SHARE};
use crate::protocol::connection::connection_id;
use crate::protocol::history::Entry;
use crate::protocol::{ChannelKey, Position};
use crate::session::{Answer, Call, Identity, Unread};
use crate::trace::Role;
use crate::ws::frame::event_text;

/// Unread notifications that come with a subscription to them. Contract section 4.
const UNREAD_MAX: usize = 20;

/// About what an event has around it when it is sent: `_meta`, a frame's header, its place in a queue.
const EVENT_FRAME_BYTES: usize = 150;

/// Whose call it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub identity: Arc<Identity>,
    /// The number in the connection's name.
    pub serial: u64,
}

/// Begins a call. [`Call::Standing`] is the worker's own to answer.
pub fn begin(call: Call, caller: Caller, services: &Arc<Services>) -> CallInFlight {
    let services = services.clone();
    let operation = operation(&call);
    Box::pin(async move {
        let limit = Duration::from_millis(CALL_TIMEOUT_MS);
        match tokio::time::timeout(limit, carry_out(call, &caller, &services)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                if !matches!(error, Error::Full) {
                    tracing::warn!(%error, operation, "a call for a client failed");
                    note_error(&services, operation, code(&error));
                }
                Answer::Failed { code: code(&error) }
            }
            Err(_) => {
                tracing::warn!(operation, "a call for a client took too long");
                note_error(&services, operation, "unavailable");
                Answer::Failed {
                    code: "unavailable",
                }
            }
        }
    })
}

/// Counts a fault of the server's and writes it down.
fn note_error(services: &Services, operation: &str, code: &str) {
    services.counters.errors.increment();
    services.event_log.record(
        Kind::Error,
        &Data {
            reason: Some(code),
            message: Some(operation),
            ..Data::default()
        },
    );
}

const fn operation(call: &Call) -> &'static str {
    match call {
        Call::Subscribe { .. } | Call::Standing { .. } | Call::Unread { .. } => "subscribe",
        Call::Publish { .. } => "publish",
        Call::History { .. } => "history",
        Call::Presence { .. } => "presence",
        Call::Authorize { .. } => "authorize",
        Call::Verify { .. } => "refresh",
    }
}

async fn carry_out(call: Call, caller: &Caller, services: &Services) -> Result<Answer, Error> {
    let answer_bytes = services.config().limits.queue_bytes / QUEUE_SHARE;
    match call {
        Call::Subscribe {
            channel,
            history,
            recover,
            unread_of,
        } => {
            services.broker.subscribe(&channel).await?;
            let user_id = &caller.identity.user_id;
            services.presence.heard(&channel, user_id);
            let (position, missed) = match (history, recover) {
                (false, _) => (None, None),
                (true, None) => (Some(services.broker.position(&channel).await?), None),
                (true, Some(since)) => {
                    let broker = &*services.broker;
                    let recovery = replay::page(broker, &channel, &since, answer_bytes).await?;
                    (Some(recovery.position), Some(recovery.missed))
                }
            };
            // Who is acknowledged finds itself among those who are there.
            services.presence.settled(&channel, user_id).await;
            let unread = match unread_of {
                Some(user_id) => unread(&user_id, answer_bytes, services).await,
                None => None,
            };
            Ok(Answer::Subscribed {
                position,
                missed,
                unread,
            })
        }
        Call::Standing { .. } => Ok(Answer::Failed { code: "internal" }),
        Call::Unread { user_id } => Ok(Answer::Unread(
            unread(&user_id, answer_bytes, services).await,
        )),
        Call::Publish {
            channel,
            event,
            retention,
        } => {
            let publication = Publication {
                channel,
                event,
                retention,
                idempotency_key: None,
                trace: None,
            };
            let sampling = services.config().sampling();
            let span = services.tracer.request(sampling, None, Role::Producer);
            let published = traced::publish_as(&*services.broker, span, publication).await?;
            services.counters.publications.increment("client");
            Ok(Answer::Published {
                position: published.position,
            })
        }
        Call::History {
            channel,
            before,
            limit,
        } => {
            let (position, entries) = services.broker.history(&channel, before, limit).await?;
            let fitting = fitting(&entries, &channel, answer_bytes)
                .max(1)
                .min(entries.len());
            let newest = &entries[entries.len() - fitting..];
            let events = raw_events(&channel, &position, newest);
            Ok(Answer::History { position, events })
        }
        Call::Presence { channel } => {
            let present = services.presence.list(&channel).await?;
            Ok(Answer::Presence {
                users: present.users,
                count: present.count,
            })
        }
        Call::Authorize { channel, action } => {
            let Some(backend) = services.access_backend() else {
                return Ok(Answer::Authorized(false));
            };
            let connection_id = connection_id(&services.node, caller.serial);
            let question = Question::new(&caller.identity, channel, action);
            Ok(Answer::Authorized(
                backend.allows(question, connection_id).await,
            ))
        }
        Call::Verify { token } => {
            let authority = services.authority();
            authority.learn(token.as_bytes()).await;
            let verified = services.identify(&token);
            if let Ok(newer) = &verified
                && newer.user_id == caller.identity.user_id
            {
                let variant = newer.variant.as_deref();
                authority.trial().note(variant, Event::Refresh);
            }
            Ok(Answer::Verified(
                verified.map(Arc::new).map_err(|refusal| refusal.check()),
            ))
        }
    }
}

/// The unread list is a courtesy: without it the subscription still stands.
async fn unread(user_id: &str, answer_bytes: usize, services: &Services) -> Option<Unread> {
    let query = NotificationQuery {
        unread_only: true,
        limit: UNREAD_MAX,
        cursor: None,
    };
    let page = match services.inbox.page(user_id, query).await {
        Ok(page) => page,
        Err(error) => {
            tracing::warn!(%error, "the unread notifications could not be read");
            note_error(services, "unread notifications", code(&error));
            return None;
        }
    };
    let mut bytes = 0;
    let notifications = page
        .notifications
        .iter()
        .filter_map(|notification| {
            serde_json::value::to_raw_value(&inbox::View::of(notification)).ok()
        })
        .take_while(|notification| {
            bytes += notification.get().len();
            bytes <= answer_bytes
        })
        .collect::<Vec<_>>();
    (!notifications.is_empty()).then_some(Unread {
        notifications,
        count: page.unread,
    })
}

/// What an entry takes when it is sent.
pub(super) fn entry_bytes(entry: &Entry, key: &ChannelKey) -> usize {
    EVENT_FRAME_BYTES + key.as_str().len() + entry.event.as_bytes().len()
}

/// How many of the newest entries are sent with at most so many bytes.
fn fitting(entries: &[Entry], key: &ChannelKey, answer_bytes: usize) -> usize {
    let mut bytes = 0usize;
    let newest = entries.iter().rev().take_while(|entry| {
        bytes += entry_bytes(entry, key);
        bytes <= answer_bytes
    });
    newest.count()
}

fn raw_events(key: &ChannelKey, position: &Position, entries: &[Entry]) -> Vec<Box<RawValue>> {
    entries
        .iter()
        .filter_map(|entry| {
            let at = Position {
                epoch: position.epoch.clone(),
                offset: entry.offset,
            };
            RawValue::from_string(event_text(key, &entry.event, Some(&at))).ok()
        })
        .collect()
}

const fn code(error: &Error) -> &'static str {
    match error {
        Error::Unavailable | Error::Closed => "unavailable",
        Error::Overloaded => "overloaded",
        Error::Full => "store_full",
        Error::Storage(_) => "internal",
    }
}
