//! Access tokens: JSON Web Tokens (RFC 7519). Contract section 2.
//!
//! A token is verified with a key of the `ring`, or of the `issuer` that it names; the algorithm is the key's.
//! jsonwebtoken checks form, signature, `iss` and `aud`. It would read the system's clock for the
//! rest, so times are compared here, with the `unix_ms` that the caller passes.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::issuers::{Issuer, Issuers};
use super::ring::Ring;
use super::trial::{Event, Trial};
use super::{Identity, Refusal, api_key, refresh};
use crate::clock::millis;
use crate::config::{self, Secret};
use crate::metrics::Counters;

/// What is longer is no token; it is not even decoded.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A user id, wallet or `jti` in a token. With `notifications_` in front a user id still fits into
/// the default `limits.channel_key_bytes`.
pub const MAX_ID_BYTES: usize = 240;

/// How far a token's `nbf` and `iat` may lie ahead of this machine's clock. `exp` has no leeway:
/// tokens are short-lived, and a client refreshes long before.
const SKEW_MS: u64 = 30_000;

/// No token outlives the year 9999, so that sums of times cannot overflow.
const LAST_EXPIRY_MS: u64 = 253_402_300_799_000;

/// Issues and verifies tokens, and knows the backends' keys.
pub struct Authority {
    ring: Ring,
    refresh_key: refresh::Key,
    issuers: Issuers,
    issuer: String,
    audience: String,
    trial: Trial,
    api_keys: Vec<[u8; 32]>,
}

/// Whom a token is for.
#[derive(Debug, Clone, Default)]
pub struct TokenSubject {
    /// Becomes `userId` and `sub`.
    pub user_id: String,
    /// Becomes `wallet`.
    pub wallet: Option<String>,
    /// Becomes `nickname`.
    pub nickname: Option<String>,
    /// Becomes `channels`, unless empty: keys, exact or with a trailing `*`.
    pub channels: Vec<String>,
    /// Becomes `family`: the sign-in that the token goes back to.
    pub family: Option<String>,
    /// The token's life; `None`: `auth.token_ttl`.
    pub ttl: Option<Duration>,
}

/// A new token. Has no `Debug`: it must not be printed by accident.
pub struct Issued {
    /// The token itself.
    pub token: String,
    /// Its id.
    pub jti: String,
    /// How long it lives, in whole seconds.
    pub expires_in: Duration,
    /// Until when, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Authority {
    /// The authority of this secret and the `auth.*` settings, without other issuers.
    pub fn new(secret: &Secret, auth: &config::Auth) -> Self {
        Self {
            ring: Ring::new(secret, auth),
            refresh_key: refresh::Key::of(secret),
            issuers: Issuers::default(),
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            trial: Trial::new(&auth.token_ttl),
            api_keys: auth.api_keys.clone(),
        }
    }

    /// Believes these, too.
    pub fn believing(mut self, issuers: Issuers) -> Self {
        self.issuers = issuers;
        self
    }

    /// Counts what becomes of tokens in a trial of lives.
    pub fn counting(mut self, counters: Arc<Counters>) -> Self {
        self.trial.count_in(counters);
        self
    }

    /// The trial of lives, for what happens to tokens elsewhere.
    pub const fn trial(&self) -> &Trial {
        &self.trial
    }

    /// Whose tokens are believed beside our own.
    pub const fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Our keys.
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// What refresh tokens are computed with.
    pub const fn refresh_key(&self) -> &refresh::Key {
        &self.refresh_key
    }

    /// Makes a token that begins to be valid at `unix_ms`.
    pub fn issue(&self, subject: &TokenSubject, unix_ms: u64) -> Issued {
        let (ttl, variant) = match subject.ttl {
            Some(ttl) => (ttl, None),
            None => self.trial.life_for(&subject.user_id),
        };
        self.trial.note(variant, Event::Issued);
        let expires_in = Duration::from_secs(ttl.as_secs());
        let expires_at_ms = (unix_ms / 1000 * 1000)
            .saturating_add(millis(expires_in))
            .min(LAST_EXPIRY_MS);
        let jti = uuid::Uuid::new_v4().to_string();
        let claims = IssuedClaims {
            user_id: &subject.user_id,
            sub: &subject.user_id,
            wallet: subject.wallet.as_deref(),
            nickname: subject.nickname.as_deref(),
            channels: &subject.channels,
            variant,
            family: subject.family.as_deref(),
            jti: &jti,
            iat: unix_ms / 1000,
            iat_ms: unix_ms,
            exp: expires_at_ms / 1000,
            iss: &self.issuer,
            aud: &self.audience,
        };
        let token = jsonwebtoken::encode(&self.ring.header, &claims, &self.ring.signing)
            .expect("strings and integers are always JSON, and the key signed when it was read");
        Issued {
            token,
            jti,
            expires_in,
            expires_at_ms,
        }
    }

