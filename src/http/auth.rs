//! `/api/auth/wallet`: a wallet becomes a token; a token is verified. Contract section 2.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::errors::ApiError;
use super::identity::{self, invalid_wallet, user_not_found};
use super::reply::{self, Reply};
use super::request::{Call, text};
use crate::auth::{TokenSubject, wallet};
use crate::broker::User;
use crate::clock::rfc3339;
use crate::config::WalletProof;
use crate::event_log::{Data, Kind};
use crate::patience::{ANSWER_TIMEOUT, within};

#[derive(Deserialize)]
struct SignIn {
    wallet: Option<Value>,
}

/// `POST`
pub async fn sign_in(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    services
        .admission
        .sign_in(call.ip)
        .map_err(ApiError::rate_limited)?;
    let address = text(call.json::<SignIn>()?.wallet)
        .ok_or_else(|| ApiError::bad_request("wallet_required", "Wallet address is required"))?;
    if !wallet::is_address(&address) {
        return Err(invalid_wallet());
    }
    if services.config().auth.wallet_proof == WalletProof::Signature {
        identity::note_failure(services, call.whence(), "no_signature");
        let _ = services.admission.sign_in_failed(call.ip, None);
        return Err(ApiError::unauthorized(
            "signature_required",
            "Wallet signature required",
        ));
    }
    let user = account(services, &address).await?;
    let issued = services.authority().issue(
        &TokenSubject {
            user_id: user.id.clone(),
            wallet: Some(address.clone()),
            nickname: user.nickname.clone(),
            ..TokenSubject::default()
        },
        services.clock.unix_ms(),
    );
    services.counters.tokens_issued.increment();
    services.event_log.record(
        Kind::TokenIssued,
        &Data {
            user_id: Some(&user.id),
            ip: Some(call.ip),
            user_agent: call.whence().user_agent,
            wallet: Some(&address),
            id: Some(&issued.jti),
            ..Data::default()
        },
    );
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "success": true,
            "token": issued.token,
            "expiresIn": humantime::format_duration(issued.expires_in).to_string(),
            "expiresAt": rfc3339(issued.expires_at_ms),
            "user": {"id": user.id, "wallet": address, "nickname": user.nickname},
        }),
    ))
}

/// `GET`
pub fn verify(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    let identity = identity::require_token(services, call)?;
    Ok(reply::ok(&json!({
        "valid": true,
        "userId": &*identity.user_id,
        "wallet": identity.wallet.as_deref(),
        "expiresAt": rfc3339(identity.expires_at_ms),
    })))
}

/// The user of this wallet, made now if that is allowed.
async fn account(services: &Services, address: &str) -> Result<User, ApiError> {
    if services.config().auth.auto_provision {
        let made = services.store.provision_user(address);
        return Ok(within(ANSWER_TIMEOUT, made).await?);
    }
    within(ANSWER_TIMEOUT, services.store.user_by_wallet(address))
        .await?
        .ok_or_else(user_not_found)
}
