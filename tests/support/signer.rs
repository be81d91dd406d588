//! Keys that are made for a test, and tokens that are signed with them, well or not.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fanfare::key_pair::KeyPair;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};

/// A private key and its name.
pub struct Signer {
    /// Its name in tokens and sets.
    pub kid: String,
    /// PKCS#8
    pub private_pem: String,
    spki: Vec<u8>,
    pair: KeyPair,
}

impl Signer {
    /// A new key of RS256, ES256 or EdDSA.
    pub fn generate(kid: &str, algorithm: Algorithm) -> Self {
        let (pkcs8, spki) = generate(algorithm);
        let private_pem = pem("PRIVATE KEY", &pkcs8);
        let pair = KeyPair::from_pem(private_pem.as_bytes()).unwrap();
        assert_eq!(pair.algorithm, algorithm);
        Self {
            kid: kid.to_owned(),
            private_pem,
            spki,
            pair,
        }
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.pair.algorithm
    }

    /// The public half (SubjectPublicKeyInfo).
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    /// The public half as others publish it.
    pub fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(&self.pair.jwk).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A good token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.pair.algorithm);
        header.kid = Some(self.kid.clone());
        self.sign_as(&header, claims)
    }

    /// A token with this header, whose `alg` has to be of the key.
    pub fn sign_as(&self, header: &Header, claims: &Value) -> String {
        let private = self.pair.private.as_ref().unwrap();
        jsonwebtoken::encode(header, claims, private).unwrap()
    }
}

/// The body of a set of keys.
pub fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// A token with any header at all, its signature made by HMAC-SHA-256 with `secret`.
pub fn forge(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// PKCS#8 and SubjectPublicKeyInfo.
fn generate(algorithm: Algorithm) -> (Vec<u8>, Vec<u8>) {
    let spki = |key: &dyn AsDer<PublicKeyX509Der<'static>>| key.as_der().unwrap().as_ref().to_vec();
    match algorithm {
        Algorithm::RS256 => {
            let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            (der.as_ref().to_vec(), spki(pair.public_key()))
        }
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let der = pair.to_pkcs8v1().unwrap();
            (der.as_ref().to_vec(), spki(pair.public_key()))
        }
        _ => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let der = pair.to_pkcs8v1().unwrap();
            (der.as_ref().to_vec(), spki(pair.public_key()))
        }
    }
}

fn pem(name: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {name}-----\n{}\n-----END {name}-----\n",
        lines.join("\n")
    )
}