    /// Who presents this token at `unix_ms`.
    pub fn verify(&self, token: &str, unix_ms: u64) -> Result<Identity, Refusal> {
        if token.is_empty() {
            return Err(Refusal::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Invalid("malformed"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(token, &error))?;
        if header.crit.is_some() {
            // RFC 7515 section 4.1.11: extensions that are not understood make a token invalid.
            return Err(Refusal::Invalid("malformed"));
        }
        if header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
        {
            // A key that comes with the token proves nothing; who sends one is up to something.
            return Err(Refusal::Invalid("foreign_key"));
        }
        if let Some(issuer) = self.other_issuer(token, &header) {
            return self.verify_of(issuer, token, &header, unix_ms);
        }
        let (kid, algorithm) = (header.kid.as_deref(), header.alg);
        let mut refused = Refusal::Invalid("signature");
        for key in self.ring.candidates(kid, algorithm, unix_ms)? {
            match self.verify_with(token, &key.public, &key.validation, unix_ms) {
                Ok(mut identity) => {
                    // No socket outlives the key.
                    identity.expires_at_ms = identity.expires_at_ms.min(key.until_ms);
                    return Ok(identity);
                }
                Err(Refusal::Invalid("signature")) => {}
                Err(other) => refused = other,
            }
        }
        Err(refused)
    }

    /// Whether there are other issuers, whose keys may have to be waited for.
    pub fn learns(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// If this token is of another issuer and names a key that is not known yet, waits until the keys
    /// were fetched again; then, and otherwise at once, [`Authority::verify`] says what can be said.
    pub async fn learn(&self, token: &[u8]) {
        if self.issuers.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return;
        }
        let Ok(token) = std::str::from_utf8(token) else {
            return;
        };
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return;
        };
        if let Some(issuer) = self.other_issuer(token, &header)
            && issuer.validation(header.alg).is_some()
            && issuer
                .keys()
                .find(header.kid.as_deref(), header.alg)
                .is_none()
        {
            issuer.refreshed().await;
        }
    }

    /// Whose key a token has to be verified with, if it is not ours. Secrets are ours alone.
    fn other_issuer(&self, token: &str, header: &Header) -> Option<&Arc<Issuer>> {
        #[derive(Deserialize)]
        struct Named {
            iss: String,
        }
        if self.issuers.is_empty() || header.alg == Algorithm::HS256 {
            return None;
        }
        // Not verified yet: it only says with which key that has to be done.
        let named: Named = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
        let is_ours = named.iss == self.issuer
            && header
                .kid
                .as_deref()
                .is_some_and(|kid| self.ring.knows(kid));
        self.issuers.find(&named.iss).filter(|_| !is_ours)
    }

    fn verify_of(
        &self,
        issuer: &Issuer,
        token: &str,
        header: &Header,
        unix_ms: u64,
    ) -> Result<Identity, Refusal> {
        let validation = issuer
            .validation(header.alg)
            .ok_or(Refusal::Invalid("algorithm"))?;
        let keys = issuer.keys();
        let key = keys
            .find(header.kid.as_deref(), header.alg)
            .ok_or(Refusal::Invalid("unknown_key"))?;
        self.verify_with(token, key, validation, unix_ms)
    }

    fn verify_with(
        &self,
        token: &str,
        key: &DecodingKey,
        validation: &Validation,
        unix_ms: u64,
    ) -> Result<Identity, Refusal> {
        let claims = jsonwebtoken::decode::<Claims>(token, key, validation)
            .map_err(|error| refusal(token, &error))?
            .claims;
        let variant = claims.variant.as_ref().and_then(Value::as_str);
        let variant = variant.and_then(|name| self.trial.known(name));
        let verified = claims.identify(unix_ms);
        if verified.is_err() {
            self.trial.note(variant.as_deref(), Event::AuthFailure);
        }
        verified.map(|identity| Identity {
            variant,
            ..identity
        })
    }

    /// Whether this is the key of a backend.
    pub fn is_api_key(&self, key: &[u8]) -> bool {
        api_key::is_known(key, &self.api_keys)
    }
}

/// What a token of ours says.
#[derive(Serialize)]
struct IssuedClaims<'a> {
    #[serde(rename = "userId")]
    user_id: &'a str,
    sub: &'a str,
    wallet: Option<&'a str>,
    nickname: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    channels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'a str>,
    jti: &'a str,
    iat: u64,
    /// `iat` to the millisecond: a token that is issued right after all of a user's were revoked is none
    /// of those.
    #[serde(rename = "iatMs")]
    iat_ms: u64,
    exp: u64,
    iss: &'a str,
    aud: &'a str,
}

