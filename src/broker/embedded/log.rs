//! The history of channels on disk: one log for all of them, keyed by an increasing number.
//!
//! Appending at one end is what redb does best (CRATES.md: four times the rows of a key per channel,
//! a fifteenth of the bytes). The price is that a channel's dead rows leave only with everything
//! in front of them; so when most of the log is dead, the living rows of its oldest part are copied
//! to the end, in slices, and the part is dropped.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::batch::{Batch, StagedChannel};
use super::idempotency;
use super::ring::{Histories, Ring, Slot, log_json_bytes, log_row_bytes};
use super::row::{RowReader, RowWriter};
use super::tables::{CHANNELS, LOG, Ledger, Tables, row_of};
use super::{lock, open::random_epoch};
use crate::broker::{Delivery, Durability, Error, Publication, Published, Retention};
use crate::clock::millis;
use crate::protocol::{ChannelKey, Epoch, Event, Position};

/// Rows of the log that one commit copies or drops.
const SLICE_ROWS: usize = 2_048;
/// Bytes that one commit copies at most.
const SLICE_BYTES: u64 = 512 << 10;
/// How long a channel's last position outlives its last event.
pub(super) const IDLE_MS: u64 = 60 * 60 * 1000;
/// Channels that one sweep drops at most.
const SWEEP_CHANNELS: usize = 10_000;

/// Publishes, within a batch.
pub(super) fn publish(
    batch: &mut Batch<'_>,
    publication: &Publication,
) -> Result<Published, Error> {
    let key = publication.idempotency_key.as_deref();
    if let Some(answer) = key
        .map(|key| idempotency::published(batch, key))
        .transpose()?
        .flatten()
    {
        return Ok(answer);
    }
    let event_bytes = if publication.retention.is_some() {
        log_row_bytes(&publication.event) + 2 * publication.channel.as_str().len() as u64
    } else {
        0
    };
    batch.room(event_bytes + key.map_or(0, idempotency::row_bytes))?;
    let position = match publication.retention {
        Some(retention) => Some(append(batch, publication, retention)?),
        None => None,
    };
    if let Some(key) = key {
        idempotency::remember_published(batch, key, &publication.channel, position.as_ref())?;
    }
    batch.staged.deliveries.push(Delivery {
        channel: publication.channel.clone(),
        event: publication.event.clone(),
        position: position.clone(),
        trace: publication.trace,
    });
    Ok(Published {
        position,
        repeated: false,
    })
}

fn append(
    batch: &mut Batch<'_>,
    publication: &Publication,
    retention: Retention,
) -> Result<Position, Error> {
    let limit = retention.entries.max(1);
    let relaxed = retention.durability == Durability::Relaxed;
    let mut channel = channel_of(batch, &publication.channel, limit, relaxed)?;
    channel.top += 1;
    let expire_ms = batch.now_ms.saturating_add(millis(retention.ttl));
    let event = publication.event.clone();
    let sequence = insert(
        batch,
        channel.number,
        channel.top,
        expire_ms,
        event.as_bytes(),
    )?;
    let slot = Slot {
        sequence,
        expire_ms,
        event,
    };
    batch.staged.appended.push((channel.number, limit, slot));
    if relaxed {
        batch.ledger.ahead = true;
        batch.staged.is_ahead = true;
    }
    let position = Position {
        epoch: channel.epoch.clone(),
        offset: channel.top,
    };
    batch
        .staged
        .channels
        .insert(publication.channel.clone(), channel);
    Ok(position)
}

/// Adds a row at the end; its number.
pub(super) fn insert(
    batch: &mut Batch<'_>,
    channel: u64,
    offset: u64,
    expire_ms: u64,
    json: &[u8],
) -> Result<u64, Error> {
    let sequence = batch.ledger.next_sequence;
    batch.ledger.next_sequence += 1;
    let row = LogRow {
        channel,
        offset,
        expire_ms,
        json,
    };
    batch
        .tables
        .log
        .insert(sequence, row.to_row().as_slice())
        .map_err(Error::storage)?;
    batch.staged.log_added += log_json_bytes(json);
    Ok(sequence)
}

