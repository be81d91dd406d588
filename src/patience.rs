//! How long an answer of the store or the broker is waited for, and how several are.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::broker::Error;

/// For what a client waits for. Longer than any commit on a healthy disk, shorter than what
/// reverse proxies wait for us (nginx: 60 s).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// For the live event after a change that is stored already: the answer should not wait long for
/// what the unread list repairs anyway.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Publications of one request that are under way at once: enough to share commits, too few to
/// fill the store's queue.
pub const AT_ONCE: usize = 64;

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

/// Waits for all of `futures`, which share this task; their outputs in order.
pub async fn together<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in waiting.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
