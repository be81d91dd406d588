//! What is taken back before its time, as the store keeps it.
//!
//! Not for: looking it up for every request (`auth::revocation`), or deciding what is taken back.

/// Tokens that are not to be believed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub revoked: Revoked,
    /// When the last of them has expired by itself, in milliseconds since 1970: the store forgets
    /// the revocation then.
    pub keep_until_ms: u64,
}

/// Which tokens a [`Revocation`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// The one with this `jti`.
    Token {
        /// Its `jti`.
        id: String,
    },
    /// Those of one sign-in and its refreshes.
    Family {
        /// The family's id.
        id: String,
    },
    /// Those of a user that were issued before a moment.
    User {
        /// The user's id.
        id: String,
        /// The moment, in milliseconds since 1970.
        before_ms: u64,
    },
}

/// Some of the revocations of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationPage {
    /// In no particular order.
    pub revocations: Vec<Revocation>,
    /// Where the next page starts; `None` on the last one.
    pub next_cursor: Option<String>,
}
