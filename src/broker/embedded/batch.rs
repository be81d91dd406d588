//! One transaction of the writer: what its jobs write to, and what follows if it commits.

use std::collections::HashMap;
use std::sync::RwLock;

use super::quota::Quota;
use super::ring::{Histories, Slot};
use super::tables::{Ledger, Tables};
use crate::broker::{Delivery, Error};
use crate::protocol::{ChannelKey, Epoch};

/// What a job of the writer works on. Dropped without effect when the transaction fails.
///
/// A job that answers [`Error::Full`] has written nothing; [`Error::Storage`] ends the whole batch.
pub(super) struct Batch<'t> {
    /// One time for the whole batch.
    pub(super) now_ms: u64,
    pub(super) tables: Tables<'t>,
    /// The first number in the log that this batch gives out.
    pub(super) first_sequence: u64,
    /// A copy; it counts once the commit is through.
    pub(super) ledger: Ledger,
    /// As of the last commit, and what relaxed publishers append meanwhile.
    pub(super) histories: &'t RwLock<Histories>,
    pub(super) quota: Quota,
    pub(super) disk_is_low: bool,
    pub(super) notifications_per_user: usize,
    pub(super) staged: Staged,
}

/// What is done in memory after the commit.
#[derive(Default)]
pub(super) struct Staged {
    /// Numbers of channels that have a row now.
    pub(super) stored: Vec<u64>,
    /// Memory may run ahead of the disk once this is there.
    pub(super) is_ahead: bool,
    /// Memory is no longer ahead of the disk.
    pub(super) has_caught_up: bool,
    /// Channels that were written to, as they will be.
    pub(super) channels: HashMap<ChannelKey, StagedChannel>,
    /// New events, in order: channel number, limit, event.
    pub(super) appended: Vec<(u64, usize, Slot)>,
    /// Rows that were copied forward: channel number, offset, old and new place in the log.
    pub(super) moved: Vec<(u64, u64, u64, u64)>,
    /// Channels whose history has ended.
    pub(super) dropped: Vec<u64>,
    /// The new ground epoch.
    pub(super) ground: Option<Epoch>,
    /// Bytes that came to the log and left it.
    pub(super) log_added: u64,
    pub(super) log_removed: u64,
    /// For the sink, in order.
    pub(super) deliveries: Vec<Delivery>,
}

/// A channel within a batch.
#[derive(Clone)]
pub(super) struct StagedChannel {
    pub(super) number: u64,
    pub(super) epoch: Epoch,
    pub(super) top: u64,
    pub(super) limit: usize,
    pub(super) relaxed: bool,
}

impl Batch<'_> {
    /// Asks for room for `bytes` more (which weigh twice as much at most). Whatever frees space does not ask.
    pub(super) fn room(&self, bytes: u64) -> Result<(), Error> {
        if !self.disk_is_low && self.quota.admits(self.weight() + 2 * bytes) {
            Ok(())
        } else {
            Err(Error::Full)
        }
    }

    /// The same for what is small and must not be refused as long as it can be helped.
    pub(super) fn last_room(&self, bytes: u64) -> Result<(), Error> {
        if self.quota.admits_last(self.weight() + 2 * bytes) {
            Ok(())
        } else {
            Err(Error::Full)
        }
    }

    /// What the database would weigh if it were committed now.
    fn weight(&self) -> u64 {
        let log = super::lock::read(self.histories).log_bytes;
        Quota::weigh(
            (log + self.staged.log_added).saturating_sub(self.staged.log_removed),
            self.rest_bytes(),
        )
    }

    /// What all tables but the log weigh.
    pub(super) fn rest_bytes(&self) -> u64 {
        self.ledger
            .rest_bytes
            .saturating_add_signed(self.tables.grown())
    }

    /// Whether there is anything to commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.tables.touched()
            || self.staged.log_added > 0
            || self.staged.has_caught_up
            || self.staged.log_removed > 0
            || self.staged.ground.is_some()
    }
}
