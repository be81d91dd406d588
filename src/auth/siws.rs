//! Solana's side of signing in: signatures of ed25519, and what wallets return of `solana:signIn`.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

const SIGNATURE_BYTES: usize = 64;
/// Base64 of 64 bytes has 88 characters, and base58 has no more.
const SIGNATURE_TEXT_MAX: usize = 88;

/// With or without padding, as wallets like it.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Points of small order, and other spellings of them: everybody can sign as these (the list of
/// libsodium's `has_small_order`, with the sign bit left out). One of them is the address of the
/// system program, 32 zero bytes.
const SMALL_ORDER: [[u8; 32]; 7] = {
    let mut points = [[0u8; 32]; 7];
    points[1][0] = 1;
    points[2] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ];
    points[3] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ];
    // p - 1, p and p + 1.
    let mut at = 4;
    while at < 7 {
        points[at] = [0xff; 32];
        points[at][0] = 0xec + (at as u8 - 4);
        points[at][31] = 0x7f;
        at += 1;
    }
    points
};

/// Whether a signature, as text, is this key's over the message. Base58 and base64 overlap, so what can
/// be read as both is tried as both.
pub fn verify(key: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    if has_small_order(key) {
        return false;
    }
    let key = UnparsedPublicKey::new(&ED25519, key);
    let mut readings = signature.readings.iter();
    readings.any(|reading| key.verify(message, reading).is_ok())
}

fn has_small_order(key: &[u8; 32]) -> bool {
    let mut unsigned = *key;
    unsigned[31] &= 0x7f;
    SMALL_ORDER.contains(&unsigned)
}

/// What a signature may be read as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    readings: Vec<[u8; SIGNATURE_BYTES]>,
}

impl Signature {
    /// Of base58 or base64; perhaps of neither.
    pub fn read(text: &str) -> Self {
        if text.len() > SIGNATURE_TEXT_MAX {
            return Self::default();
        }
        let decoded = [
            bs58::decode(text).into_vec().ok(),
            STANDARD.decode(text).ok(),
            URL_SAFE.decode(text).ok(),
        ];
        let mut readings: Vec<[u8; SIGNATURE_BYTES]> = Vec::new();
        for bytes in decoded.into_iter().flatten() {
            if let Ok(reading) = bytes.try_into()
                && !readings.contains(&reading)
            {
                readings.push(reading);
            }
        }
        Self { readings }
    }
}

/// What a wallet returned of `solana:signIn`, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The account that has signed, if it is told.
    pub address: Option<String>,
    /// The text that the wallet made of the challenge.
    pub message: String,
    /// Of the message.
    pub signature: Signature,
}

impl Output {
    /// Of `{"account"?:{"address"},"signedMessage":BYTES,"signature":BYTES}`. BYTES is a string (base64,
    /// for a signature base58 as well), an array of numbers, or what `JSON.stringify` makes of a
    /// `Uint8Array`: an object with the indices as names.
    pub fn read(output: &Value) -> Option<Self> {
        use super::challenge::MESSAGE_BYTES_MAX;
        let address = output.pointer("/account/address").and_then(Value::as_str);
        let message = match output.get("signedMessage")? {
            Value::String(text) if text.len() <= 2 * MESSAGE_BYTES_MAX => STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE.decode(text))
                .ok()?,
            other => bytes(other, MESSAGE_BYTES_MAX)?,
        };
        let signature = match output.get("signature")? {
            Value::String(text) => Signature::read(text),
            other => Signature {
                readings: vec![bytes(other, SIGNATURE_BYTES)?.try_into().ok()?],
            },
        };
        Some(Self {
            address: address.map(str::to_owned),
            message: String::from_utf8(message).ok()?,
            signature,
        })
    }
}

/// At most `most` bytes, written as numbers.
fn bytes(value: &Value, most: usize) -> Option<Vec<u8>> {
    let byte = |value: &Value| u8::try_from(value.as_u64()?).ok();
    match value {
        Value::Array(items) if items.len() <= most => items.iter().map(byte).collect(),
        Value::Object(members) if members.len() <= most => (0..members.len())
            .map(|index| byte(members.get(&index.to_string())?))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    fn pair() -> (Ed25519KeyPair, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = pair.public_key().as_ref().try_into().unwrap();
        (pair, key)
    }

    #[test]
    fn a_signature_is_read_in_every_spelling() {
        let (pair, key) = pair();
        let signature = pair.sign(b"text");
        let signature = signature.as_ref();
        let padded = STANDARD.encode(signature);
        let url_safe = URL_SAFE.encode(signature);
        for text in [
            &*bs58::encode(signature).into_string(),
            &padded,
            padded.trim_end_matches('='),
            &url_safe,
            url_safe.trim_end_matches('='),
        ] {
            let signature = Signature::read(text);
            assert!(verify(&key, b"text", &signature), "{text}");
            assert!(!verify(&key, b"texts", &signature), "{text}");
            assert!(!verify(&[9; 32], b"text", &signature), "{text}");
        }
        for nonsense in ["", "x", &*"1".repeat(64), &"A".repeat(1_000_000), "ää"] {
            assert!(!verify(&key, b"text", &Signature::read(nonsense)));
        }
    }

    #[test]
    fn nobody_signs_as_a_point_of_small_order() {
        // With the neutral element as key and as R, and s = 0, the equation holds for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut forged = [0; SIGNATURE_BYTES];
        forged[0] = 1;
        let signature = Signature {
            readings: vec![forged],
        };
        let plain = UnparsedPublicKey::new(&ED25519, &neutral);
        assert!(
            plain.verify(b"anything", &forged).is_ok(),
            "then the list is needless"
        );
        assert!(!verify(&neutral, b"anything", &signature));
        assert!(has_small_order(&[0; 32]));
        neutral[31] |= 0x80;
        assert!(has_small_order(&neutral));
        assert!(!has_small_order(&pair().1));
    }

    #[test]
    fn what_a_wallet_returns_is_read_in_three_forms() {
        let (pair, key) = pair();
        let message = b"a text";
        let signature = pair.sign(message);
        let listed = |bytes: &[u8]| json!(bytes);
        let indexed = |bytes: &[u8]| -> Value {
            let members = bytes.iter().enumerate();
            members
                .map(|(n, byte)| (n.to_string(), json!(byte)))
                .collect()
        };
        let text = |bytes: &[u8]| json!(STANDARD.encode(bytes));
        for form in [&listed as &dyn Fn(&[u8]) -> Value, &indexed, &text] {
            let output = json!({
                "account": {"address": "A", "publicKey": {}},
                "signedMessage": form(message),
                "signature": form(signature.as_ref()),
                "signatureType": "ed25519",
            });
            let output = Output::read(&output).unwrap();
            assert_eq!(output.address.as_deref(), Some("A"));
            assert_eq!(output.message, "a text");
            assert!(verify(&key, output.message.as_bytes(), &output.signature));
        }
        for nonsense in [
            json!(null),
            json!({}),
            json!({"signedMessage": "YQ==", "signature": [1]}),
            json!({"signedMessage": [256], "signature": "x"}),
            json!({"signedMessage": {"1": 1}, "signature": "x"}),
            json!({"signedMessage": "%", "signature": "x"}),
            json!({"signedMessage": [255], "signature": "x"}),
            json!({"signedMessage": vec![97; 3_000], "signature": "x"}),
        ] {
            assert_eq!(Output::read(&nonsense), None, "{nonsense}");
        }
    }
}
