//! What callers hand to the writer thread.

use tokio::sync::oneshot;

use super::batch::Batch;
use super::relaxed::Detour;
use crate::broker::Error;

/// A write on its way to the disk.
pub(super) trait Job: Send {
    /// What it brings, for the bound of a batch.
    fn bytes(&self) -> usize;
    /// Writes. An error is the storage's and ends the batch.
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Error>;
    /// Tells the caller: what [`Job::apply`] found, or why the batch failed.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

/// The usual [`Job`]: a closure and who waits for what it returns.
pub(super) struct Task<T, F> {
    pub(super) bytes: usize,
    pub(super) write: Option<F>,
    pub(super) outcome: Option<Result<T, Error>>,
    pub(super) reply: oneshot::Sender<Result<T, Error>>,
    /// Ends with the answer.
    pub(super) detour: Option<Detour>,
}

impl<T: Send, F> Job for Task<T, F>
where
    F: FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Error> {
        let Some(write) = self.write.take() else {
            return Ok(());
        };
        match write(batch) {
            Err(error @ Error::Storage(_)) => Err(error),
            outcome => {
                self.outcome = Some(outcome);
                Ok(())
            }
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let answer = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(Error::Closed),
            (Err(error), _) => Err(error),
        };
        // A publisher that goes on from its answer may go on at once.
        drop(self.detour);
        // Whoever asked may have gone away.
        let _ = self.reply.send(answer);
    }
}
