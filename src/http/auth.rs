//! `/api/auth/wallet`: a wallet becomes a token; a token is verified. Contract section 2.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::challenge::{Proof, prove};
use super::errors::ApiError;
use super::identity::{self, invalid_wallet, user_not_found};
use super::refresh;
use super::reply::{self, Reply};
use super::request::{Call, text};
use crate::auth::TokenSubject;
use crate::auth::refresh::Family;
use crate::auth::siws::Output;
use crate::auth::wallet::Wallet;
use crate::broker::User;
use crate::clock::{self, rfc3339};
use crate::config::WalletProof;
use crate::event_log::{Data, Kind};
use crate::patience::{ANSWER_TIMEOUT, within};

#[derive(Deserialize)]
struct SignIn {
    wallet: Option<Value>,
    message: Option<Value>,
    signature: Option<Value>,
    output: Option<Value>,
}

/// `POST`
pub async fn sign_in(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    spend(services, call).await?;
    let body: SignIn = call.json()?;
    let output = body.output.as_ref().map(Output::read);
    let signer = output.as_ref().and_then(|it| it.as_ref()?.address.clone());
    let named = body.wallet.or(signer.clone().map(Value::String));
    let wallet = named_wallet(named)?;
    if services.config().auth.wallet_proof == WalletProof::Signature {
        let is_other = signer.is_some_and(|signer| Wallet::parse(&signer) != Some(wallet));
        let proof = match output {
            Some(None) => Proof::Unreadable,
            Some(Some(_)) if is_other => Proof::Unreadable,
            output => Proof::read(body.message, body.signature, output.flatten()),
        };
        prove(services, call, &wallet, proof).await?;
    }
    let address = wallet.to_string();
    let user = account(services, &address).await?;
    let family = match refresh::begin(services, &user, &address).await {
        Ok(begun) => Some(begun),
        // Who is known may come in for a while all the same.
        Err(error) if error.code == "store_full" => None,
        Err(error) => return Err(error),
    };
    Ok(grant(
        services,
        call,
        Grant {
            user: &user,
            wallet: Some(address),
            family: family
                .as_ref()
                .map(|(family, token)| (family, token.clone())),
            reason: "sign_in",
        },
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

/// What somebody gets who has signed in, now or a while ago.
pub struct Grant<'a> {
    /// Who.
    pub user: &'a User,
    /// Their address.
    pub wallet: Option<String>,
    /// What the tokens go back to, and the refresh token; none if it could not be kept.
    pub family: Option<(&'a Family, String)>,
    /// For the event log.
    pub reason: &'static str,
}

/// An access token, and the answer with both.
pub fn grant(services: &Services, call: &Call, grant: Grant<'_>) -> Reply {
    let Grant {
        user,
        wallet,
        family,
        reason,
    } = grant;
    let (family, refresh_token) = family.unzip();
    let issued = services.authority().issue(
        &TokenSubject {
            user_id: user.id.clone(),
            wallet: wallet.clone(),
            nickname: user.nickname.clone(),
            family: family.map(|family| family.id.clone()),
            ..TokenSubject::default()
        },
        services.clock.unix_ms(),
    );
    services.counters.tokens_issued.increment();
    let whence = call.whence();
    services.event_log.record(
        Kind::TokenIssued,
        &Data {
            user_id: Some(&user.id),
            ip: Some(whence.ip),
            user_agent: whence.user_agent,
            wallet: wallet.as_deref(),
            id: Some(&issued.jti),
            family: family.map(|family| &*family.id),
            reason: Some(reason),
            ..Data::default()
        },
    );
    reply::json(
        StatusCode::OK,
        &json!({
            "success": true,
            "token": issued.token,
            "expiresIn": clock::in_one_unit(issued.expires_in),
            "expiresAt": rfc3339(issued.expires_at_ms),
            "refreshToken": refresh_token,
            "refreshExpiresAt": family.map(|family| rfc3339(family.expires_ms())),
            "user": {"id": user.id, "wallet": wallet, "nickname": user.nickname},
        }),
    )
}

/// The budget of an address for everything that has to do with signing in.
///
/// # Errors
/// 429, and the store's.
pub async fn spend(services: &Services, call: &Call) -> Result<(), ApiError> {
    Ok(services.admission.sign_in(call.ip).await?)
}

/// The wallet in a member of a body.
pub fn named_wallet(member: Option<Value>) -> Result<Wallet, ApiError> {
    let address = text(member)
        .ok_or_else(|| ApiError::bad_request("wallet_required", "Wallet address is required"))?;
    Wallet::parse(&address).ok_or_else(invalid_wallet)
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
