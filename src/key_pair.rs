//! A key as operators have it, in PEM: which algorithm it is for, whether it signs, and its public half.
//!
//! The algorithm is the key's, never a token's: whoever forges a token cannot choose how it is checked
//! (RFC 8725 section 3.1).

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{DecodingKey, EncodingKey};

pub use jsonwebtoken::Algorithm;

/// RSA keys below 2,048 bits are refused (RFC 7518 section 3.3).
const RSA_BYTES_MIN: usize = 2_048 / 8;
/// The name of a PEM block starts so.
const BEGIN: &str = "-----BEGIN ";

/// A key of RS256, ES256 or EdDSA.
#[derive(Clone)]
pub struct KeyPair {
    /// What it signs and verifies with, and nothing else.
    pub algorithm: Algorithm,
    /// `None`: only the public half is here, and it only verifies.
    pub private: Option<EncodingKey>,
    /// What verifies.
    pub public: DecodingKey,
    /// The public half for others, without a `kid`.
    pub jwk: Jwk,
}

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or not of a key.
    #[error("is not a PEM text with a private or a public key")]
    NotPem,
    /// Of the form that openssl's old commands write.
    #[error("is an EC key in the old form; `openssl pkcs8 -topk8 -nocrypt` converts it")]
    OldForm,
    /// Needs a password.
    #[error("is encrypted, and nobody could type the password at start")]
    Encrypted,
    /// Another algorithm or curve, or one that does not fit together.
    #[error("is no usable key of RSA, P-256 or Ed25519")]
    Unusable,
    /// An RSA key that can be factored.
    #[error("is an RSA key of less than 2048 bits")]
    TooShort,
}

impl KeyPair {
    /// Reads a PEM text; the algorithm follows from the kind of the key.
    ///
    /// # Errors
    /// When it is no key of RSA (2,048 bits at least), P-256 or Ed25519.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
        let name = text
            .split_once(BEGIN)
            .and_then(|(_, rest)| rest.split_once("-----"))
            .map(|(name, _)| name)
            .ok_or(KeyError::NotPem)?;
        if name.contains("ENCRYPTED") || text.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let pair = match name {
            "PRIVATE KEY" | "RSA PRIVATE KEY" => private(pem)?,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => public(pem)?,
            "EC PRIVATE KEY" | "EC PARAMETERS" => return Err(KeyError::OldForm),
            _ => return Err(KeyError::NotPem),
        };
        pair.checked()
    }

    fn checked(self) -> Result<Self, KeyError> {
        if algorithm(&self.jwk) != Some(self.algorithm) {
            return Err(match rsa_bytes(&self.jwk) {
                Some(_) => KeyError::TooShort,
                None => KeyError::Unusable,
            });
        }
        // What cannot sign is found now, not by the first user.
        if let Some(private) = &self.private {
            let sign = |key| jsonwebtoken::crypto::sign(b"a trial", key, self.algorithm);
            let signature = sign(private).map_err(|_| KeyError::Unusable)?;
            let verified =
                jsonwebtoken::crypto::verify(&signature, b"a trial", &self.public, self.algorithm);
            if !matches!(verified, Ok(true)) {
                return Err(KeyError::Unusable);
            }
        }
        Ok(self)
    }
}

/// What a public key of somebody may be used for here; `None`: nothing.
pub fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            (rsa_bytes(jwk)? >= RSA_BYTES_MIN).then_some(Algorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(key) => {
            (key.curve == EllipticCurve::P256).then_some(Algorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) => {
            (key.curve == EllipticCurve::Ed25519).then_some(Algorithm::EdDSA)
        }
        // A secret that is published is none; and what is not known is not guessed at.
        _ => None,
    }
}

/// The length of the modulus of an RSA key, as its base64 tells it.
fn rsa_bytes(jwk: &Jwk) -> Option<usize> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => Some(key.n.trim_start_matches('A').len() * 3 / 4),
        _ => None,
    }
}

