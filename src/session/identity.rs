//! Who a client is.

use std::sync::Arc;

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
    /// Which life of tokens its user was given to try, while that trial goes on.
    pub variant: Option<Arc<str>>,
    /// The `channels` claim: keys, exact or with a trailing `*`.
    pub channels: Arc<[String]>,
}
