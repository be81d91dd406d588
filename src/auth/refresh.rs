//! Refresh tokens: what one is, and what becomes of its family when one is presented.
//!
//! A sign-in begins a family. Each of its refresh tokens works once and gives the next one; the next one
//! is computed, not made up, so that a client whose reply was lost gets the very same again while it is
//! young and unused (`auth.refresh_grace`). An older one tells that two hold it: the family ends.
//!
//! Pure: records and times are handed in. Not for: keeping records (`http::refresh`).

use std::time::Duration;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::config::{self, Secret};

/// So that whoever finds one knows what it is, programs that look for secrets included.
const PREFIX: &str = "ffr";
/// What is longer is no refresh token.
const TOKEN_BYTES_MAX: usize = 128;
/// Base58 of 16 bytes has no more.
const FAMILY_BYTES_MAX: usize = 24;

/// What refresh tokens are computed with. Whoever has the signing secret has it, and nobody else.
pub struct Key(hmac::Key);

impl Key {
    /// The key of this secret.
    pub fn of(secret: &Secret) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let own = hmac::sign(&root, b"fanfare refresh tokens");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    fn token(&self, family: &str, salt: &str, generation: u32) -> String {
        // None of the three can contain what separates them.
        let tag = hmac::sign(&self.0, format!("{family}.{salt}.{generation}").as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(tag);
        format!("{PREFIX}.{family}.{generation}.{tag}")
    }
}

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// `auth.refresh_ttl`
    pub refresh_ttl: Duration,
    /// `auth.refresh_ttl_max`
    pub refresh_ttl_max: Duration,
    /// `auth.refresh_grace`
    pub refresh_grace: Duration,
    /// Of the longest-lived access token.
    pub token_ttl: Duration,
}

impl Policy {
    /// Of the configuration.
    pub fn of(auth: &config::Auth) -> Self {
        Self {
            refresh_ttl: auth.refresh_ttl,
            refresh_ttl_max: auth.refresh_ttl_max,
            refresh_grace: auth.refresh_grace,
            token_ttl: auth.token_ttl.longest(),
        }
    }
}

/// A refresh token as it was presented, taken apart. Nothing of it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The family that it names.
    pub family: &'a str,
    generation: u32,
    token: &'a str,
}

impl<'a> Presented<'a> {
    /// What has the form of a refresh token.
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split('.');
        let (prefix, family) = (parts.next()?, parts.next()?);
        let (generation, tag) = (parts.next()?, parts.next()?);
        let is_one = prefix == PREFIX
            && parts.next().is_none()
            && (1..=FAMILY_BYTES_MAX).contains(&family.len())
            && family.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && !tag.is_empty();
        is_one.then_some(Self {
            family,
            generation: generation.parse().ok()?,
            token,
        })
    }
}

/// A sign-in and its refreshes, as it is kept: hashes, never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Its name, which is in its tokens.
    pub id: String,
    /// Who has signed in.
    pub user_id: String,
    /// With what.
    pub wallet: Option<String>,
    /// When, in milliseconds since 1970.
    pub began_ms: u64,
    /// When it ends, however often it is refreshed.
    ends_ms: u64,
    /// When it ends unless it is refreshed.
    expires_ms: u64,
    /// When the last access token that may have been given for it has expired.
    pub access_until_ms: u64,
    /// Counts its refresh tokens from 0.
    generation: u32,
    /// When the present one was given.
    rotated_ms: u64,
    /// Makes its tokens others than those of a family of the same name.
    salt: String,
    /// SHA-256 of the present one, and of the one before.
    current: String,
    previous: Option<String>,
    /// Taken back: nothing is given for it any more.
    pub is_revoked: bool,
}

/// What becomes of a refresh token that is presented.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is good: keep this, then give that.
    Rotated(Box<Family>, String),
    /// It was good a moment ago, and what it gave has not been used: give the same again.
    Again(String),
    /// It had its turn: somebody has a copy. Keep this, and take back what was given.
    Reused(Box<Family>),
    /// Nothing.
    Refused(Refused),
}

