//! `/api/user/notifications`: a user's own, and a backend's way to add some. Contract section 3.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Services;
use super::errors::ApiError;
use super::identity::{require_backend, require_user};
use super::reply::{self, Reply};
use super::request::{Call, id_text, scoped_key, text};
use crate::broker::{Changed, NewNotification, NotificationQuery, ReadMark};
use crate::event_log::{Data, Kind};
use crate::inbox::View;
use crate::protocol::{ChannelKey, depth};

/// Notifications of a page when the client names no `limit`.
const DEFAULT_PAGE: usize = 20;

/// The largest `limit`.
const MAX_PAGE: usize = 100;

/// Ids that one `PUT` may name: as many as a user has by default.
const MAX_IDS: usize = 1_000;

/// Hexadecimal digits of a cursor: the place in the order of a user's notifications, in either backend.
const CURSOR_DIGITS: usize = 16;

/// What the event has around the text of a notification: names of members, ids, times, counts.
const EVENT_FRAME_BYTES: usize = 512;

/// `GET`
pub async fn list(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    let query = page_query(
        call.query("unreadOnly"),
        call.query("limit"),
        call.query("cursor"),
    )?;
    let page = services.inbox.page(&user_id, query).await?;
    let views: Vec<View<'_>> = page.notifications.iter().map(View::of).collect();
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page<'a> {
        notifications: Vec<View<'a>>,
        unread_count: u64,
        next_cursor: Option<&'a str>,
    }
    Ok(reply::ok(&Page {
        notifications: views,
        unread_count: page.unread,
        next_cursor: page.next_cursor.as_deref(),
    }))
}

/// `POST`
pub async fn add(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let config = services.config();
    let limits = &config.limits;
    let new = call
        .json::<NewBody>()?
        .check(limits.channel_key_bytes, limits.event_bytes)?;
    let key = call
        .idempotency_key()?
        .map(|key| scoped_key("notification", &new.user_id, key));
    let added = services.inbox.add(new, key, call.trace).await?;
    let notification = &added.notification;
    if !added.repeated {
        services.event_log.record(
            Kind::Notification,
            &Data {
                user_id: Some(&notification.user_id),
                ip: Some(call.ip),
                id: Some(&notification.id),
                message_type: Some(&notification.kind),
                ..Data::default()
            },
        );
    }
    #[derive(serde::Serialize)]
    struct Added<'a> {
        success: bool,
        notification: View<'a>,
    }
    let status = if added.repeated {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let body = Added {
        success: true,
        notification: View::of(notification),
    };
    Ok(reply::replayed(reply::json(status, &body), added.repeated))
}

/// `PATCH`
pub async fn patch(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    let mark = call.json::<PatchBody>()?.mark()?;
    mark_as(services, call, &user_id, mark).await
}

/// `PUT`
pub async fn put(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    let mark = call.json::<PutBody>()?.mark()?;
    mark_as(services, call, &user_id, mark).await
}

/// `PUT /{id}/read`
pub async fn read_one(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    let id = call.id.clone().unwrap_or_default();
    mark_as(
        services,
        call,
        &user_id,
        ReadMark::One { id, is_read: true },
    )
    .await
}

/// The names under which a `DELETE` takes the one that it means, in the query and in the body.
const ONE: [&str; 2] = ["id", "notificationId"];

/// The names of more than one, which a `DELETE` does not take.
const MANY: [&str; 2] = ["ids", "notificationIds"];

/// `DELETE`, of one or of all that were read
pub async fn delete(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    if MANY.iter().any(|name| call.query(name).is_some()) {
        return Err(not_many());
    }
    // The body is looked at in any case: what it asks for in vain must be refused before anything is deleted.
    let in_body = delete_body(call)?;
    let in_query = ONE.iter().find_map(|name| call.query(name));
    let id = in_query.or(in_body);
    let changed = match id {
        // An empty id is a mistake of the caller's, not a wish to clear everything.
        Some(id) if id.is_empty() => {
            return Err(ApiError::bad_request(
                "missing_fields",
                "id must not be empty",
            ));
        }
        Some(id) => services.inbox.delete(&user_id, &id, call.trace).await?,
        None => services.inbox.clear_read(&user_id, call.trace).await?,
    };
    Ok(cleared(changed))
}

/// The id in a body, where the predecessor's browser client names the one it means; `{"clearAll":true}`
/// or no body: none.
fn delete_body(call: &Call) -> Result<Option<String>, ApiError> {
    if matches!(call.body.trim_ascii(), b"" | b"null") {
        return Ok(None);
    }
    let mut body: Map<String, Value> = call.json()?;
    if MANY.iter().any(|name| body.contains_key(*name)) {
        return Err(not_many());
    }
    // Without a text it is a mistake, `null` too, and not a wish to clear everything.
    let Some(id) = ONE.iter().find_map(|name| body.remove(*name)) else {
        return Ok(None);
    };
    text(Some(id)).map(Some).ok_or_else(|| {
        ApiError::bad_request(
            "invalid_body",
            "id or notificationId must be a non-empty string",
        )
    })
}

fn not_many() -> ApiError {
    ApiError::bad_request(
        "invalid_body",
        "DELETE takes one id at a time, or none for all that were read",
    )
}

/// `DELETE /clear`
pub async fn clear(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let user_id = require_user(services, call).await?;
    Ok(cleared(
        services.inbox.clear_read(&user_id, call.trace).await?,
    ))
}

