//! Notifications: every change goes to the store first, then as an event to the owner's sockets.
//!
//! Not for: who may do it (`http::identity`), or how lists are kept (`broker::Store`). Contract
//! section 3.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::broker::{
    Added, Broker, Changed, Error, NewNotification, Notification, NotificationPage,
    NotificationQuery, Publication, ReadMark, Retention, Store, traced,
};
use crate::clock;
use crate::config::Live;
use crate::event_log::{Data, EventLog, Kind};
use crate::metrics::Counters;
use crate::patience::{ANSWER_TIMEOUT, AT_ONCE, EVENT_TIMEOUT, together, within};
use crate::protocol::{ChannelKey, Event};
use crate::trace::{Context, Tracer};

/// The notifications of all users.
///
/// A method's `Ok` means that the change is durable. If the live event after it cannot be published,
/// that is counted and logged, not an error: the unread list repairs it. A full store passes it on
/// without keeping it.
pub struct Inbox {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    counters: Arc<Counters>,
    event_log: EventLog,
    config: Live,
    tracer: Arc<Tracer>,
}

impl Inbox {
    /// The inbox over this store, telling of changes through this broker.
    pub fn new(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        counters: Arc<Counters>,
        event_log: EventLog,
        config: Live,
        tracer: Arc<Tracer>,
    ) -> Self {
        Self {
            store,
            broker,
            counters,
            event_log,
            config,
            tracer,
        }
    }

    /// Adds a notification; with a key, at most once a day. The key is the caller's to scope.
    pub async fn add(
        &self,
        new: NewNotification,
        idempotency_key: Option<String>,
        trace: Option<Context>,
    ) -> Result<Added, Error> {
        let added = within(
            ANSWER_TIMEOUT,
            self.store.add_notification(new, idempotency_key),
        )
        .await?;
        if !added.repeated {
            self.counters.notifications.increment();
            let notification = &added.notification;
            self.tell(
                &notification.user_id,
                &Change::Notification {
                    user_id: &notification.user_id,
                    notification: View::of(notification),
                    unread_count: added.unread,
                },
                trace,
            )
            .await;
        }
        Ok(added)
    }

    /// A page of a user's notifications.
    pub async fn page(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Result<NotificationPage, Error> {
        within(ANSWER_TIMEOUT, self.store.notifications(user_id, query)).await
    }

    /// Marks some as read, or one as unread again.
    pub async fn mark(
        &self,
        user_id: &str,
        mark: ReadMark,
        trace: Option<Context>,
    ) -> Result<Changed, Error> {
        let to = !matches!(mark, ReadMark::One { is_read: false, .. });
        let all = matches!(mark, ReadMark::All);
        let changed = within(ANSWER_TIMEOUT, self.store.mark_notifications(user_id, mark)).await?;
        let read = |notification_id| Change::NotificationRead {
            user_id,
            notification_id,
            is_read: to,
            unread_count: changed.unread,
        };
        if all && changed.count > 0 {
            self.tell(user_id, &read(None), trace).await;
        }
        for ids in changed.ids.chunks(AT_ONCE) {
            let told = ids
                .iter()
                .map(async |id| self.tell(user_id, &read(Some(id)), trace).await);
            if together(told).await.contains(&false) {
                // The rest would only wait for the same.
                break;
            }
        }
        Ok(changed)
    }

    /// Deletes one.
    pub async fn delete(
        &self,
        user_id: &str,
        id: &str,
        trace: Option<Context>,
    ) -> Result<Changed, Error> {
        let answer = self.store.delete_notification(user_id, id);
        self.cleared(user_id, within(ANSWER_TIMEOUT, answer).await?, trace)
            .await
    }

    /// Deletes all read ones.
    pub async fn clear_read(
        &self,
        user_id: &str,
        trace: Option<Context>,
    ) -> Result<Changed, Error> {
        let answer = self.store.clear_read_notifications(user_id);
        self.cleared(user_id, within(ANSWER_TIMEOUT, answer).await?, trace)
            .await
    }

    async fn cleared(
        &self,
        user_id: &str,
        changed: Changed,
        trace: Option<Context>,
    ) -> Result<Changed, Error> {
        if changed.count > 0 {
            self.tell(
                user_id,
                &Change::NotificationsCleared {
                    user_id,
                    count: changed.count,
                    unread_count: changed.unread,
                },
                trace,
            )
            .await;
        }
        Ok(changed)
    }

    fn retention(&self) -> Option<Retention> {
        let config = self.config.current();
        let rule = config.channels.rule("notifications");
        rule.and_then(|rule| rule.history)
    }

    /// Whether it could be told.
    async fn tell(&self, user_id: &str, change: &Change<'_>, trace: Option<Context>) -> bool {
        let publication = Publication {
            channel: ChannelKey::notifications_of(user_id),
            event: change.event(),
            retention: self.retention(),
            idempotency_key: None,
            trace: None,
        };
        let passing = Publication {
            retention: None,
            ..publication.clone()
        };
        let publish = |publication| {
            let published = traced::publish(&*self.broker, &self.tracer, trace, publication);
            within(EVENT_TIMEOUT, published)
        };
        let published = match publish(publication).await {
            // Whoever is there hears of it all the same; for the others there is the unread list.
            Err(Error::Full) => publish(passing).await,
            published => published,
        };
        match published {
            Ok(_) => {
                self.counters.publications.increment("server");
                true
            }
            Err(error) => {
                self.counters.errors.increment();
                self.event_log.record(
                    Kind::Error,
                    &Data {
                        user_id: Some(user_id),
                        reason: Some("unavailable"),
                        message: Some("notification event"),
                        ..Data::default()
                    },
                );
                tracing::warn!(%error, user_id, "a change of notifications was stored but not told");
                false
            }
        }
    }
}

/// A notification as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    id: &'a str,
    user_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    message: &'a str,
    is_read: bool,
    metadata: Option<&'a RawValue>,
    #[serde(serialize_with = "as_rfc3339")]
    created_at: u64,
}