/// Why a refresh token is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is none of ours.
    Invalid,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl Family {
    /// A new one and its first refresh token. `id` and `salt` are random, letters and digits.
    pub fn begin(
        key: &Key,
        (id, salt): (String, String),
        (user_id, wallet): (String, Option<String>),
        policy: Policy,
        unix_ms: u64,
    ) -> (Self, String) {
        let token = key.token(&id, &salt, 0);
        let ends_ms = unix_ms.saturating_add(millis(policy.refresh_ttl_max));
        let family = Self {
            id,
            user_id,
            wallet,
            began_ms: unix_ms,
            ends_ms,
            expires_ms: policy.expiry(unix_ms, ends_ms),
            access_until_ms: policy.access_until(unix_ms),
            generation: 0,
            rotated_ms: unix_ms,
            salt,
            current: hash(&token),
            previous: None,
            is_revoked: false,
        };
        (family, token)
    }

    /// When its present refresh token expires, in milliseconds since 1970.
    pub const fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// What becomes of it when one of its refresh tokens is presented.
    pub fn present(
        &self,
        presented: Presented<'_>,
        key: &Key,
        policy: Policy,
        unix_ms: u64,
    ) -> Outcome {
        if self.is_revoked {
            return Outcome::Refused(Refused::Revoked);
        }
        if unix_ms >= self.expires_ms {
            return Outcome::Refused(Refused::Expired);
        }
        let hashed = hash(presented.token);
        if is_equal(&hashed, &self.current) {
            return self.rotate(hashed, key, policy, unix_ms);
        }
        if self
            .previous
            .as_deref()
            .is_some_and(|previous| is_equal(&hashed, previous))
        {
            let age_ms = unix_ms.saturating_sub(self.rotated_ms);
            if age_ms >= millis(policy.refresh_grace) {
                return Outcome::Reused(Box::new(self.revoked()));
            }
            let successor = key.token(&self.id, &self.salt, self.generation);
            return match hash(&successor) == self.current {
                true => Outcome::Again(successor),
                // The secret was changed within the grace: what it gave cannot be computed any more.
                false => self.rotate(hashed, key, policy, unix_ms),
            };
        }
        let is_older = presented.generation < self.generation;
        let genuine = key.token(&self.id, &self.salt, presented.generation);
        if is_older && is_equal(&genuine, presented.token) {
            return Outcome::Reused(Box::new(self.revoked()));
        }
        Outcome::Refused(Refused::Invalid)
    }

    /// The same, taken back.
    pub fn revoked(&self) -> Self {
        Self {
            is_revoked: true,
            ..self.clone()
        }
    }

    fn rotate(&self, previous: String, key: &Key, policy: Policy, unix_ms: u64) -> Outcome {
        let generation = self.generation.saturating_add(1);
        let token = key.token(&self.id, &self.salt, generation);
        let access_until_ms = policy.access_until(unix_ms).max(self.access_until_ms);
        let next = Self {
            expires_ms: policy.expiry(unix_ms, self.ends_ms),
            access_until_ms,
            generation,
            rotated_ms: unix_ms,
            current: hash(&token),
            previous: Some(previous),
            ..self.clone()
        };
        Outcome::Rotated(Box::new(next), token)
    }
}

impl Policy {
    fn expiry(self, unix_ms: u64, ends_ms: u64) -> u64 {
        unix_ms
            .saturating_add(millis(self.refresh_ttl))
            .min(ends_ms)
    }

    /// A token that is given again within the grace lives so much longer.
    fn access_until(self, unix_ms: u64) -> u64 {
        let longest = self.token_ttl.saturating_add(self.refresh_grace);
        unix_ms.saturating_add(millis(longest))
    }
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

fn is_equal(a: &str, b: &str) -> bool {
    constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests;
