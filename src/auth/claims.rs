//! What a token with a good signature says: read once, then each claim's type is looked at.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{Identity, Refusal};

/// A user id, wallet or `jti` in a token. With `notifications_` in front a user id still fits into
/// the default `limits.channel_key_bytes`.
pub const MAX_ID_BYTES: usize = 240;

/// How far a token's `nbf` and `iat` may lie ahead of this machine's clock. `exp` has no leeway:
/// tokens are short-lived, and a client refreshes long before.
const SKEW_MS: u64 = 30_000;

/// No token outlives the year 9999, so that sums of times cannot overflow.
pub(super) const LAST_EXPIRY_MS: u64 = 253_402_300_799_000;

/// All that counts here. Two of one name are an error: libraries disagree on which one counts.
#[derive(Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow)]
    iss: Option<Claim<'a>>,
    #[serde(borrow)]
    aud: Option<Claim<'a>>,
    #[serde(borrow, rename = "userId")]
    user_id: Option<Claim<'a>>,
    #[serde(borrow)]
    sub: Option<Claim<'a>>,
    #[serde(borrow)]
    wallet: Option<Claim<'a>>,
    #[serde(borrow)]
    jti: Option<Claim<'a>>,
    #[serde(borrow)]
    exp: Option<Claim<'a>>,
    #[serde(borrow)]
    nbf: Option<Claim<'a>>,
    #[serde(borrow)]
    iat: Option<Claim<'a>>,
    #[serde(borrow, rename = "iatMs")]
    iat_ms: Option<Claim<'a>>,
    #[serde(borrow)]
    family: Option<Claim<'a>>,
    #[serde(borrow)]
    channels: Option<Claim<'a>>,
    #[serde(borrow)]
    variant: Option<Claim<'a>>,
}

/// A claim whose type has not been looked at.
#[derive(Debug)]
enum Claim<'a> {
    Text(Cow<'a, str>),
    Number(Number),
    List(Vec<Claim<'a>>),
    /// A truth value or an object, which no claim here may be.
    Other,
}

impl<'a> Claims<'a> {
    /// Reads the JSON of the claims.
    pub fn parse(json: &'a [u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(json).map_err(|_| Refusal::Invalid("malformed"))
    }

    /// Whether they are of this issuer, for this audience.
    pub fn check(&self, issuer: &str, audience: &str) -> Result<(), Refusal> {
        let names = |claim: &Option<Claim<'_>>, name| {
            let claim = claim.as_ref();
            claim.is_some_and(|claim| claim.names(name))
        };
        if !names(&self.iss, issuer) {
            return Err(Refusal::Invalid("issuer"));
        }
        if !names(&self.aud, audience) {
            return Err(Refusal::Invalid("audience"));
        }
        Ok(())
    }

    /// The issuer, if it is one.
    pub fn issuer(&self) -> Option<&str> {
        self.iss.as_ref().and_then(Claim::text)
    }

    /// The variant of a trial of lives.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_ref().and_then(Claim::text)
    }

    /// Who it is at `unix_ms`.
    pub fn identify(self, unix_ms: u64) -> Result<Identity, Refusal> {
        let expires_at_ms = self
            .exp
            .as_ref()
            .and_then(Claim::numeric_date)
            .ok_or(Refusal::Invalid("no_expiry"))?
            .min(LAST_EXPIRY_MS);
        if expires_at_ms <= unix_ms {
            return Err(Refusal::Expired);
        }
        for start in [&self.nbf, &self.iat].into_iter().flatten() {
            let start_ms = start.numeric_date().ok_or(Refusal::Invalid("malformed"))?;
            if start_ms > unix_ms.saturating_add(SKEW_MS) {
                return Err(Refusal::Invalid("not_yet_valid"));
            }
        }
        let issued_at_ms = self.iat.as_ref().and_then(Claim::numeric_date).unwrap_or(0);
        // Within the second that `iat` names, or it means nothing.
        let exact_ms = match &self.iat_ms {
            Some(Claim::Number(number)) => number.as_u64(),
            _ => None,
        };
        let issued_at_ms = exact_ms
            .filter(|exact_ms| exact_ms / 1000 == issued_at_ms / 1000)
            .unwrap_or(issued_at_ms);
        let is_empty = |claim: &Claim<'_>| matches!(claim, Claim::Text(text) if text.is_empty());
        let user_id = self
            .user_id
            // As `userId || sub` reads it.
            .filter(|user_id| !is_empty(user_id))
            .or(self.sub)
            .and_then(Claim::id)
            .ok_or(Refusal::Invalid("no_subject"))?;
        let optional = |claim: Option<Claim<'_>>| match claim {
            None => Ok(None),
            Some(claim) => claim.id().map(Some).ok_or(Refusal::Invalid("malformed")),
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
                Some(claim) => claim.texts().ok_or(Refusal::Invalid("malformed"))?,
            },
        })
    }
}

impl<'a> Claim<'a> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is this name, or a list of names with it.
    fn names(&self, name: &str) -> bool {
        match self {
            Self::Text(text) => text == name,
            Self::List(names) => {
                let is_name = |one: &Claim<'_>| one.text().is_some();
                names.iter().all(is_name) && names.iter().any(|one| one.text() == Some(name))
            }
            Self::Number(_) | Self::Other => false,
        }
    }

    /// An id as text: a string, or an integer as some backends number their users.
    fn id(self) -> Option<Arc<str>> {
        let text: Cow<'a, str> = match self {
            Self::Text(text) => text,
            Self::Number(number) if !number.is_f64() => number.to_string().into(),
            _ => return None,
        };
        let fits = !text.is_empty() && text.len() <= MAX_ID_BYTES;
        (fits && !text.chars().any(char::is_control)).then(|| text.into())
    }

    /// A list of texts, or one text, as `aud` may be written too (RFC 7519, section 4.1.3).
    fn texts(self) -> Option<Arc<[String]>> {
        let list = match self {
            Self::List(list) => list,
            Self::Text(_) => vec![self],
            Self::Number(_) | Self::Other => return None,
        };
        let texts = list.into_iter().map(|one| match one {
            Self::Text(text) => Some(text.into_owned()),
            _ => None,
        });
        texts.collect()
    }

    /// RFC 7519's NumericDate, seconds since 1970 and perhaps a fraction, in milliseconds.
    fn numeric_date(&self) -> Option<u64> {
        let Self::Number(number) = self else {
            return None;
        };
        if let Some(seconds) = number.as_u64() {
            return Some(seconds.saturating_mul(1000));
        }
        let seconds = number.as_f64()?;
        // A float saturates where it is cast; what is negative lies before 1970.
        (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as u64)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Claim<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Claim<'de>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Claim::Text(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Claim::Text(text.to_owned().into()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Claim::Number(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Claim::Number(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Number::from_f64(number).map_or(Claim::Other, Claim::Number))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Claim::Other)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Claim::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut claims = Vec::new();
                while let Some(claim) = list.next_element()? {
                    claims.push(claim);
                }
                Ok(Claim::List(claims))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Claim::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
