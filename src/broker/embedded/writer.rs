//! The one thread that writes: it gathers what is waiting, commits it in one transaction, and only
//! then acts on it: memory, deliveries in order, answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flume::{Receiver, RecvTimeoutError};
use redb::WriteTransaction;
use tokio::sync::watch;

use super::batch::{Batch, Staged};
use super::disk::Disk;
use super::job::Job;
use super::open;
use super::relaxed::{self, Unwritten};
use super::repair;
use super::ring::Histories;
use super::tables::{KV_EXPIRY, Ledger, REVOCATION_EXPIRY, Tables};
use super::{Shared, kv, lock, log, revocations};
use crate::broker::Error;

/// Jobs that one transaction takes at most.
const BATCH_JOBS: usize = 1_024;
/// Bytes of jobs that one transaction takes at most (one job may be larger by itself).
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch waits for the next of the writers that were just answered, in eighths of a commit:
/// most come back soon, and without them every second batch would be what the one before left out.
const PATIENCE_SHARE: u64 = 8;
/// And for all of them together: half a commit, this at least.
const PATIENCE_MS: u64 = 2;
/// How often the thread looks around when nobody writes.
const TICK: Duration = Duration::from_millis(250);
/// The same while events are published ahead of the disk: they are there within 100 ms.
const RELAXED_TICK: Duration = Duration::from_millis(25);
/// How often expired keys and revocations are looked for.
const KEYS_EVERY_MS: u64 = 1_000;
/// How often expired events are looked for in the next slice of channels.
const RINGS_EVERY_MS: u64 = 250;
/// How often histories that have ended are dropped.
const IDLE_EVERY_MS: u64 = 60 * 60 * 1000;

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: Receiver<Box<dyn Job>>,
    /// As of the last commit.
    ledger: Ledger,
    /// What the commit under way, or one that failed, was to put into the log.
    taken: Vec<Unwritten>,
    /// A commit that failed at its end: its ledger, what follows from it, how much of `taken` it has.
    unsure: Option<(Ledger, Staged, usize)>,
    is_closing: bool,
    /// Writers that may come again at once: those answered last and those that waited meanwhile.
    expected: usize,
    /// The last commit was one that a crash would make us walk for (`repair`).
    is_at_risk: bool,
    last_commit_ms: u64,
    /// How long the last commit took.
    commit_ms: u64,
    disk: Disk,
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
        let disk = Disk::new(&shared.path);
        Self {
            _ended: Ended {
                shared: Arc::clone(&shared),
                inbox: inbox.clone(),
                _signal: ended,
            },
            shared,
            inbox,
            ledger,
            taken: Vec::new(),
            unsure: None,
            is_closing: false,
            expected: 0,
            is_at_risk: false,
            last_commit_ms: now,
            commit_ms: 0,
            disk,
            keys_due_ms: now,
            rings_due_ms: now,
            idle_due_ms: now + IDLE_EVERY_MS,
            unfinished: false,
        }
    }

    /// Until every sender is gone and everything that was accepted is answered.
    pub(super) fn run(mut self) {
        loop {
            let wait = match self.unfinished {
                true => Duration::ZERO,
                false if self.ledger.ahead => RELAXED_TICK,
                false => TICK,
            };
            let jobs = match self.inbox.recv_timeout(wait) {
                Ok(first) => self.gather(first),
                Err(RecvTimeoutError::Timeout) => {
                    self.expected = 0;
                    Vec::new()
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_closing = true;
                    self.turn(Vec::new());
                    return;
                }
            };
            self.turn(jobs);
        }
    }

    fn gather(&self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut bytes = first.bytes();
        let mut jobs = vec![first];
        let now_ms = self.shared.clock.now().mono_ms;
        let most_ms = PATIENCE_MS.max(self.commit_ms / 2);
        let until_ms = now_ms.min(self.last_commit_ms).saturating_add(most_ms);
        let patience_us = self.commit_ms * 1_000 / PATIENCE_SHARE;
        let patience = Duration::from_micros(patience_us.clamp(50, 1_000));
        while jobs.len() < BATCH_JOBS && bytes < BATCH_BYTES {
            let next = if jobs.len() < self.expected && self.shared.clock.now().mono_ms < until_ms {
                self.inbox.recv_timeout(patience).ok()
            } else {
                self.inbox.try_recv().ok()
            };
            let Some(job) = next else {
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
        self.sweep_rings();
        if shared.disk_is_low() {
            // Publishers that were refused leave nothing here that would make it look again.
            self.look_at_disk(&[]);
        }
        if jobs.is_empty() && !was_down && !self.has_chores() {
            return;
        }
        self.take_unwritten();
        self.look_at_disk(&jobs);
        let count = (jobs.len() + self.taken.len()) as u64;
        match self.commit(&mut jobs, was_down) {
            Ok(staged) => {
                self.shared.set_down(None);
                self.forget_taken(self.taken.len());
                counters.writes.fetch_add(count, Ordering::Relaxed);
                let deliveries = self.remember(staged);
                self.shared.deliver(deliveries);
                self.expected = jobs.len() + self.inbox.len();
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

    /// Before every commit; mostly without asking the system.
    fn look_at_disk(&mut self, jobs: &[Box<dyn Job>]) {
        let queued: usize = jobs.iter().map(|job| job.bytes()).sum();
        let unwritten: u64 = self.taken.iter().map(Unwritten::bytes).sum();
        // The pages above the rows that change.
        let pages = (jobs.len() as u64 + 16) * 8_192;
        let bytes = 2 * (queued as u64 + unwritten) + pages;
        let weight = self.shared.counters.bytes.load(Ordering::Relaxed);
        let now = self.shared.clock.now().mono_ms;
        let is_low = self.disk.is_low(now, bytes, weight);
        self.shared.disk_is_low.store(is_low, Ordering::Relaxed);
        let credit = self.disk.credit();
        self.shared.disk_credit.store(credit, Ordering::Relaxed);
    }

    /// Memory only: the log follows when enough of it is dead.
    fn sweep_rings(&mut self) {
        let now = self.shared.clock.now();
        if now.mono_ms < self.rings_due_ms {
            return;
        }
        self.rings_due_ms = now.mono_ms + RINGS_EVERY_MS;
        let mut histories = lock::write(&self.shared.histories);
        histories.sweep(now.unix_ms);
        self.shared
            .counters
            .show(&histories, self.ledger.rest_bytes);
    }

    /// Takes over what relaxed publishers have left.
    fn take_unwritten(&mut self) {
        let mut histories = lock::write(&self.shared.histories);
        if self.is_closing {
            histories.may_run_ahead = false;
        }
        self.taken.append(&mut histories.unwritten);
    }

    /// The first `count` that were taken are on disk.
    fn forget_taken(&mut self, count: usize) {
        let written: u64 = self.taken.drain(..count).map(|event| event.bytes()).sum();
        if self.taken.is_empty() {
            self.taken = Vec::new();
        }
        lock::write(&self.shared.histories).unwritten_bytes -= written;
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
        let began_ms = shared.clock.now().mono_ms;
        let log_bytes = lock::read(&shared.histories).log_bytes;
        let is_busy = !jobs.is_empty() || !self.taken.is_empty();
        let risks_walk = is_busy && repair::is_short(log_bytes, self.ledger.rest_bytes);
        tx.set_quick_repair(!risks_walk);
        // Without anything new, too, there is something to commit.
        let must = was_down || self.is_at_risk && !is_busy;
        let Some((ledger, staged)) = self.apply(&tx, jobs, must)? else {
            tx.abort().map_err(Error::storage)?;
            return Ok(Staged::default());
        };
        if let Err(error) = tx.commit() {
            self.unsure = Some((ledger, staged, self.taken.len()));
            return Err(Error::storage(error));
        }
        self.ledger = ledger;
        self.is_at_risk = risks_walk;
        self.last_commit_ms = shared.clock.now().mono_ms;
        self.commit_ms = self.last_commit_ms - began_ms;
        shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(staged)
    }

    /// Carries the jobs out within a transaction; `None` if nothing came of it.
    fn apply(
        &mut self,
        tx: &WriteTransaction,
        jobs: &mut [Box<dyn Job>],
        must: bool,
    ) -> Result<Option<(Ledger, Staged)>, Error> {
        let shared = Arc::clone(&self.shared);
        let mut batch = Batch {
            now_ms: shared.clock.unix_ms(),
            tables: Tables::open(tx)?,
            first_sequence: self.ledger.next_sequence,
            ledger: self.ledger.clone(),
            histories: &shared.histories,
            quota: shared.quota(),
            disk_is_low: shared.disk_is_low(),
            notifications_per_user: shared.notifications_per_user.load(Ordering::Relaxed),
            staged: Staged::default(),
        };
        relaxed::write_out(&mut batch, &self.taken)?;
        for job in jobs.iter_mut() {
            job.apply(&mut batch)?;
        }
        self.chores(&mut batch)?;
        if !batch.is_dirty() && !must {
            return Ok(None);
        }
        batch.ledger.commits += 1;
        batch.ledger.rest_bytes = batch.rest_bytes();
        batch.ledger.next_channel = lock::read(&shared.histories).next_channel;
        let ledger = batch.ledger.clone();
        batch.tables.write_ledger(&ledger)?;
        Ok(Some((ledger, batch.staged)))
    }

    /// Sweeps and compaction ride along with a commit, in slices.
    fn chores(&mut self, batch: &mut Batch<'_>) -> Result<(), Error> {
        let now = self.shared.clock.now().mono_ms;
        self.unfinished = false;
        if now >= self.keys_due_ms {
            self.unfinished = kv::sweep(batch)? | revocations::sweep(batch)?;
            if !self.unfinished {
                self.keys_due_ms = now + KEYS_EVERY_MS;
            }
        }
        if now >= self.idle_due_ms {
            if log::drop_idle(batch)? {
                self.unfinished = true;
            } else {
                self.idle_due_ms = now + IDLE_EVERY_MS;
            }
        }
        relaxed::catch_up(batch, now, self.is_closing);
        self.unfinished |= log::compact(batch, self.shared.is_pressed())?;
        Ok(())
    }

    /// Whether there is something to do without jobs.
    fn has_chores(&mut self) -> bool {
        let now = self.shared.clock.now();
        let is_quiet = now.mono_ms >= self.last_commit_ms.saturating_add(repair::QUIET_MS);
        if self.unfinished || now.mono_ms >= self.idle_due_ms || self.is_at_risk && is_quiet {
            return true;
        }
        let shared = &self.shared;
        {
            let histories = lock::read(&shared.histories);
            let quiet_ms = histories.relaxed_ms.saturating_add(relaxed::QUIET_MS);
            let is_ahead = self.ledger.ahead && (self.is_closing || now.mono_ms >= quiet_ms);
            let floor = shared.quota().log_floor();
            if is_ahead
                || !histories.unwritten.is_empty()
                || log::wants_compaction(&histories, floor, shared.is_pressed())
            {
                return true;
            }
        }
        if now.mono_ms < self.keys_due_ms {
            return false;
        }
        let expired = shared.read(|tx| {
            let keys = tx.open_table(KV_EXPIRY).map_err(Error::storage)?;
            let revoked = tx.open_table(REVOCATION_EXPIRY).map_err(Error::storage)?;
            Ok(kv::has_expired(&keys, now.unix_ms)?
                || revocations::has_expired(&revoked, now.unix_ms)?)
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
        let on_disk = open::read_ledger(&database)?;
        let unsure = self.unsure.take();
        match unsure {
            // The commit whose end was not seen is there after all.
            Some((ledger, staged, taken)) if ledger == on_disk => {
                self.ledger = ledger;
                self.forget_taken(taken);
                for missed in self.remember(staged) {
                    self.shared.gap(&missed.channel);
                }
            }
            _ if on_disk == self.ledger => {}
            // Somebody else has written to it.
            _ => {
                open::end_epochs(&database)?;
                let history_bytes = shared.history_bytes.load(Ordering::Relaxed);
                let (ledger, histories) =
                    open::load(&database, shared.clock.unix_ms(), history_bytes)?;
                *lock::write(&shared.histories) = histories;
                self.ledger = ledger;
                self.taken = Vec::new();
            }
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
        let rest_bytes = self.ledger.rest_bytes;
        self.shared.counters.show(&histories, rest_bytes);
        if staged.is_ahead {
            histories.may_run_ahead = !self.is_closing;
            histories.relaxed_ms = self.shared.clock.now().mono_ms;
        }
        staged.deliveries
    }
}

/// Everything but the new events.
fn apply(histories: &mut Histories, staged: &Staged) {
    for number in &staged.stored {
        if let Some(ring) = histories.rings.get_mut(number) {
            ring.is_stored = true;
        }
    }
    for channel in staged.channels.values() {
        if let Some(ring) = histories.rings.get_mut(&channel.number) {
            ring.is_stored = true;
            ring.relaxed = channel.relaxed;
            ring.is_held = false;
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
