//! A token as it comes: three parts of base64, a header that names a key, a signature that fits the key or
//! does not (RFC 7515, compact form). Read here, once and without copies, because jsonwebtoken reads a
//! header twice, with a map for what it does not know, and the claims twice; every socket comes with a
//! token. What keys do that are no secrets is still its business.

use std::borrow::Cow;
use std::str::FromStr as _;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Refusal;

const MALFORMED: Refusal = Refusal::Invalid("malformed");

/// What verifies signatures.
#[derive(Debug)]
pub enum Verifier {
    /// A secret, for HS256.
    Shared(Box<hmac::Key>),
    /// A public key, for this algorithm.
    Public(DecodingKey, Algorithm),
}

/// A token whose signature has not been looked at.
pub(super) struct Unverified<'a> {
    /// Its header and its claims, which is what was signed.
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

/// What of a header counts.
pub(super) struct Header<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<Cow<'a, str>>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; `header` is where the JSON of its header is put.
    pub fn read(token: &'a str, header: &mut Vec<u8>) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (head, claims) = signed.split_once('.').ok_or(MALFORMED)?;
        header.clear();
        URL_SAFE_NO_PAD
            .decode_vec(head, header)
            .map_err(|_| MALFORMED)?;
        Ok(Self {
            signed,
            claims,
            signature,
        })
    }

    /// The JSON of the claims, whoever wrote it.
    pub fn claims(&self) -> Result<Vec<u8>, Refusal> {
        URL_SAFE_NO_PAD.decode(self.claims).map_err(|_| MALFORMED)
    }

    /// Whether the key's owner signed it.
    pub fn check(&self, verifier: &Verifier) -> Result<(), Refusal> {
        let is_good = match verifier {
            Verifier::Shared(key) => {
                let signature = URL_SAFE_NO_PAD
                    .decode(self.signature)
                    .map_err(|_| MALFORMED)?;
                hmac::verify(key, self.signed.as_bytes(), &signature).is_ok()
            }
            Verifier::Public(key, algorithm) => {
                let signed = self.signed.as_bytes();
                jsonwebtoken::crypto::verify(self.signature, signed, key, *algorithm)
                    .map_err(|_| MALFORMED)?
            }
        };
        is_good.then_some(()).ok_or(Refusal::Invalid("signature"))
    }
}

impl<'a> Header<'a> {
    /// Reads the JSON of a header.
    pub fn parse(json: &'a [u8]) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            alg: Option<Text<'a>>,
            #[serde(borrow)]
            kid: Option<Text<'a>>,
            crit: Option<IgnoredAny>,
            jku: Option<IgnoredAny>,
            jwk: Option<IgnoredAny>,
            x5u: Option<IgnoredAny>,
            x5c: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

        let raw: Raw<'_> = serde_json::from_slice(json).map_err(|_| MALFORMED)?;
        // `none` is an algorithm that we have no name for, and so is nothing.
        let algorithm = raw.alg.and_then(|name| Algorithm::from_str(&name.0).ok());
        let algorithm = algorithm.ok_or(Refusal::Invalid("algorithm"))?;
        if raw.crit.is_some() {
            // RFC 7515 section 4.1.11: extensions that are not understood make a token invalid.
            return Err(MALFORMED);
        }
        let brought = [raw.jku, raw.jwk, raw.x5u, raw.x5c];
        if brought.iter().any(Option::is_some) {
            // A key that comes with the token proves nothing; who sends one is up to something.
            return Err(Refusal::Invalid("foreign_key"));
        }
        Ok(Self {
            algorithm,
            kid: raw.kid.map(|kid| kid.0),
        })
    }
}
