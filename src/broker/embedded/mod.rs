//! Broker and store in this process: rings in memory, one redb file, one thread that writes.
//!
//! Every write goes through the thread `fanfare-store`, which commits all that is waiting at once
//! and answers when it is on disk; only relaxed events (`relaxed`) are answered before. Reads run where they are called: a read transaction takes about a
//! microsecond and a list of twenty some tens, less than handing them to another thread would.
//! Events of channels without history never touch the disk or the thread.
//!
//! Not for: several nodes. This one delivers to its own sink only.

mod batch;
mod budgets;
pub mod copy;
mod disk;
mod events;
mod idempotency;
mod job;
mod kv;
mod lock;
mod log;
pub mod maintenance;
mod memory;
pub mod migration;
mod notifications;
mod open;
mod presence;
mod quota;
mod records;
mod relaxed;
mod repair;
mod revocations;
mod ring;
mod row;
mod tables;
mod users;
mod writer;

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use flume::{Sender, TrySendError};
use redb::{Database, ReadTransaction, ReadableDatabase};
use tokio::sync::{oneshot, watch};

use super::{Deliver, Delivery, Error, Health, StoreFigures};
use crate::clock::Clock;
use crate::config::Limits;
use crate::protocol::ChannelKey;
use batch::Batch;
use budgets::Purses;
use job::{Job, Task};
pub use open::{FILE_NAME, OpenError};
use presence::Rooms;
use quota::Quota;
use relaxed::Detour;
use ring::Histories;
use writer::Writer;

/// Writes that may wait; one more is [`Error::Overloaded`].
const INBOX_JOBS: usize = 8_192;
/// Bytes of writes that may wait.
const INBOX_BYTES: u64 = 64 << 20;
/// Locks that keep the deliveries of one channel one at a time. Two channels may share one.
const STRIPES: usize = 64;

/// How to open an [`Embedded`].
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file. Created, for its owner alone, if it is missing.
    pub path: PathBuf,
    /// `limits.store_bytes`; `u64::MAX` is no limit.
    pub store_bytes: u64,
    /// `limits.history_bytes`; `u64::MAX` is no limit.
    pub history_bytes: u64,
    /// `limits.notifications_per_user`; `usize::MAX` is no limit.
    pub notifications_per_user: usize,
}

/// Opens or creates the database, rebuilds the histories from it and starts the writer. Blocks for
/// as long as reading the log takes.
pub fn open(options: Options, clock: Clock) -> Result<Arc<Embedded>, OpenError> {
    let opened = open::open(&options.path, clock.unix_ms(), options.history_bytes)?;
    let (outbox, inbox) = flume::bounded(INBOX_JOBS);
    let (ended_tx, ended) = watch::channel(());
    let counters = Counters::default();
    counters.show(&opened.histories, opened.ledger.rest_bytes);
    let shared = Arc::new(Shared {
        path: options.path.clone(),
        clock,
        store_bytes: options.store_bytes.into(),
        history_bytes: options.history_bytes.into(),
        notifications_per_user: options.notifications_per_user.into(),
        database: RwLock::new(Some(opened.database)),
        histories: RwLock::new(opened.histories),
        presence: Mutex::new(Rooms::default()),
        purses: Purses::default(),
        sink: RwLock::new(None),
        stripes: std::array::from_fn(|_| Mutex::default()),
        outbox: RwLock::new(Some(outbox)),
        is_closed: AtomicBool::new(false),
        disk_is_low: AtomicBool::new(false),
        disk_credit: AtomicU64::new(0),
        down: Mutex::new(None),
        counters,
    });
    let writer = Writer::new(Arc::clone(&shared), inbox, opened.ledger, ended_tx);
    let thread = std::thread::Builder::new()
        .name("fanfare-store".into())
        .spawn(move || writer.run())
        .map_err(|source| OpenError::Io {
            path: options.path,
            source,
        })?;
    Ok(Arc::new(Embedded {
        shared,
        ended,
        thread: Mutex::new(Some(thread)),
    }))
}

/// Broker and store in this process. Dropping it finishes what was accepted and closes the file.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Its sender lives in the writer thread.
    ended: watch::Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the writer thread share.
