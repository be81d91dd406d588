//! Proof of a wallet: a challenge is given, kept by its nonce, and its signature checked. Contract
//! section 2.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HOST;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Services;
use super::auth::{named_wallet, spend};
use super::errors::ApiError;
use super::identity::note_failure;
use super::reply::{self, Reply};
use super::request::{Call, text};
use crate::auth::challenge::{self, CHALLENGE_TTL, Challenge, Scene};
use crate::auth::siws::{Output, Signature};
use crate::auth::wallet::Wallet;
use crate::auth::{siwe, siws};
use crate::config::Config;
use crate::patience::{ANSWER_TIMEOUT, within};

/// Where nonces are kept.
const SPACE: &str = "challenge";

#[derive(Deserialize)]
struct ChallengeBody {
    wallet: Option<Value>,
}

/// `POST /api/auth/challenge`
pub async fn challenge(services: &Services, call: &Call) -> Result<Reply, ApiError> {
    spend(services, call).await?;
    let wallet = named_wallet(call.json::<ChallengeBody>()?.wallet)?;
    let config = services.config();
    let (domain, uri) = place(&config, call)?;
    let scene = Scene {
        domain: &domain,
        uri: &uri,
        statement: &config.auth.statement,
        solana_chain: config.auth.solana_chain,
        ethereum_chain: config.auth.ethereum_chain,
    };
    let challenge = Challenge::new(&wallet, scene, services.clock.unix_ms())
        .ok_or_else(|| ApiError::internal("no random bytes for a nonce"))?;
    let message = challenge.message();
    let kept = Bytes::copy_from_slice(&challenge::fingerprint(&message));
    let keeping = services
        .store
        .set(SPACE, &challenge.nonce, kept, Some(CHALLENGE_TTL));
    within(ANSWER_TIMEOUT, keeping).await?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "message": message,
            "nonce": challenge.nonce,
            "expiresAt": challenge.expiration_time,
            "input": challenge,
        }),
    ))
}

/// What a client shows for its wallet.
pub enum Proof {
    /// Nothing.
    None,
    /// Something that cannot be read.
    Unreadable,
    /// A challenge, signed.
    Signed {
        /// The text that was signed.
        message: String,
        /// As Solana's wallets write it.
        ed25519: Signature,
        /// As it came, if it came as text.
        text: Option<String>,
    },
}

impl Proof {
    /// Of `message` and `signature`, or else of the output of `solana:signIn`.
    pub fn read(message: Option<Value>, signature: Option<Value>, output: Option<Output>) -> Self {
        match (text(message), text(signature), output) {
            (Some(message), Some(signature), None) => Self::Signed {
                message,
                ed25519: Signature::read(&signature),
                text: Some(signature),
            },
            (None, None, Some(output)) => Self::Signed {
                message: output.message,
                ed25519: output.signature,
                text: None,
            },
            (_, _, None) => Self::None,
            (_, _, Some(_)) => Self::Unreadable,
        }
    }
}

/// Whether a challenge that was given here was signed by this wallet. It is used up then.
///
/// # Errors
/// 401 with what is wrong, and the store's.
pub async fn prove(
    services: &Services,
    call: &Call,
    wallet: &Wallet,
    proof: Proof,
) -> Result<(), ApiError> {
    let address = wallet.to_string();
    let refused = async |check: &'static str, code: &'static str, told: &'static str| {
        note_failure(services, call.whence(), check);
        let tried = (check != "no_signature").then_some(&*address);
        services.admission.sign_in_failed(call.ip, tried).await?;
        Err(ApiError::unauthorized(code, told))
    };
    let invalid = || refused("wallet_signature", "invalid_signature", "Invalid signature");
    let over = || {
        refused(
            "challenge",
            "challenge_expired",
            "Challenge expired or already used",
        )
    };
    let (message, ed25519, signature) = match proof {
        Proof::None => {
            return refused(
                "no_signature",
                "signature_required",
                "Wallet signature required",
            )
            .await;
        }
        Proof::Unreadable => return invalid().await,
        Proof::Signed {
            message,
            ed25519,
            text,
        } => (message, ed25519, text),
    };
    let is_signed = match wallet {
        Wallet::Solana(key) => siws::verify(key, message.as_bytes(), &ed25519),
        Wallet::Ethereum(address) => {
            signature.is_some_and(|signature| siwe::verify(address, &message, &signature))
        }
    };
    if message.len() > challenge::MESSAGE_BYTES_MAX || !is_signed {
        return invalid().await;
    }
    let Some(nonce) = challenge::nonce_of(&message) else {
        return over().await;
    };
    let kept = within(ANSWER_TIMEOUT, services.store.get(SPACE, nonce)).await?;
    let Some(kept) = kept else {
        return over().await;
    };
    // The address, the domain and the times are in the message: all of it is what was asked for.
    if kept.value != challenge::fingerprint(&message)[..] || !challenge::is_for(&message, wallet) {
        return invalid().await;
    }
    // Of two at once, one has it.
    match within(ANSWER_TIMEOUT, services.store.delete(SPACE, nonce)).await? {
        true => Ok(()),
        false => over().await,
    }
}

/// The domain and the URI that a message names: of `server.public_url`, else as the client calls us.
fn place(config: &Config, call: &Call) -> Result<(String, String), ApiError> {
    let public = &config.server.public_url;
    if let Some((_, domain)) = public.split_once("://") {
        return Ok((domain.to_owned(), public.clone()));
    }
    let host = call.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host
        .filter(|host| challenge::is_domain(host))
        .ok_or_else(|| ApiError::bad_request("invalid_host", "The Host header names no host"))?;
    let proto = call
        .headers
        .get("x-forwarded-proto")
        .map(|it| it.as_bytes());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&name);
    let scheme = match proto {
        Some(b"http") => "http",
        None if is_local => "http",
        _ => "https",
    };
    Ok((host.to_owned(), format!("{scheme}://{host}")))
}