fn private(pem: &[u8]) -> Result<KeyPair, KeyError> {
    let unusable = |_| KeyError::Unusable;
    if let Ok(key) = EncodingKey::from_ec_pem(pem) {
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(unusable)?;
        return of(Algorithm::ES256, Some(key), jwk);
    }
    if let Ok(key) = EncodingKey::from_ed_pem(pem) {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes());
        let pair = pair.map_err(|_| KeyError::Unusable)?;
        let public = DecodingKey::from_ed_der(pair.public_key().as_ref());
        let jwk = Jwk::from_decoding_key(&public, Some(Algorithm::EdDSA)).map_err(unusable)?;
        return of(Algorithm::EdDSA, Some(key), jwk);
    }
    let key = EncodingKey::from_rsa_pem(pem).map_err(unusable)?;
    let jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(unusable)?;
    of(Algorithm::RS256, Some(key), jwk)
}

fn public(pem: &[u8]) -> Result<KeyPair, KeyError> {
    let (algorithm, key) = DecodingKey::from_ec_pem(pem)
        .map(|key| (Algorithm::ES256, key))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
        .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)))
        .map_err(|_| KeyError::Unusable)?;
    let jwk = Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|_| KeyError::Unusable)?;
    of(algorithm, None, jwk)
}

fn of(algorithm: Algorithm, private: Option<EncodingKey>, jwk: Jwk) -> Result<KeyPair, KeyError> {
    Ok(KeyPair {
        algorithm,
        private,
        public: DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Unusable)?,
        jwk,
    })
}

/// The private half never prints; two keys are the same if their public halves are.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk && self.private.is_some() == other.private.is_some()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
    use base64::Engine as _;

    use super::*;

    fn pem(name: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {name}-----\n{text}\n-----END {name}-----\n")
    }

    #[test]
    fn the_private_half_is_never_printed_or_published() {
        let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        // The longer form (RFC 8410 section 7), which holds the public half as well.
        assert!(der.as_ref().len() > 48);
        let pair = KeyPair::from_pem(pem("PRIVATE KEY", der.as_ref()).as_bytes()).unwrap();
        assert_eq!(pair.algorithm, Algorithm::EdDSA);
        assert!(pair.private.is_some());
        assert_eq!(format!("{pair:?}"), "KeyPair { algorithm: EdDSA, .. }");
        let jwk = serde_json::to_value(&pair.jwk).unwrap();
        assert_eq!(jwk.as_object().unwrap().len(), 4, "{jwk}");
    }

    #[test]
    fn other_curves_and_damaged_keys_are_refused() {
        let curve = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let der = curve.to_pkcs8v1().unwrap();
        let refused = |text: &str| KeyPair::from_pem(text.as_bytes()).unwrap_err();
        assert_eq!(
            refused(&pem("PRIVATE KEY", der.as_ref())),
            KeyError::Unusable
        );
        let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let mut damaged = der.as_ref().to_vec();
        assert!(KeyPair::from_pem(pem("PRIVATE KEY", &damaged).as_bytes()).is_ok());
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        assert_eq!(refused(&pem("PRIVATE KEY", &damaged)), KeyError::Unusable);
        // `openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:1024`, its public half.
        let short = "-----BEGIN PUBLIC KEY-----\n\
            MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC2xEXV6dwGGjwqgzT5vkLwAdWj\n\
            Yh5yBNX1qx/lncwqlmnpJXAYS9JeMxu49l0VBMi8C9TgSQqkQuuoCtQo9xA+Hk2k\n\
            ILuu15bCnznWDl1HHdBl4Oyo0uoxJXURROM/zqev369dXfVuVK64xvBFSOhAirFJ\n\
            FGSdE/6935DGL7Cn4wIDAQAB\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(refused(short), KeyError::TooShort);
        for text in [
            "",
            "rubbish",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(refused(text), KeyError::NotPem);
        }
    }
}