struct Shared {
    path: PathBuf,
    clock: Clock,
    store_bytes: AtomicU64,
    history_bytes: AtomicU64,
    notifications_per_user: AtomicUsize,
    /// `None` once closed, and while it cannot be opened again after an error.
    database: RwLock<Option<Database>>,
    histories: RwLock<Histories>,
    presence: Mutex<Rooms>,
    purses: Purses,
    sink: RwLock<Option<Arc<dyn Deliver>>>,
    stripes: [Mutex<Stripe>; STRIPES],
    /// `None` once closing: jobs are sent under the read lock, so none comes after it was taken.
    outbox: RwLock<Option<Sender<Box<dyn Job>>>>,
    is_closed: AtomicBool,
    /// The file system has too little room left (`disk`).
    disk_is_low: AtomicBool,
    /// What may be written before the writer looks at the disk again.
    disk_credit: AtomicU64,
    /// Why the storage does not work.
    down: Mutex<Option<String>>,
    counters: Counters,
}

/// What the channels of one lock share.
#[derive(Default)]
struct Stripe {
    /// Relaxed publications under way by the disk, by channel. None of the channel may pass them.
    detours: HashMap<ChannelKey, usize>,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    queued: AtomicU64,
    queued_bytes: AtomicU64,
    commits: AtomicU64,
    writes: AtomicU64,
    failures: AtomicU64,
    channels: AtomicU64,
    events: AtomicU64,
    memory: AtomicU64,
}

impl Counters {
    /// Takes over the figures of what there is.
    fn show(&self, histories: &Histories, rest_bytes: u64) {
        let weight = Quota::weigh(histories.log_bytes, rest_bytes);
        self.bytes.store(weight, Ordering::Relaxed);
        let channels = histories.rings.len() as u64;
        self.channels.store(channels, Ordering::Relaxed);
        self.events.store(histories.events, Ordering::Relaxed);
        self.memory.store(histories.memory.used, Ordering::Relaxed);
    }
}