/// The channel as it stands within this batch; its row is made or changed if need be. From here until
/// the batch is through, nobody else gives out its offsets.
fn channel_of(
    batch: &mut Batch<'_>,
    key: &ChannelKey,
    limit: usize,
    relaxed: bool,
) -> Result<StagedChannel, Error> {
    let known = batch.staged.channels.get(key).cloned();
    let (mut channel, has_row) = match known {
        Some(channel) => (channel, true),
        None => {
            let mut histories = lock::write(batch.histories);
            let number = histories.begin(key, limit, relaxed);
            let ring = histories.rings.get_mut(&number).ok_or(Error::Closed)?;
            ring.is_held = true;
            let channel = StagedChannel {
                number,
                epoch: ring.epoch.clone(),
                top: ring.top,
                limit: ring.limit,
                relaxed: ring.relaxed,
            };
            (channel, ring.is_stored)
        }
    };
    if has_row && channel.limit == limit && channel.relaxed == relaxed {
        return Ok(channel);
    }
    (channel.limit, channel.relaxed) = (limit, relaxed);
    let row = match row_of(batch.tables.channels.table(), key.as_str())? {
        Some(row) => ChannelRow {
            limit: limit as u64,
            relaxed,
            ..ChannelRow::from_row(&row)?
        },
        None => ChannelRow {
            number: channel.number,
            epoch: channel.epoch.as_str().to_owned(),
            limit: limit as u64,
            floor: 0,
            relaxed,
        },
    };
    batch.tables.channels.insert(key.as_str(), &row.to_row())?;
    Ok(channel)
}

/// Takes the oldest part of the log away, if too little of the log is alive. Whether there was
/// something to do.
pub(super) fn compact(batch: &mut Batch<'_>, pressed: bool) -> Result<bool, Error> {
    let histories = lock::read(batch.histories);
    if !wants_compaction(&histories, batch.quota.log_floor(), pressed) {
        return Ok(false);
    }
    let mut survivors = Vec::new();
    let mut floors = Vec::new();
    let mut last = None;
    let mut copied = 0;
    // Under load the slice has to be ahead of what is appended.
    let slice_bytes = SLICE_BYTES.max(2 * batch.staged.log_added);
    let end = batch.first_sequence;
    let appended = (batch.ledger.next_sequence - end) as usize;
    let slice_rows = SLICE_ROWS.max(2 * appended);
    for row in batch.tables.log.range(..end).map_err(Error::storage)? {
        let (sequence, row) = row.map_err(Error::storage)?;
        let row = LogRow::from_row(row.value())?;
        let bytes = log_json_bytes(row.json);
        last = Some((sequence.value(), last.map_or(1, |(_, rows)| rows + 1)));
        batch.staged.log_removed += bytes;
        if let Some(ring) = histories.rings.get(&row.channel) {
            if ring.holds(row.offset, sequence.value(), batch.now_ms) {
                copied += bytes;
                survivors.push((row.channel, row.offset, sequence.value(), row.to_row()));
            } else if row.offset == ring.top {
                floors.push((ring.channel.clone(), row.offset));
            }
        }
        if last.is_some_and(|(_, rows)| rows >= slice_rows) || copied >= slice_bytes {
            break;
        }
    }
    drop(histories);
    let Some((last, _)) = last else {
        return Ok(false);
    };
    for (channel, offset, from, row) in survivors {
        let to = batch.ledger.next_sequence;
        batch.ledger.next_sequence += 1;
        batch
            .tables
            .log
            .insert(to, row.as_slice())
            .map_err(Error::storage)?;
        batch.staged.moved.push((channel, offset, from, to));
    }
    batch.staged.log_added += copied;
    // The last trace of a channel's top offset in the log moves to the channel's own row.
    for (channel, floor) in floors {
        if let Some(row) = row_of(batch.tables.channels.table(), channel.as_str())? {
            let mut row = ChannelRow::from_row(&row)?;
            row.floor = floor;
            batch
                .tables
                .channels
                .insert(channel.as_str(), &row.to_row())?;
        }
    }
    batch
        .tables
        .log
        .retain_in((Bound::Unbounded, Bound::Included(last)), |_, _| false)
        .map_err(Error::storage)?;
    Ok(true)
}

