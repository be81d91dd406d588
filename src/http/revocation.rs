//! Taking tokens back: by their owner, who logs out, and by a backend. Contract section 2.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Services;
use super::errors::ApiError;
use super::identity::{require_backend, require_token};
use super::refresh;
use super::reply::{self, Reply};
use super::request::{Call, id_text, text};
use crate::auth::claims::MAX_ID_BYTES;
use crate::broker::{Error, Revocation, Revoked};
use crate::clock::millis;
use crate::event_log::{Data, Kind};
use crate::patience::{ANSWER_TIMEOUT, EVENT_TIMEOUT, within};
use crate::router::notices::Notice;

/// How far the clock of a backend may be ahead of this one's.
const SKEW_MS: u64 = 60_000;
/// A number that is larger means milliseconds, not seconds: as seconds it is the year 5138.
const LARGEST_SECONDS: f64 = 100_000_000_000.0;

/// `POST /api/auth/logout`
pub async fn logout(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let refresh_token = match call.body.is_empty() {
        true => None,
        false => text(call.json::<LogoutBody>()?.refresh_token),
    };
    let bearer = require_token(services, call);
    let is_proven = match &refresh_token {
        Some(token) => refresh::end_of(services, call, token).await?,
        None => false,
    };
    let identity = match bearer {
        Ok(identity) => identity,
        // Who comes late has an access token that is over, and wants to be out all the same.
        Err(_) if is_proven => return Ok(reply::ok(&json!({"success": true}))),
        Err(refused) => return Err(refused),
    };
    let user_id = &*identity.user_id;
    if let Some(id) = identity.jti.as_deref() {
        let revocation = Revocation {
            revoked: Revoked::Token { id: id.to_owned() },
            keep_until_ms: identity.expires_at_ms,
        };
        take_back(services, call, revocation, Some(user_id), "logout").await?;
    }
    if let Some(id) = identity.family.as_deref()
        && !refresh::end(services, call, id, "logout").await?
    {
        let token_ttl = millis(services.config().auth.token_ttl.longest());
        let revocation = Revocation {
            revoked: Revoked::Family { id: id.to_owned() },
            keep_until_ms: services.clock.unix_ms().saturating_add(token_ttl),
        };
        take_back(services, call, revocation, Some(user_id), "logout").await?;
    }
    Ok(reply::ok(&json!({"success": true})))
}

/// `POST /api/auth/revoke`
pub async fn revoke(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    require_backend(services, call)?;
    let body: RevokeBody = call.json()?;
    let now_ms = services.clock.unix_ms();
    let before_ms = body.before_ms(now_ms)?;
    let auth = &services.config().auth;
    let keep_until_ms = now_ms.saturating_add(millis(auth.revocation_ttl));
    let (user_id, revoked, keep_until_ms) =
        match (text(body.jti), id_text(body.user_id), text(body.family)) {
            (Some(id), None, None) => (None, Revoked::Token { id }, keep_until_ms),
            (None, None, Some(id)) => (None, Revoked::Family { id }, keep_until_ms),
            (None, Some(id), None) => {
                // Sign-ins that are refreshed again and again are among them.
                let longest = auth.revocation_ttl.max(auth.refresh_ttl_max);
                let keep_until_ms = before_ms.max(now_ms).saturating_add(millis(longest));
                let revoked = Revoked::User {
                    id: id.clone(),
                    before_ms,
                };
                (Some(id), revoked, keep_until_ms)
            }
            _ => {
                return Err(ApiError::bad_request(
                    "missing_fields",
                    "One of jti, userId and family is required",
                ));
            }
        };
    let (Revoked::Token { id } | Revoked::Family { id } | Revoked::User { id, .. }) = &revoked;
    // A whole token is none of these, and would be written down.
    if id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) || id.starts_with("eyJ") {
        return Err(ApiError::bad_request(
            "invalid_id",
            format!(
                "An id has at most {MAX_ID_BYTES} bytes, no control characters, and is no token"
            ),
        ));
    }
    let is_done = match &revoked {
        Revoked::Family { id } => refresh::end(services, call, id, "backend").await?,
        Revoked::Token { .. } | Revoked::User { .. } => false,
    };
    if !is_done {
        let revocation = Revocation {
            revoked,
            keep_until_ms,
        };
        take_back(services, call, revocation, user_id.as_deref(), "backend").await?;
    }
    if services.clock.unix_ms() < before_ms {
        // What is issued after this answer is not among those that were issued before.
        tokio::time::sleep(Duration::from_millis(
            before_ms.saturating_sub(now_ms).min(2),
        ))
        .await;
    }
    Ok(reply::ok(&json!({"success": true})))
}

