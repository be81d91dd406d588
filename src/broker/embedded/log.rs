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
use super::tables::{CHANNELS, LOG, row_of};
use super::{lock, open::random_epoch};
use crate::broker::{Delivery, Error, Publication, Published, Retention};
use crate::clock::millis;
use crate::protocol::{ChannelKey, Epoch, Event, Position};

/// Rows of the log that one commit copies or drops.
const SLICE_ROWS: usize = 2_048;
/// Bytes that one commit copies at most.
const SLICE_BYTES: u64 = 512 << 10;
/// How long a channel's last position outlives its last event.
const IDLE_MS: u64 = 60 * 60 * 1000;
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
        idempotency::remember_published(batch, key, position.as_ref())?;
    }
    batch.staged.deliveries.push(Delivery {
        channel: publication.channel.clone(),
        event: publication.event.clone(),
        position: position.clone(),
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
    let mut channel = channel_of(batch, &publication.channel, limit)?;
    channel.top += 1;
    let slot = Slot {
        sequence: batch.ledger.next_sequence,
        expire_ms: batch.now_ms.saturating_add(millis(retention.ttl)),
        event: publication.event.clone(),
    };
    batch.ledger.next_sequence += 1;
    let row = LogRow {
        channel: channel.number,
        offset: channel.top,
        expire_ms: slot.expire_ms,
        json: slot.event.as_bytes(),
    };
    batch
        .tables
        .log
        .insert(slot.sequence, row.to_row().as_slice())
        .map_err(Error::storage)?;
    batch.staged.log_added += log_row_bytes(&slot.event);
    batch.staged.appended.push((channel.number, limit, slot));
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

/// The channel as it stands within this batch; its row is made or changed if need be.
fn channel_of(
    batch: &mut Batch<'_>,
    key: &ChannelKey,
    limit: usize,
) -> Result<StagedChannel, Error> {
    let known = batch.staged.channels.get(key).cloned().or_else(|| {
        let histories = lock::read(batch.histories);
        let number = *histories.numbers.get(key)?;
        let ring = histories.rings.get(&number)?;
        Some(StagedChannel {
            number,
            epoch: ring.epoch.clone(),
            top: ring.top,
            limit: ring.limit,
        })
    });
    match known {
        Some(channel) if channel.limit == limit => Ok(channel),
        Some(mut channel) => {
            channel.limit = limit;
            if let Some(row) = row_of(batch.tables.channels.table(), key.as_str())? {
                let mut row = ChannelRow::from_row(&row)?;
                row.limit = limit as u64;
                batch.tables.channels.insert(key.as_str(), &row.to_row())?;
            }
            Ok(channel)
        }
        None => {
            let number = batch.ledger.next_channel;
            batch.ledger.next_channel += 1;
            let row = ChannelRow {
                number,
                epoch: batch.ledger.ground.clone(),
                limit: limit as u64,
                floor: 0,
            };
            batch.tables.channels.insert(key.as_str(), &row.to_row())?;
            Ok(StagedChannel {
                number,
                epoch: Epoch::new(&row.epoch),
                top: 0,
                limit,
            })
        }
    }
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
    let slice_rows = SLICE_ROWS.max(2 * batch.staged.appended.len());
    let end = batch.ledger.next_sequence - batch.staged.appended.len() as u64;
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
/// is replaced in the same commit, so that no position of theirs is ever used again.
pub(super) fn drop_idle(batch: &mut Batch<'_>) -> Result<(), Error> {
    let idle: Vec<(u64, ChannelKey)> = {
        let histories = lock::read(batch.histories);
        let idle = histories.rings.iter().filter(|(_, ring)| {
            ring.expire_ms.saturating_add(IDLE_MS) <= batch.now_ms
                && !batch.staged.channels.contains_key(&ring.channel)
        });
        idle.map(|(number, ring)| (*number, ring.channel.clone()))
            .take(SWEEP_CHANNELS)
            .collect()
    };
    if idle.is_empty() {
        return Ok(());
    }
    for (number, channel) in idle {
        batch.tables.channels.remove(channel.as_str())?;
        batch.staged.dropped.push(number);
    }
    batch.ledger.ground = random_epoch();
    batch.staged.ground = Some(Epoch::new(&batch.ledger.ground));
    Ok(())
}

/// Rebuilds the rings from the database. Reads the whole log once.
pub(super) fn load(tx: &ReadTransaction, ground: &str, now_ms: u64) -> Result<Histories, Error> {
    let mut histories = Histories::new(Epoch::new(ground));
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
        ring.expire_ms = now_ms;
        ring.restore(rows.remove(&row.number).unwrap_or_default(), now_ms);
        histories.insert(row.number, ring);
    }
    Ok(histories)
}

/// A key that was checked when it was published to; a user id in it may be anything.
fn restored_key(key: &str) -> Result<ChannelKey, Error> {
    match key.strip_prefix("notifications_") {
        Some(user) => Ok(ChannelKey::notifications_of(user)),
        None => ChannelKey::parse(key, usize::MAX).map_err(Error::storage),
    }
}

/// A row of [`LOG`].
struct LogRow<'a> {
    channel: u64,
    offset: u64,
    expire_ms: u64,
    json: &'a [u8],
}

impl<'a> LogRow<'a> {
    fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.channel)
            .number(self.offset)
            .number(self.expire_ms)
            .rest(self.json)
    }

    fn from_row(row: &'a [u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            channel: row.number()?,
            offset: row.number()?,
            expire_ms: row.number()?,
            json: row.rest(),
        })
    }
}

/// A row of [`CHANNELS`].
struct ChannelRow {
    number: u64,
    epoch: String,
    limit: u64,
    /// The channel's last offset when its last row left the log. Living rows are all above it.
    floor: u64,
}

impl ChannelRow {
    fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.number)
            .text(&self.epoch)
            .number(self.limit)
            .number(self.floor)
            .done()
    }

    fn from_row(row: &[u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            number: row.number()?,
            epoch: row.text()?.to_owned(),
            limit: row.number()?,
            floor: row.number()?,
        })
    }
}
