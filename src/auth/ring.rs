//! The keys of this server: what signs, and what verifies tokens of our own issuer.
//!
//! Each key has one algorithm and verifies nothing else; a token chooses a key, never an algorithm.

use aws_lc_rs::hmac;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::Refusal;
use super::jws::Verifier;
use crate::config::{Auth, Secret};

/// The `kid` of a secret is so long.
const SECRET_KID_BYTES: usize = 8;

/// The keys, the signing one among them.
pub struct Ring {
    pub(super) header: Header,
    pub(super) signing: EncodingKey,
    keys: Vec<Key>,
}

/// What verifies.
pub(super) struct Key {
    kid: String,
    algorithm: Algorithm,
    pub(super) verifier: Verifier,
    /// Until when it counts, in milliseconds since 1970.
    pub(super) until_ms: u64,
    /// For others; a secret has none.
    jwk: Option<Jwk>,
}

impl Ring {
    /// The ring of these settings; `secret` is `auth.secret` or the generated one.
    pub fn new(secret: &Secret, auth: &Auth) -> Self {
        let mut keys = Vec::new();
        // A generated secret is nobody's who asked for another key.
        if auth.secret.is_some() || auth.signing_key.is_none() {
            keys.push(shared(secret, u64::MAX));
        }
        if let Some((secret, until_ms)) = &auth.previous_secret {
            keys.push(shared(secret, *until_ms));
        }
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(secret_kid(secret));
        let mut signing = EncodingKey::from_secret(secret.expose());
        for named in &auth.keys {
            let mut jwk = named.pair.jwk.clone();
            jwk.common.key_id = Some(named.kid.clone());
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            keys.push(Key {
                kid: named.kid.clone(),
                algorithm: named.pair.algorithm,
                verifier: Verifier::Public(named.pair.public.clone(), named.pair.algorithm),
                until_ms: named.until_unix_ms.unwrap_or(u64::MAX),
                jwk: Some(jwk),
            });
            if let Some(private) = &named.pair.private
                && auth.signing_key.as_ref() == Some(&named.kid)
            {
                header = Header::new(named.pair.algorithm);
                header.kid = Some(named.kid.clone());
                signing = private.clone();
            }
        }
        Self {
            header,
            signing,
            keys,
        }
    }

    /// The keys to try for such a token: the one that it names, else all of its algorithm that count.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        unix_ms: u64,
    ) -> Result<impl Iterator<Item = &Key>, Refusal> {
        let named = kid.and_then(|kid| self.keys.iter().position(|key| key.kid == kid));
        let named = named.map_or(&self.keys[..], |at| &self.keys[at..=at]);
        let known = named.iter().filter(move |key| key.algorithm == algorithm);
        if known.clone().next().is_none() {
            return Err(Refusal::Invalid("algorithm"));
        }
        let counting = known.filter(move |key| unix_ms < key.until_ms);
        if counting.clone().next().is_none() {
            return Err(Refusal::Invalid("key_retired"));
        }
        Ok(counting)
    }

    /// Whether a key has this name.
    pub(super) fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid == kid)
    }

    /// The public halves that count now, for whoever verifies our tokens.
    pub fn published(&self, unix_ms: u64) -> Vec<&Jwk> {
        self.keys
            .iter()
            .filter(|key| unix_ms < key.until_ms)
            .filter_map(|key| key.jwk.as_ref())
            .collect()
    }
}

fn shared(secret: &Secret, until_ms: u64) -> Key {
    Key {
        kid: secret_kid(secret),
        algorithm: Algorithm::HS256,
        verifier: Verifier::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))),
        until_ms,
        jwk: None,
    }
}

/// A name that every node gives the same secret, and that helps nobody more to find it than a token
/// helps who can try secrets on its signature.
fn secret_kid(secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let tag = hmac::sign(&key, b"fanfare: the name of this key");
    let bytes = tag.as_ref().iter().take(SECRET_KID_BYTES);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