/// What a token with a good signature may say, before its types are checked.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "userId")]
    user_id: Option<Value>,
    sub: Option<Value>,
    wallet: Option<Value>,
    jti: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
    #[serde(rename = "iatMs")]
    iat_ms: Option<Value>,
    family: Option<Value>,
    channels: Option<Value>,
    variant: Option<Value>,
}

impl Claims {
    fn identify(self, unix_ms: u64) -> Result<Identity, Refusal> {
        let expires_at_ms = self
            .exp
            .as_ref()
            .and_then(numeric_date)
            .ok_or(Refusal::Invalid("no_expiry"))?
            .min(LAST_EXPIRY_MS);
        if expires_at_ms <= unix_ms {
            return Err(Refusal::Expired);
        }
        for start in [&self.nbf, &self.iat].into_iter().flatten() {
            let start_ms = numeric_date(start).ok_or(Refusal::Invalid("malformed"))?;
            if start_ms > unix_ms.saturating_add(SKEW_MS) {
                return Err(Refusal::Invalid("not_yet_valid"));
            }
        }
        let issued_at_ms = self.iat.as_ref().and_then(numeric_date).unwrap_or(0);
        // Within the second that `iat` names, or it means nothing.
        let exact_ms = self.iat_ms.as_ref().and_then(Value::as_u64);
        let issued_at_ms = exact_ms
            .filter(|exact_ms| exact_ms / 1000 == issued_at_ms / 1000)
            .unwrap_or(issued_at_ms);
        let user_id = self
            .user_id
            .or(self.sub)
            .and_then(id)
            .ok_or(Refusal::Invalid("no_subject"))?;
        let optional = |claim: Option<Value>| match claim {
            None => Ok(None),
            Some(value) => id(value).map(Some).ok_or(Refusal::Invalid("malformed")),
        };
        Ok(Identity {
            user_id,
            wallet: optional(self.wallet)?,
            jti: optional(self.jti)?,
            family: optional(self.family)?,
            issued_at_ms,
            expires_at_ms,
            variant: None,
            channels: match self.channels {
                None => Arc::default(),
                Some(value) => serde_json::from_value::<Vec<String>>(value)
                    .map_err(|_| Refusal::Invalid("malformed"))?
                    .into(),
            },
        })
    }
}

/// An id as text: a string, or an integer as some backends number their users.
fn id(value: Value) -> Option<Arc<str>> {
    let text: Arc<str> = match value {
        Value::String(text) => text.into(),
        Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string().into(),
        _ => return None,
    };
    let fits = !text.is_empty() && text.len() <= MAX_ID_BYTES;
    (fits && !text.chars().any(char::is_control)).then_some(text)
}

/// RFC 7519's NumericDate, seconds since 1970 and perhaps a fraction, in milliseconds.
fn numeric_date(value: &Value) -> Option<u64> {
    if let Some(seconds) = value.as_u64() {
        return Some(seconds.saturating_mul(1000));
    }
    let seconds = value.as_f64()?;
    // A float saturates where it is cast; what is negative lies before 1970.
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as u64)
}

/// Which check of jsonwebtoken failed.
fn refusal(token: &str, error: &Error) -> Refusal {
    Refusal::Invalid(match error.kind() {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => "algorithm",
        ErrorKind::InvalidIssuer => "issuer",
        ErrorKind::InvalidAudience => "audience",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "issuer",
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => "audience",
        ErrorKind::Json(_) if names_foreign_algorithm(token) => "algorithm",
        _ => "malformed",
    })
}

/// Whether the header is JSON, but with an `alg` that jsonwebtoken has no name for, such as `none`.
fn names_foreign_algorithm(token: &str) -> bool {
    match jsonwebtoken::decode_header(token).map_err(Error::into_kind) {
        Err(ErrorKind::Json(error)) => error.is_data(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
