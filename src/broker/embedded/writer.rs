//! The one thread that writes: it gathers what is waiting, commits it in one transaction, and only
//! then acts on it: memory, deliveries in order, answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError};
use redb::WriteTransaction;
use tokio::sync::{oneshot, watch};

use super::batch::{Batch, Staged};
use super::open;
use super::quota::Quota;
use super::ring::{Histories, Ring};
use super::tables::{KV_EXPIRY, Ledger, Tables};
use super::{Shared, kv, lock, log};
use crate::broker::Error;

/// Jobs that one transaction takes at most.
const BATCH_JOBS: usize = 1_024;
/// Bytes of jobs that one transaction takes at most (one job may be larger by itself).
const BATCH_BYTES: usize = 4 << 20;
/// How often the thread looks around when nobody writes.
const TICK: Duration = Duration::from_millis(250);
/// How often expired keys are looked for.
const KEYS_EVERY_MS: u64 = 1_000;
/// How often expired events are forgotten in channels that nobody publishes to.
const RINGS_EVERY_MS: u64 = 60_000;
/// How often histories that have ended are dropped.
const IDLE_EVERY_MS: u64 = 60 * 60 * 1000;

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
        // Whoever asked may have gone away.
        let _ = self.reply.send(answer);
    }
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: Receiver<Box<dyn Job>>,
    /// As of the last commit.
    ledger: Ledger,
    keys_due_ms: u64,
    rings_due_ms: u64,
    idle_due_ms: u64,
    /// More to sweep or to compact than one commit took.
    unfinished: bool,
    /// Tells [`super::Embedded`] that the thread has ended, even by a panic.
    _ended: Ended,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        inbox: Receiver<Box<dyn Job>>,
        ledger: Ledger,
        ended: watch::Sender<()>,
    ) -> Self {
        let now = shared.clock.now().mono_ms;
        Self {
            _ended: Ended {
                shared: Arc::clone(&shared),
                inbox: inbox.clone(),
                _signal: ended,
            },
            shared,
            inbox,
            ledger,
            keys_due_ms: now,
            rings_due_ms: now + RINGS_EVERY_MS,
            idle_due_ms: now + IDLE_EVERY_MS,
            unfinished: false,
        }
    }

    /// Until every sender is gone and everything that was accepted is answered.
    pub(super) fn run(mut self) {
        loop {
            let wait = if self.unfinished {
                Duration::ZERO
            } else {
                TICK
            };
            let jobs = match self.inbox.recv_timeout(wait) {
                Ok(first) => self.gather(first),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.turn(jobs);
        }
    }

    fn gather(&self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut bytes = first.bytes();
        let mut jobs = vec![first];
        while jobs.len() < BATCH_JOBS && bytes < BATCH_BYTES {
            let Ok(job) = self.inbox.try_recv() else {
                break;
            };
            bytes += job.bytes();
            jobs.push(job);
        }
        self.shared.unqueue(jobs.len() as u64, bytes as u64);
        jobs
    }

    fn turn(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        let shared = Arc::clone(&self.shared);
        let counters = &shared.counters;
        let was_down = self.shared.is_down();
        if jobs.is_empty() && !was_down && !self.has_chores() {
            return;
        }
        let count = jobs.len() as u64;
        match self.commit(&mut jobs, was_down) {
            Ok(staged) => {
                self.shared.set_down(None);
                counters.writes.fetch_add(count, Ordering::Relaxed);
                let deliveries = self.remember(staged);
                self.shared.deliver(deliveries);
                for job in jobs {
                    job.answer(Ok(()));
                }
            }
            Err(error) => {
                counters.failures.fetch_add(count, Ordering::Relaxed);
                self.shared.set_down(Some(error.to_string()));
                self.unfinished = false;
                for job in jobs {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }

    /// One transaction. `Ok` means that it is on disk.
    fn commit(&mut self, jobs: &mut [Box<dyn Job>], was_down: bool) -> Result<Staged, Error> {
        if was_down {
            self.reopen()?;
        }
        let shared = Arc::clone(&self.shared);
        let database = lock::read(&shared.database);
        let database = database.as_ref().ok_or(Error::Closed)?;
        let mut tx = database.begin_write().map_err(Error::storage)?;
        // Reopening after a kill takes a millisecond instead of a walk through the file.
        tx.set_quick_repair(true);
        let Some((ledger, staged)) = self.apply(&tx, jobs, was_down)? else {
            tx.abort().map_err(Error::storage)?;
            return Ok(Staged::default());
        };
        tx.commit().map_err(Error::storage)?;
        self.ledger = ledger;
        shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(staged)
    }

    /// Carries the jobs out within a transaction; `None` if nothing came of it.
    fn apply(
        &mut self,
        tx: &WriteTransaction,
        jobs: &mut [Box<dyn Job>],
        was_down: bool,
    ) -> Result<Option<(Ledger, Staged)>, Error> {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch {
            now_ms: shared.clock.unix_ms(),
            tables: Tables::open(tx)?,
            ledger: self.ledger.clone(),
            histories: &shared.histories,
            quota: shared.quota,
            notifications_per_user: shared.notifications_per_user,
            staged: Staged::default(),
        };
        for job in jobs.iter_mut() {
            job.apply(&mut batch)?;
        }
        self.chores(&mut batch)?;
        if !batch.is_dirty() && !was_down {
            return Ok(None);
        }
        batch.ledger.commits += 1;
        batch.ledger.rest_bytes = batch.rest_bytes();
        let ledger = batch.ledger.clone();
        batch.tables.write_ledger(&ledger)?;
        Ok(Some((ledger, batch.staged)))
    }

    /// Sweeps and compaction ride along with a commit, in slices.
    fn chores(&mut self, batch: &mut Batch<'_>) -> Result<(), Error> {
        let now = self.shared.clock.now().mono_ms;
        self.unfinished = false;
        if now >= self.keys_due_ms {
            self.unfinished = kv::sweep(batch)?;
            if !self.unfinished {
                self.keys_due_ms = now + KEYS_EVERY_MS;
            }
        }
        if now >= self.rings_due_ms {
            // A full store cannot wait for the space.
            let every = if self.shared.is_full() {
                KEYS_EVERY_MS
            } else {
                RINGS_EVERY_MS
            };
            self.rings_due_ms = now + every;
            lock::write(&self.shared.histories).expire(batch.now_ms);
        }
        if now >= self.idle_due_ms {
            self.idle_due_ms = now + IDLE_EVERY_MS;
            log::drop_idle(batch)?;
        }
        self.unfinished |= log::compact(batch, self.shared.is_full())?;
        Ok(())
    }

    /// Whether there is something to do without jobs.
    fn has_chores(&mut self) -> bool {
        let now = self.shared.clock.now();
        if self.unfinished || now.mono_ms >= self.rings_due_ms || now.mono_ms >= self.idle_due_ms {
            return true;
        }
        let shared = &self.shared;
        if log::wants_compaction(
            &lock::read(&shared.histories),
            shared.quota.log_floor(),
            shared.is_full(),
        ) {
            return true;
        }
        if now.mono_ms < self.keys_due_ms {
            return false;
        }
        let expired = shared.read(|tx| {
            let table = tx.open_table(KV_EXPIRY).map_err(Error::storage)?;
            kv::has_expired(&table, now.unix_ms)
        });
        let expired = expired.unwrap_or(false);
        if !expired {
            self.keys_due_ms = now.mono_ms + KEYS_EVERY_MS;
        }
        expired
    }

    /// After an I/O error redb refuses everything until its file is opened again.
    fn reopen(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let mut slot = lock::write(&shared.database);
        // Closing fails the same way; the lock on the file is gone in either case.
        drop(slot.take());
        let database = open::reopen(&shared.path).map_err(Error::storage)?;
        if open::read_ledger(&database)? != self.ledger {
            // The commit whose end was not seen is there after all.
            let (ledger, histories) = open::load(&database, shared.clock.unix_ms())?;
            *lock::write(&shared.histories) = histories;
            self.ledger = ledger;
        }
        *slot = Some(database);
        Ok(())
    }

    /// Brings memory to what is on disk; returns what is to be delivered.
    fn remember(&self, staged: Staged) -> Vec<crate::broker::Delivery> {
        let now_ms = self.shared.clock.unix_ms();
        let mut histories = lock::write(&self.shared.histories);
        apply(&mut histories, &staged);
        for (number, limit, slot) in staged.appended {
            histories.append(number, limit, slot, now_ms);
        }
        let figures = &self.shared.counters;
        let weight = Quota::weigh(histories.log_bytes, self.ledger.rest_bytes);
        figures.bytes.store(weight, Ordering::Relaxed);
        let channels = histories.rings.len() as u64;
        figures.channels.store(channels, Ordering::Relaxed);
        figures.events.store(histories.events, Ordering::Relaxed);
        staged.deliveries
    }
}

/// Everything but the new events.
fn apply(histories: &mut Histories, staged: &Staged) {
    for (key, channel) in &staged.channels {
        if !histories.rings.contains_key(&channel.number) {
            let epoch = channel.epoch.clone();
            let ring = Ring::new(key.clone(), epoch, 0, channel.limit);
            histories.insert(channel.number, ring);
        }
    }
    for &(number, offset, from, to) in &staged.moved {
        let ring = histories.rings.get_mut(&number);
        if let Some(slot) = ring.and_then(|ring| ring.slot_mut(offset))
            && slot.sequence == from
        {
            slot.sequence = to;
        }
    }
    for number in &staged.dropped {
        histories.remove(*number);
    }
    if let Some(ground) = &staged.ground {
        histories.ground = ground.clone();
    }
    histories.log_bytes =
        (histories.log_bytes + staged.log_added).saturating_sub(staged.log_removed);
}

/// Lives as long as the thread. When it ends, for whatever reason, nobody may wait for it.
struct Ended {
    shared: Arc<Shared>,
    inbox: Receiver<Box<dyn Job>>,
    _signal: watch::Sender<()>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // No job can be sent after this; those that wait are dropped, which answers `Closed`.
        drop(lock::write(&self.shared.outbox).take());
        self.inbox.drain().for_each(drop);
        *lock::write(&self.shared.sink) = None;
        drop(lock::write(&self.shared.database).take());
    }
}