/// Takes tokens back for good: first in the store, then here, then on all nodes.
pub async fn take_back(
    services: &Services,
    call: &Call,
    revocation: Revocation,
    user_id: Option<&str>,
    reason: &'static str,
) -> Result<(), Error> {
    within(ANSWER_TIMEOUT, services.store.revoke(revocation.clone())).await?;
    services.router.revoke(&revocation);
    services.counters.tokens_revoked.increment();
    let whence = call.whence();
    let (id, family) = match &revocation.revoked {
        Revoked::Token { id } => (Some(id.as_str()), None),
        Revoked::Family { id } => (None, Some(id.as_str())),
        Revoked::User { .. } => (None, None),
    };
    services.event_log.record(
        Kind::TokenRevoked,
        &Data {
            user_id,
            ip: Some(whence.ip),
            user_agent: whence.user_agent,
            id,
            family,
            reason: Some(reason),
            ..Data::default()
        },
    );
    let notice = Notice::from(&revocation).encode();
    if let Err(error) = within(EVENT_TIMEOUT, services.broker.announce(notice)).await {
        // Other nodes read it from the store when their link is back.
        services.counters.errors.increment();
        tracing::warn!(%error, "a revocation could not be announced");
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogoutBody {
    refresh_token: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevokeBody {
    jti: Option<Value>,
    user_id: Option<Value>,
    family: Option<Value>,
    before: Option<Value>,
}

impl RevokeBody {
    /// Tokens of before this moment are meant; without a word, all that there are.
    fn before_ms(&self, now_ms: u64) -> Result<u64, ApiError> {
        let moment = match &self.before {
            None | Some(Value::Null) => Some(now_ms + 1),
            Some(Value::Number(number)) => {
                number
                    .as_f64()
                    .filter(|number| *number >= 0.0)
                    .map(|number| match number {
                        seconds if seconds < LARGEST_SECONDS => (seconds * 1000.0).round() as u64,
                        ms => ms.round() as u64,
                    })
            }
            Some(Value::String(text)) => OffsetDateTime::parse(text, &Rfc3339)
                .ok()
                .and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()),
            Some(_) => None,
        };
        moment
            .filter(|moment| *moment <= now_ms.saturating_add(SKEW_MS))
            .ok_or_else(|| {
                ApiError::bad_request(
                    "invalid_before",
                    "before must be a time that is not ahead: RFC 3339, or seconds or milliseconds since 1970",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_may_be_written_in_three_ways() {
        const NOW_MS: u64 = 1_795_406_706_789;
        let read = |before: Value| {
            let body: RevokeBody = serde_json::from_value(json!({"before": before})).unwrap();
            body.before_ms(NOW_MS).ok()
        };
        assert_eq!(read(json!("2026-11-23T04:05:06.789Z")), Some(NOW_MS));
        assert_eq!(read(json!("2026-11-23T05:05:06.789+01:00")), Some(NOW_MS));
        assert_eq!(read(json!(1_795_406_706)), Some(1_795_406_706_000));
        assert_eq!(read(json!(NOW_MS)), Some(NOW_MS));
        // As `Date.now() / 1000` has it.
        assert_eq!(read(json!(1_795_406_706.789)), Some(NOW_MS));
        assert_eq!(read(json!(-1.5)), None);
        assert_eq!(read(json!(0)), Some(0));
        assert_eq!(read(json!(null)), Some(NOW_MS + 1));
        assert_eq!(read(json!(NOW_MS + SKEW_MS)), Some(NOW_MS + SKEW_MS));
        for wrong in [
            json!(NOW_MS + SKEW_MS + 1),
            json!(-1),
            json!("yesterday"),
            json!("2026-11-23"),
            json!("1969-12-31T23:59:59Z"),
            json!(u64::MAX),
            json!([]),
            json!(true),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
