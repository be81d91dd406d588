//! Refresh tokens: given with a sign-in, exchanged for the next, ended with the family. Contract section 2.
//!
//! Not for: what becomes of one that is presented (`auth::refresh` decides).

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::Services;
use super::auth::{self, Grant};
use super::errors::ApiError;
use super::identity::note_failure;
use super::reply::Reply;
use super::request::{Call, text};
use super::revocation::take_back;
use crate::auth::refresh::{Family, Outcome, Policy, Presented, Refused};
use crate::auth::trial::Event;
use crate::broker::{Error, Revocation, Revoked, Stored, User};
use crate::patience::{ANSWER_TIMEOUT, within};

/// Where families are kept.
const SPACE: &str = "refresh";
/// How often two that change the same family at once are let try.
const TRIES: usize = 5;
/// How long it is still known that a refresh token has expired.
const LATE_MS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefreshBody {
    refresh_token: Option<Value>,
}

/// A family that begins, and its first refresh token.
///
/// # Errors
/// The store's.
pub async fn begin(
    services: &Services,
    user: &User,
    wallet: &str,
) -> Result<(Family, String), ApiError> {
    let names = random_name().zip(random_name());
    let names = names.ok_or_else(|| ApiError::internal("no random bytes for a refresh token"))?;
    let (config, now_ms) = (services.config(), services.clock.unix_ms());
    let (family, token) = Family::begin(
        services.authority().refresh_key(),
        names,
        (user.id.clone(), Some(wallet.to_owned())),
        Policy::of(&config.auth),
        now_ms,
    );
    if is_kept(services, &family, None, now_ms).await? {
        Ok((family, token))
    } else {
        Err(ApiError::internal("a random name was given twice"))
    }
}

/// `POST /api/auth/refresh`
pub async fn refresh(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    auth::spend(services, call).await?;
    let token = text(call.json::<RefreshBody>()?.refresh_token).ok_or_else(|| {
        ApiError::bad_request("refresh_token_required", "Refresh token is required")
    })?;
    let Some(presented) = Presented::parse(&token) else {
        return Err(refuse(services, call, Refused::Invalid).await);
    };
    for _ in 0..TRIES {
        let Some((family, revision)) = find(services, presented.family).await? else {
            return Err(refuse(services, call, Refused::Invalid).await);
        };
        let (config, now_ms) = (services.config(), services.clock.unix_ms());
        let revocations = &services.router.revocations;
        if revocations.cover_family(&family.id)
            || revocations.cover_user(&family.user_id, family.began_ms)
        {
            return Err(refuse(services, call, Refused::Revoked).await);
        }
        let authority = services.authority();
        let policy = Policy::of(&config.auth);
        match family.present(presented, authority.refresh_key(), policy, now_ms) {
            Outcome::Refused(why) => return Err(refuse(services, call, why).await),
            Outcome::Again(successor) => {
                return grant(services, call, &family, successor, "refresh_again").await;
            }
            Outcome::Rotated(next, successor) => {
                if is_kept(services, &next, Some(revision), now_ms).await? {
                    return grant(services, call, &next, successor, "refresh").await;
                }
            }
            Outcome::Reused(revoked) => {
                if is_kept(services, &revoked, Some(revision), now_ms).await? {
                    note_failure(services, call.whence(), "refresh_reused");
                    take_back_family(services, call, &revoked, "refresh_reused").await?;
                    return Err(ApiError::unauthorized(
                        "refresh_token_reused",
                        "Refresh token already used",
                    ));
                }
            }
        }
    }
    Err(Error::Overloaded.into())
}

/// Ends a family: its refresh tokens, its access tokens, their sockets. `false`: there is none of this
/// name.
///
/// # Errors
/// The store's.
pub async fn end(
    services: &Services,
    call: &Call,
    id: &str,
    reason: &'static str,
) -> Result<bool, ApiError> {
    for _ in 0..TRIES {
        let Some((family, revision)) = find(services, id).await? else {
            return Ok(false);
        };
        let now_ms = services.clock.unix_ms();
        if family.is_revoked || is_kept(services, &family.revoked(), Some(revision), now_ms).await?
        {
            take_back_family(services, call, &family, reason).await?;
            return Ok(true);
        }
    }
    Err(Error::Overloaded.into())
}

