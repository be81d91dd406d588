//! Who a client is.

use std::sync::Arc;

/// What a verified token says. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `userId`, else `sub`; never empty.
    pub user_id: Arc<str>,
    /// The wallet, if the token names one.
    pub wallet: Option<Arc<str>>,
    /// The token's id, by which it can be revoked: its `jti`, or one that was made up for it.
    pub jti: Option<Arc<str>>,
    /// The sign-in that it goes back to, if it was issued here.
    pub family: Option<Arc<str>>,
    /// When it was issued, in milliseconds since 1970; 0 if it does not say.
    pub issued_at_ms: u64,
    /// `exp` in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Which life of tokens its user was given to try, while that trial goes on.
    pub variant: Option<Arc<str>>,
    /// The `channels` claim: keys, exact or with a trailing `*`.
    pub channels: Arc<[String]>,
}