impl Embedded {
    /// Until the writer thread has ended: after a close, or by a panic, which redb is given to where the
    /// file is damaged.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: the error is the thread's end.
        while ended.changed().await.is_ok() {}
    }

    /// Hands a write to the writer thread and waits until it is on disk. `bytes` is what it brings.
    async fn write<T, F>(&self, bytes: usize, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.write_holding(None, bytes, write).await
    }

    /// The same; `detour` ends when it has been answered.
    async fn write_holding<T, F>(
        &self,
        detour: Option<Detour>,
        bytes: usize,
        write: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Batch<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Box::new(Task {
            bytes,
            write: Some(write),
            outcome: None,
            reply,
            detour,
        }))?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// New bounds, from now on. Histories that are larger than they may be now give at once;
    /// notifications with the next one of their user.
    pub fn rebound(&self, limits: &Limits) {
        let shared = &self.shared;
        let (store_bytes, history_bytes) = (limits.store_bytes, limits.history_bytes);
        shared.store_bytes.store(store_bytes, Ordering::Relaxed);
        shared.history_bytes.store(history_bytes, Ordering::Relaxed);
        shared
            .notifications_per_user
            .store(limits.notifications_per_user, Ordering::Relaxed);
        let mut histories = lock::write(&shared.histories);
        histories.memory.rebound(history_bytes);
        histories.bound();
    }

    fn health(&self) -> Health {
        let shared = &self.shared;
        if shared.is_closed() {
            return Health::Down("the store is closed".into());
        }
        if let Some(cause) = lock::lock(&shared.down).clone() {
            return Health::Down(cause);
        }
        if shared.disk_is_low() {
            return Health::Degraded("the disk is nearly full".into());
        }
        if shared.is_full() {
            return Health::Degraded("limits.store_bytes is reached".into());
        }
        Health::Up
    }

    fn figures(&self) -> StoreFigures {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreFigures {
            bytes: load(&counters.bytes),
            queued_writes: load(&counters.queued),
            commits: load(&counters.commits),
            writes: load(&counters.writes),
            failures: load(&counters.failures),
            history_channels: load(&counters.channels),
            history_events: load(&counters.events),
            history_bytes: load(&counters.memory),
        }
    }

    /// Takes no more, finishes what was accepted, closes the file.
    async fn close(&self) {
        self.shared.begin_close();
        self.ended().await;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.begin_close();
        let thread = lock::lock(&self.thread).take();
        // The last reference may be the sink's, and be dropped on the writer thread itself.
        if let Some(thread) = thread.filter(|it| it.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn send(&self, job: Box<dyn Job>) -> Result<(), Error> {
        let outbox = lock::read(&self.outbox);
        let outbox = outbox.as_ref().ok_or(Error::Closed)?;
        if self.counters.queued_bytes.load(Ordering::Relaxed) > INBOX_BYTES {
            return Err(Error::Overloaded);
        }
        let bytes = job.bytes() as u64;
        self.counters
            .queued_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        outbox.try_send(job).map_err(|refused| {
            self.unqueue(1, bytes);
            match refused {
                TrySendError::Full(_) => Error::Overloaded,
                TrySendError::Disconnected(_) => Error::Closed,
            }
        })
    }

    /// Writes that wait no longer.
    fn unqueue(&self, jobs: u64, bytes: u64) {
        self.counters
            .queued_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
        self.counters.queued.fetch_sub(jobs, Ordering::Relaxed);
    }

    fn begin_close(&self) {
        self.is_closed.store(true, Ordering::Release);
        drop(lock::write(&self.outbox).take());
    }

    /// Whether it is closed or closing, or the writer thread is gone.
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire) || lock::read(&self.outbox).is_none()
    }

    fn is_down(&self) -> bool {
        lock::lock(&self.down).is_some()
    }

    fn set_down(&self, cause: Option<String>) {
        *lock::lock(&self.down) = cause;
    }

    fn disk_is_low(&self) -> bool {
        self.disk_is_low.load(Ordering::Relaxed)
    }

    /// Whether space is worth more than the work of freeing it.
    fn is_pressed(&self) -> bool {
        self.is_full() || self.disk_is_low()
    }

    fn quota(&self) -> Quota {
        Quota {
            store_bytes: self.store_bytes.load(Ordering::Relaxed),
        }
    }

    fn is_full(&self) -> bool {
        let weight = self.counters.bytes.load(Ordering::Relaxed);
        self.quota().is_full(weight)
    }

    /// Reads on the caller's thread what is committed.
    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let database = lock::read(&self.database);
        let Some(database) = database.as_ref() else {
            return Err(match lock::lock(&self.down).as_ref() {
                Some(cause) if !self.is_closed() => Error::storage(cause),
                _ => Error::Closed,
            });
        };
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let outcome = database
            .begin_read()
            .map_err(Error::storage)
            .and_then(|tx| read(&tx));
        if let Err(error @ Error::Storage(_)) = &outcome {
            // The writer opens the file again.
            self.set_down(Some(error.to_string()));
        }
        outcome
    }

    /// Hands events to the sink, those of one channel one at a time and in order.
    fn deliver(&self, deliveries: impl IntoIterator<Item = Delivery>) {
        let Some(sink) = lock::read(&self.sink).clone() else {
            return;
        };
        for delivery in deliveries {
            let _one_at_a_time = lock::lock(self.stripe(&delivery.channel));
            sink.deliver(delivery);
        }
    }

    /// Hands a notice to the sink.
    fn notice(&self, notice: Bytes) {
        if let Some(sink) = lock::read(&self.sink).clone() {
            sink.notice(notice);
        }
    }

    /// Tells the sink that events of a channel were not delivered.
    fn gap(&self, channel: &ChannelKey) {
        if let Some(sink) = lock::read(&self.sink).clone() {
            sink.gap(Some(channel));
        }
    }

    /// Asks for room for `bytes` more.
    fn room(&self, bytes: u64) -> Result<(), Error> {
        let weight = self.counters.bytes.load(Ordering::Relaxed);
        if self.quota().admits(weight.saturating_add(bytes)) && !self.disk_is_low() {
            Ok(())
        } else {
            Err(Error::Full)
        }
    }

    fn stripe(&self, channel: &ChannelKey) -> &Mutex<Stripe> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(channel);
        &self.stripes[(hash % STRIPES as u64) as usize]
    }
}