/// The same of the family that a refresh token proves to be of, whether it had its turn or not; nothing
/// if it proves nothing (RFC 7009 section 2.2).
///
/// # Errors
/// The store's.
pub async fn end_of(services: &Services, call: &Call, token: &str) -> Result<bool, ApiError> {
    let Some(presented) = Presented::parse(token) else {
        return Ok(false);
    };
    let Some((family, _)) = find(services, presented.family).await? else {
        return Ok(false);
    };
    let (config, now_ms) = (services.config(), services.clock.unix_ms());
    let authority = services.authority();
    let policy = Policy::of(&config.auth);
    match family.present(presented, authority.refresh_key(), policy, now_ms) {
        Outcome::Refused(_) => Ok(false),
        _ => end(services, call, &family.id, "logout").await,
    }
}

/// Takes back what was given for a family: as long as the last of it lives.
async fn take_back_family(
    services: &Services,
    call: &Call,
    family: &Family,
    reason: &'static str,
) -> Result<(), Error> {
    let revocation = Revocation {
        revoked: Revoked::Family {
            id: family.id.clone(),
        },
        keep_until_ms: family.access_until_ms.saturating_add(1_000),
    };
    take_back(services, call, revocation, Some(&family.user_id), reason).await
}

/// A token for the family's user, as they are called now.
async fn grant(
    services: &Services,
    call: &Call,
    family: &Family,
    refresh_token: String,
    reason: &'static str,
) -> Result<Reply, ApiError> {
    let user = within(ANSWER_TIMEOUT, services.store.user(&family.user_id)).await?;
    let user = user.ok_or_else(super::identity::user_not_found)?;
    let authority = services.authority();
    let (_, variant) = authority.trial().life_for(&user.id);
    authority.trial().note(variant, Event::Refresh);
    // It may have become somebody else's since.
    let wallet = user.wallet.clone();
    Ok(auth::grant(
        services,
        call,
        Grant {
            user: &user,
            wallet,
            family: Some((family, refresh_token)),
            reason,
        },
    ))
}

async fn find(services: &Services, id: &str) -> Result<Option<(Family, u64)>, ApiError> {
    let stored = within(ANSWER_TIMEOUT, services.store.get(SPACE, id)).await?;
    stored
        .map(|Stored { value, revision }| {
            let family = serde_json::from_slice(&value)
                .map_err(|_| ApiError::internal("the record of a sign-in cannot be read"))?;
            Ok((family, revision))
        })
        .transpose()
}

/// Keeps a family for as long as it may be asked for; `false`: somebody else has changed it.
async fn is_kept(
    services: &Services,
    family: &Family,
    expected: Option<u64>,
    now_ms: u64,
) -> Result<bool, Error> {
    let value = serde_json::to_vec(family).expect("strings and integers are always JSON");
    let ttl_ms = family
        .expires_ms()
        .saturating_sub(now_ms)
        .saturating_add(LATE_MS);
    let ttl = Duration::from_millis(ttl_ms);
    let kept =
        services
            .store
            .compare_and_set(SPACE, &family.id, expected, Bytes::from(value), Some(ttl));
    within(ANSWER_TIMEOUT, kept).await
}

async fn refuse(services: &Services, call: &Call, why: Refused) -> ApiError {
    let (check, code, told) = match why {
        Refused::Invalid => (
            "refresh_invalid",
            "invalid_refresh_token",
            "Invalid refresh token",
        ),
        Refused::Expired => (
            "refresh_expired",
            "refresh_token_expired",
            "Refresh token expired",
        ),
        Refused::Revoked => (
            "refresh_revoked",
            "refresh_token_revoked",
            "Refresh token revoked",
        ),
    };
    note_failure(services, call.whence(), check);
    if why == Refused::Invalid {
        // Whoever guesses slows down.
        let _ = services.admission.sign_in_failed(call.ip, None).await;
    }
    ApiError::unauthorized(code, told)
}

/// 16 random bytes as letters and digits.
fn random_name() -> Option<String> {
    let mut random = [0u8; 16];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    Some(bs58::encode(random).into_string())
}