async fn mark_as(
    services: &Services,
    call: &Call,
    user_id: &str,
    mark: ReadMark,
) -> Result<Reply, ApiError> {
    let one = matches!(mark, ReadMark::One { .. });
    let changed = services.inbox.mark(user_id, mark, call.trace).await?;
    if one && !changed.found {
        return Err(ApiError::not_found(
            "notification_not_found",
            "Notification not found",
        ));
    }
    Ok(reply::ok(
        &json!({"success": true, "unreadCount": changed.unread}),
    ))
}

fn cleared(changed: Changed) -> Reply {
    reply::ok(&json!({"success": true, "clearedCount": changed.count}))
}

fn page_query(
    unread_only: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
) -> Result<NotificationQuery, ApiError> {
    let unread_only = unread_only.map(|text| text.to_ascii_lowercase());
    let unread_only = match unread_only.as_deref() {
        None | Some("" | "false" | "0" | "no") => false,
        Some("true" | "1" | "yes") => true,
        Some(_) => {
            return Err(ApiError::bad_request(
                "invalid_unread_only",
                "unreadOnly must be true or false",
            ));
        }
    };
    let limit = match limit.as_deref() {
        None | Some("") => DEFAULT_PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit))
            .ok_or_else(|| {
                ApiError::bad_request("invalid_limit", format!("limit must be 1 to {MAX_PAGE}"))
            })?,
    };
    let cursor = cursor.filter(|cursor| !cursor.is_empty());
    if cursor.as_ref().is_some_and(|cursor| {
        cursor.len() != CURSOR_DIGITS || !cursor.bytes().all(|byte| byte.is_ascii_hexdigit())
    }) {
        return Err(ApiError::bad_request(
            "invalid_cursor",
            "cursor is not one of ours",
        ));
    }
    Ok(NotificationQuery {
        unread_only,
        limit,
        cursor: cursor.filter(|cursor| !cursor.is_empty()),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewBody {
    user_id: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    title: Option<Value>,
    message: Option<Value>,
    metadata: Option<Box<RawValue>>,
}

impl NewBody {
    /// A notification that fits into an event of `event_bytes`, of a user who can have a channel.
    fn check(self, key_bytes: usize, event_bytes: usize) -> Result<NewNotification, ApiError> {
        let user_id = id_text(self.user_id);
        let texts = [self.kind, self.title, self.message].map(text);
        let (Some(user_id), [Some(kind), Some(title), Some(message)]) = (user_id, texts) else {
            return Err(ApiError::bad_request(
                "missing_fields",
                "Missing required fields",
            ));
        };
        if ChannelKey::build("notifications", &user_id, key_bytes).is_err() {
            return Err(invalid_user_id());
        }
        if self
            .metadata
            .as_ref()
            .is_some_and(|json| depth::is_too_deep(json.get()))
        {
            return Err(ApiError::bad_request(
                "invalid_metadata",
                "metadata must be JSON, nested 100 deep at most",
            ));
        }
        // As JSON, where a control character takes six bytes.
        let written =
            |text: &str| serde_json::to_string(text).map_or(usize::MAX, |json| json.len());
        let bytes = [&user_id, &user_id, &kind, &title, &message]
            .into_iter()
            .map(|text| written(text))
            .chain(self.metadata.iter().map(|json| json.get().len()))
            .fold(EVENT_FRAME_BYTES, usize::saturating_add);
        if bytes > event_bytes {
            return Err(ApiError::event_too_large(event_bytes));
        }
        Ok(NewNotification {
            user_id,
            kind,
            title,
            message,
            metadata: self.metadata,
        })
    }
}

/// 400 for what cannot be the id of a user.
pub fn invalid_user_id() -> ApiError {
    ApiError::bad_request(
        "invalid_user_id",
        "The user id is too long or has control characters",
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PatchBody {
    notification_id: Option<Value>,
    is_read: Option<Value>,
    mark_all_as_read: Option<Value>,
}

impl PatchBody {
    fn mark(self) -> Result<ReadMark, ApiError> {
        if self.mark_all_as_read == Some(Value::Bool(true)) {
            return Ok(ReadMark::All);
        }
        let id = text(self.notification_id).ok_or_else(|| {
            ApiError::bad_request(
                "missing_fields",
                "notificationId or markAllAsRead is required",
            )
        })?;
        match self.is_read {
            None => Ok(ReadMark::One { id, is_read: true }),
            Some(Value::Bool(is_read)) => Ok(ReadMark::One { id, is_read }),
            Some(_) => Err(ApiError::bad_request(
                "invalid_body",
                "isRead must be true or false",
            )),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutBody {
    notification_ids: Option<Value>,
    mark_all_as_read: Option<Value>,
}

impl PutBody {
    fn mark(self) -> Result<ReadMark, ApiError> {
        if self.mark_all_as_read == Some(Value::Bool(true)) {
            return Ok(ReadMark::All);
        }
        let Some(Value::Array(ids)) = self.notification_ids else {
            return Err(ApiError::bad_request(
                "missing_fields",
                "notificationIds or markAllAsRead is required",
            ));
        };
        if ids.len() > MAX_IDS {
            return Err(ApiError::bad_request(
                "too_many_ids",
                format!("notificationIds may have {MAX_IDS} entries"),
            ));
        }
        let ids: Option<Vec<String>> = ids.into_iter().map(|id| text(Some(id))).collect();
        ids.map(ReadMark::Many)
            .ok_or_else(|| ApiError::bad_request("invalid_body", "notificationIds must be strings"))
    }
}

#[cfg(test)]
mod tests;
