//! Tokens as the application's own backend signs them, with the shared secret and nothing of ours.

use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The second so many from now, as RFC 3339 has it.
pub fn rfc3339_in(seconds: u64) -> String {
    let at = i64::try_from(unix_seconds() + seconds).unwrap();
    let at = time::OffsetDateTime::from_unix_timestamp(at).unwrap();
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

/// Every claim that contract section 2 names, for half an hour from now.
pub fn claims(user: &str) -> Value {
    let now = unix_seconds();
    json!({
        "userId": user,
        "sub": user,
        "jti": format!("test-{user}-{now}"),
        "iat": now,
        "exp": now + 1800,
        "iss": "fonana.me",
        "aud": "fonana-websocket",
    })
}

/// Exactly these claims, HS256.
pub fn sign(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}
