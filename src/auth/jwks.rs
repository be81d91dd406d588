//! A published set of keys (RFC 7517) as bytes of somebody else's: which of them may verify tokens.

use std::collections::HashMap;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::jws::Verifier;
use crate::key_pair;

/// A set is not larger.
pub const SET_BYTES_MAX: usize = 256 << 10;
/// Of a set no more keys are kept: the first ones.
pub const KEYS_MAX: usize = 64;

/// Keys by `kid` (empty: none) and algorithm.
#[derive(Debug, Default)]
pub struct KeySet(HashMap<(String, Algorithm), Verifier>);

impl KeySet {
    /// The keys of a set that are for signatures with one of `algorithms`. What is not understood is
    /// left out: a set may hold keys for others. An error says why it is no set.
    pub fn parse(body: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let set: Set = serde_json::from_slice(body)
            .map_err(|error| format!("the answer is no set of keys: {error}"))?;
        let usable = set.keys.iter().filter_map(|key| {
            let jwk: Jwk = serde_json::from_str(key.get()).ok()?;
            let algorithm = usable_for(&jwk).filter(|usable| algorithms.contains(usable))?;
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            let name = jwk.common.key_id.unwrap_or_default();
            Some(((name, algorithm), Verifier::Public(key, algorithm)))
        });
        let mut keys = HashMap::new();
        for (name, key) in usable.take(KEYS_MAX) {
            // Two of one name: the first counts, as for whoever looks it up in the list.
            keys.entry(name).or_insert(key);
        }
        Ok(Self(keys))
    }

    /// The key for such a token. A token without a `kid` is for the only key of its algorithm.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Verifier> {
        if let Some(kid) = kid {
            return self.0.get(&(kid.to_owned(), algorithm));
        }
        let mut fitting = self.0.iter().filter(|((_, of), _)| *of == algorithm);
        let only = fitting.next()?;
        fitting.next().is_none().then_some(only.1)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a key may verify here, if it is for signatures at all and does not say otherwise.
fn usable_for(jwk: &Jwk) -> Option<Algorithm> {
    let for_signatures = matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    let verifies = jwk
        .common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let algorithm = key_pair::algorithm(jwk)?;
    let says = jwk.common.key_algorithm;
    let agrees = says.is_none_or(|says| says == KeyAlgorithm::from(algorithm));
    (for_signatures && verifies && agrees).then_some(algorithm)
}