impl<'a> View<'a> {
    /// How this notification is shown.
    pub fn of(notification: &'a Notification) -> Self {
        Self {
            id: &notification.id,
            user_id: &notification.user_id,
            kind: &notification.kind,
            title: &notification.title,
            message: &notification.message,
            is_read: notification.is_read,
            metadata: notification.metadata.as_deref(),
            created_at: notification.created_at_ms,
        }
    }
}

fn as_rfc3339<S: Serializer>(unix_ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&clock::rfc3339(*unix_ms))
}

/// What a user's sockets are told. The three shapes of the contract.
#[derive(Debug, Serialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
enum Change<'a> {
    Notification {
        user_id: &'a str,
        notification: View<'a>,
        unread_count: u64,
    },
    NotificationRead {
        user_id: &'a str,
        /// `null`: all of them.
        notification_id: Option<&'a str>,
        /// Only said when it is not what the event's name says: marked as unread again.
        #[serde(skip_serializing_if = "is_true")]
        is_read: bool,
        unread_count: u64,
    },
    NotificationsCleared {
        user_id: &'a str,
        count: u64,
        unread_count: u64,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_true(value: &bool) -> bool {
    *value
}

impl Change<'_> {
    fn event(&self) -> Event {
        let json = serde_json::to_vec(self).expect("strings, numbers and kept JSON are JSON");
        Event::trusted(Bytes::from(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(change: &Change<'_>) -> Value {
        // What is told must be what a backend could have published.
        let text = String::from_utf8(change.event().as_bytes().to_vec()).unwrap();
        Event::parse(&text, 1 << 16).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn events_have_exactly_the_shapes_of_the_contract() {
        let metadata = r#"{"b": 1.50, "a":[1]}"#;
        let notification = Notification {
            id: "n1".into(),
            user_id: "u1".into(),
            kind: "NEW_SUBSCRIBER".into(),
            title: "\"Hi\"".into(),
            message: "m".into(),
            is_read: false,
            metadata: Some(RawValue::from_string(metadata.into()).unwrap()),
            created_at_ms: 1_795_406_706_789,
        };
        let change = Change::Notification {
            user_id: "u1",
            notification: View::of(&notification),
            unread_count: 3,
        };
        assert_eq!(
            told(&change),
            json!({"type": "notification", "userId": "u1", "unreadCount": 3, "notification": {
                "id": "n1", "userId": "u1", "type": "NEW_SUBSCRIBER", "title": "\"Hi\"",
                "message": "m", "isRead": false, "metadata": {"b": 1.5, "a": [1]},
                "createdAt": "2026-11-23T04:05:06.789Z"}})
        );
        // Metadata is kept to the byte.
        let text = change.event().as_bytes().clone();
        assert!(String::from_utf8_lossy(&text).contains(metadata));
        assert_eq!(
            told(&Change::NotificationRead {
                user_id: "u1",
                notification_id: Some("n1"),
                is_read: true,
                unread_count: 0
            }),
            json!({"type": "notification_read", "userId": "u1", "notificationId": "n1", "unreadCount": 0})
        );
        assert_eq!(
            told(&Change::NotificationsCleared {
                user_id: "u1",
                count: 2,
                unread_count: 1
            }),
            json!({"type": "notifications_cleared", "userId": "u1", "count": 2, "unreadCount": 1})
        );
    }
}
