//! Who is asking: a token or an API key becomes an [`Identity`] or a [`Refusal`].

pub mod api_key;
pub mod challenge;
pub mod claims;
pub mod issuers;
pub mod jwks;
mod jws;
pub mod keys;
pub mod refresh;
pub mod revocation;
pub mod ring;
pub mod siwe;
pub mod siws;
pub mod token;
pub mod trial;
pub mod wallet;

pub use crate::session::Identity;
pub use token::{Authority, Issued, TokenSubject};

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