/// Whether so little of the log is alive that copying pays. A store that is full (`pressed`) pays more.
pub(super) fn wants_compaction(histories: &Histories, floor: u64, pressed: bool) -> bool {
    let (log, live) = (histories.log_bytes, histories.live_bytes);
    if pressed {
        live < log / 10 * 9
    } else {
        log > floor && live < log / 2
    }
}

/// Ends the histories that nobody can recover from any more, and with them their epochs: the ground
/// is replaced in the same commit, so that no position of theirs is ever used again. Whether there may
/// be more.
pub(super) fn drop_idle(batch: &mut Batch<'_>) -> Result<bool, Error> {
    let idle: Vec<(u64, ChannelKey)> = {
        let mut histories = lock::write(batch.histories);
        let idle = histories.rings.iter_mut().filter(|(_, ring)| {
            ring.expire_ms.saturating_add(IDLE_MS) <= batch.now_ms
                && !batch.staged.channels.contains_key(&ring.channel)
        });
        idle.take(SWEEP_CHANNELS)
            .map(|(number, ring)| {
                // A relaxed publisher may not bring it back to life behind our back.
                ring.is_held = true;
                (*number, ring.channel.clone())
            })
            .collect()
    };
    let is_cut = idle.len() == SWEEP_CHANNELS;
    if idle.is_empty() {
        return Ok(false);
    }
    for (number, channel) in idle {
        batch.tables.channels.remove(channel.as_str())?;
        batch.staged.dropped.push(number);
    }
    batch.ledger.ground = random_epoch();
    batch.staged.ground = Some(Epoch::new(&batch.ledger.ground));
    Ok(is_cut)
}

/// Rebuilds the rings from the database. Reads the whole log once.
pub(super) fn load(
    tx: &ReadTransaction,
    ledger: &Ledger,
    now_ms: u64,
    history_bytes: u64,
) -> Result<Histories, Error> {
    let mut histories = Histories::new(
        Epoch::new(&ledger.ground),
        ledger.next_channel,
        history_bytes,
    );
    let mut rows: HashMap<u64, Vec<(u64, Slot)>> = HashMap::new();
    let log = tx.open_table(LOG).map_err(Error::storage)?;
    for row in log.iter().map_err(Error::storage)? {
        let (sequence, row) = row.map_err(Error::storage)?;
        let row = LogRow::from_row(row.value())?;
        let slot = Slot {
            sequence: sequence.value(),
            expire_ms: row.expire_ms,
            event: Event::trusted(Bytes::copy_from_slice(row.json)),
        };
        histories.log_bytes += log_row_bytes(&slot.event);
        match rows.entry(row.channel) {
            MapEntry::Occupied(mut rows) => rows.get_mut().push((row.offset, slot)),
            MapEntry::Vacant(rows) => {
                rows.insert(vec![(row.offset, slot)]);
            }
        }
    }
    let channels = tx.open_table(CHANNELS).map_err(Error::storage)?;
    for row in channels.iter().map_err(Error::storage)? {
        let (key, row) = row.map_err(Error::storage)?;
        let row = ChannelRow::from_row(row.value())?;
        let key = restored_key(key.value())?;
        let limit = usize::try_from(row.limit).unwrap_or(usize::MAX);
        let mut ring = Ring::new(key, Epoch::new(&row.epoch), row.floor, limit);
        ring.is_stored = true;
        ring.relaxed = row.relaxed;
        ring.expire_ms = now_ms;
        ring.restore(rows.remove(&row.number).unwrap_or_default(), now_ms);
        histories.insert(row.number, ring);
        histories.bound();
    }
    Ok(histories)
}

