//! Access tokens: JSON Web Tokens (RFC 7519). Contract section 2.
//!
//! A token is verified with a key of the `ring`, or of the `issuer` that it names; the algorithm is the key's.
//! `jws` takes it apart and checks the signature, `claims` reads what it says, and compares its times with
//! the `unix_ms` that the caller passes.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::Serialize;

use super::claims::{Claims, LAST_EXPIRY_MS};
use super::issuers::{Issuer, Issuers};
use super::jws::{Header, Unverified, Verifier};
use super::ring::Ring;
use super::trial::{Event, Trial};
use super::{Identity, Refusal, api_key, refresh};
use crate::clock::millis;
use crate::config::{self, Secret};
use crate::metrics::Counters;

/// What is longer is no token; it is not even decoded.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

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
        let mut json = Vec::new();
        let token = Unverified::read(token, &mut json)?;
        let header = Header::parse(&json)?;
        if let Some(issuer) = self.other_issuer(&token, &header) {
            return self.verify_of(issuer, &token, &header, unix_ms);
        }
        let mut refused = Refusal::Invalid("signature");
        let kid = header.kid.as_deref();
        for key in self.ring.candidates(kid, header.algorithm, unix_ms)? {
            let whose = (&*self.issuer, &*self.audience);
            match self.verify_with(&token, &key.verifier, whose, unix_ms) {
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
        let mut json = Vec::new();
        let Ok(token) = Unverified::read(token, &mut json) else {
            return;
        };
        let Ok(header) = Header::parse(&json) else {
            return;
        };
        if let Some(issuer) = self.other_issuer(&token, &header)
            && issuer.signs_with(header.algorithm)
            && issuer
                .keys()
                .find(header.kid.as_deref(), header.algorithm)
                .is_none()
        {
            issuer.refreshed().await;
        }
    }

    /// Whose key a token has to be verified with, if it is not ours. Secrets are ours alone.
    fn other_issuer(&self, token: &Unverified<'_>, header: &Header<'_>) -> Option<&Arc<Issuer>> {
        if self.issuers.is_empty() || header.algorithm == Algorithm::HS256 {
            return None;
        }
        // Not verified yet: it only says with which key that has to be done.
        let json = token.claims().ok()?;
        let claims = Claims::parse(&json).ok()?;
        let named = claims.issuer()?;
        let is_ours = named == self.issuer
            && header
                .kid
                .as_deref()
                .is_some_and(|kid| self.ring.knows(kid));
        self.issuers.find(named).filter(|_| !is_ours)
    }

    fn verify_of(
        &self,
        issuer: &Issuer,
        token: &Unverified<'_>,
        header: &Header<'_>,
        unix_ms: u64,
    ) -> Result<Identity, Refusal> {
        if !issuer.signs_with(header.algorithm) {
            return Err(Refusal::Invalid("algorithm"));
        }
        let keys = issuer.keys();
        let key = keys
            .find(header.kid.as_deref(), header.algorithm)
            .ok_or(Refusal::Invalid("unknown_key"))?;
        let whose = (&*issuer.config.issuer, &*issuer.config.audience);
        self.verify_with(token, key, whose, unix_ms)
    }

    /// `whose`: the issuer and the audience that it has to name.
    fn verify_with(
        &self,
        token: &Unverified<'_>,
        verifier: &Verifier,
        (issuer, audience): (&str, &str),
        unix_ms: u64,
    ) -> Result<Identity, Refusal> {
        token.check(verifier)?;
        let json = token.claims()?;
        let claims = Claims::parse(&json)?;
        claims.check(issuer, audience)?;
        let variant = claims.variant().and_then(|name| self.trial.known(name));
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

#[cfg(test)]
mod tests;
