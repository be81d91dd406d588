//! How long an answer of the store or the broker is waited for.

use std::future::Future;
use std::time::Duration;

use crate::broker::Error;

/// For what a client waits for. Longer than any commit on a healthy disk, shorter than what
/// reverse proxies wait for us (nginx: 60 s).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the live event after a change that is stored already: the answer should not wait long for
/// what the unread list repairs anyway.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer, or [`Error::Unavailable`] if it does not come within `patience`: then nothing is
/// known about a write, as that error says.
pub async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(patience, answer)
        .await
        .unwrap_or(Err(Error::Unavailable))
}