/// A key that was checked when it was published to; a user id in it may be anything.
pub(super) fn restored_key(key: &str) -> Result<ChannelKey, Error> {
    match key.strip_prefix("notifications_") {
        Some(user) => Ok(ChannelKey::notifications_of(user)),
        None => ChannelKey::parse(key, usize::MAX).map_err(Error::storage),
    }
}

/// Whose event a row of [`LOG`] is, and which.
pub(super) fn channel_and_offset(row: &[u8]) -> Result<(u64, u64), Error> {
    LogRow::from_row(row).map(|row| (row.channel, row.offset))
}

/// A row of [`LOG`].
pub(super) struct LogRow<'a> {
    pub(super) channel: u64,
    pub(super) offset: u64,
    pub(super) expire_ms: u64,
    pub(super) json: &'a [u8],
}

impl<'a> LogRow<'a> {
    pub(super) fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.channel)
            .number(self.offset)
            .number(self.expire_ms)
            .rest(self.json)
    }

    pub(super) fn from_row(row: &'a [u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            channel: row.number()?,
            offset: row.number()?,
            expire_ms: row.number()?,
            json: row.rest(),
        })
    }
}

/// Ends the epochs of the relaxed channels and of those without a row: positions in them may have
/// been given out that the disk never saw. Their events stay, under the new epochs.
pub(super) fn end_relaxed_epochs(
    tables: &mut Tables<'_>,
    ledger: &mut Ledger,
) -> Result<(), Error> {
    end_epochs(tables, ledger, |row| row.relaxed)
}

/// Ends the epochs of all channels: the database goes on from an earlier moment, and positions may
/// have been given out since. The events stay.
pub(super) fn end_all_epochs(tables: &mut Tables<'_>, ledger: &mut Ledger) -> Result<(), Error> {
    end_epochs(tables, ledger, |_| true)
}

fn end_epochs(
    tables: &mut Tables<'_>,
    ledger: &mut Ledger,
    ends: impl Fn(&ChannelRow) -> bool,
) -> Result<(), Error> {
    let epoch = random_epoch();
    let mut ended = Vec::new();
    for row in tables.channels.table().iter().map_err(Error::storage)? {
        let (key, row) = row.map_err(Error::storage)?;
        let mut row = ChannelRow::from_row(row.value())?;
        if ends(&row) {
            row.epoch.clone_from(&epoch);
            ended.push((key.value().to_owned(), row.to_row()));
        }
    }
    for (key, row) in ended {
        tables.channels.insert(key.as_str(), &row)?;
    }
    ledger.ground = random_epoch();
    ledger.ahead = false;
    Ok(())
}

/// A row of [`CHANNELS`].
pub(super) struct ChannelRow {
    pub(super) number: u64,
    pub(super) epoch: String,
    pub(super) limit: u64,
    /// The channel's last offset when its last row left the log. Living rows are all above it.
    pub(super) floor: u64,
    /// Whether events may have been published in its epoch before they were on disk.
    pub(super) relaxed: bool,
}

impl ChannelRow {
    /// The first row of a channel that is in memory alone.
    pub(super) fn of(number: u64, ring: &Ring) -> Self {
        Self {
            number,
            epoch: ring.epoch.as_str().to_owned(),
            limit: ring.limit as u64,
            floor: 0,
            relaxed: ring.relaxed,
        }
    }

    pub(super) fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.number)
            .text(&self.epoch)
            .number(self.limit)
            .number(self.floor)
            .byte(self.relaxed.into())
            .done()
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            number: row.number()?,
            epoch: row.text()?.to_owned(),
            limit: row.number()?,
            floor: row.number()?,
            relaxed: row.late_flag(),
        })
    }
}
