//! Who is asking: a token or an API key becomes an [`Identity`] or a [`Refusal`].

pub mod api_key;
pub mod keys;
pub mod token;
pub mod wallet;

use std::sync::Arc;

pub use token::{Authority, Issued, TokenSubject};

/// What a verified token says. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `userId`, else `sub`; never empty.
    pub user_id: Arc<str>,
    /// The wallet, if the token names one.
    pub wallet: Option<Arc<str>>,
    /// The token's id, if it has one.
    pub jti: Option<Arc<str>>,
    /// `exp` in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// The `channels` claim: keys, exact or with a trailing `*`.
    pub channels: Arc<[String]>,
}

/// Why a token is not believed; what the client is told, and which check the log names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("No token provided")]
    Missing,
    /// Its time is over.
    #[error("Token expired")]
    Expired,
    /// It was taken back.
    #[error("Token revoked")]
    Revoked,
    /// Anything else; which check failed.
    #[error("Invalid token")]
    Invalid(&'static str),
}

impl Refusal {
    /// The check that failed, for logs and metric labels: a word of a fixed, small set.
    pub const fn check(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Invalid(check) => check,
        }
    }
}
