//! `durability = "relaxed"`: answered and delivered from memory, on disk a moment later.
//!
//! A position that was only in memory when the process died must never stand for another event. So
//! the disk is told beforehand that memory may run ahead of it ([`super::tables::Ledger::ahead`]),
//! by the commit of the first relaxed publication; until that is through, relaxed publications go
//! the way of all others. A database that is opened with the mark still set was not closed: the
//! epochs of all relaxed channels, and of those that have no row yet, end there (`open`). Closing
//! takes the mark away, and so does a quiet time.
//!
//! What a crash can take: relaxed events of its last 100 ms. What it never takes: events with an
//! idempotency key and those of other channels; these were on disk when they were answered.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::Batch;
use super::log::{self, ChannelRow};
use super::ring::{Slot, UNWRITTEN, log_row_bytes};
use super::{INBOX_BYTES, Shared, lock};
use crate::broker::{Delivery, Durability, Error, Publication, Published, Retention};
use crate::clock::millis;
use crate::protocol::{ChannelKey, Event, Position};

/// How long after the last relaxed publication the disk is told that memory is no longer ahead.
pub(super) const QUIET_MS: u64 = 10_000;

/// How a publication with history goes.
pub(super) enum Way {
    /// It has been published.
    AtOnce(Published),
    /// It has to be committed first.
    ByDisk(Option<Detour>),
}

/// A relaxed publication that goes by the disk. While there is one, none of its channel overtakes it.
pub(super) struct Detour {
    shared: Arc<Shared>,
    channel: ChannelKey,
}

impl Drop for Detour {
    fn drop(&mut self) {
        let mut stripe = lock::lock(self.shared.stripe(&self.channel));
        if let Some(detours) = stripe.detours.get_mut(&self.channel) {
            *detours -= 1;
            if *detours == 0 {
                stripe.detours.remove(&self.channel);
            }
        }
    }
}

/// An event that is in a ring and has no row in the log yet.
pub(super) struct Unwritten {
    channel: u64,
    offset: u64,
    expire_ms: u64,
    event: Event,
}

impl Unwritten {
    pub(super) fn bytes(&self) -> u64 {
        log_row_bytes(&self.event)
    }
}

/// Publishes at once, if the rule wants it and the disk is prepared for it.
pub(super) fn publish(shared: &Arc<Shared>, publication: &Publication) -> Result<Way, Error> {
    let relaxed = publication
        .retention
        .filter(|retention| retention.durability == Durability::Relaxed);
    let Some(retention) = relaxed else {
        return Ok(Way::ByDisk(None));
    };
    if shared.is_closed() {
        return Err(Error::Closed);
    }
    let channel = &publication.channel;
    // Held until it is delivered: this is what makes offsets and deliveries one order.
    let mut stripe = lock::lock(shared.stripe(channel));
    let may = publication.idempotency_key.is_none()
        && !shared.is_down()
        && !stripe.detours.contains_key(channel);
    let position = if may {
        append(shared, publication, retention)?
    } else {
        None
    };
    let Some(position) = position else {
        *stripe.detours.entry(channel.clone()).or_default() += 1;
        return Ok(Way::ByDisk(Some(Detour {
            shared: Arc::clone(shared),
            channel: channel.clone(),
        })));
    };
    if let Some(sink) = lock::read(&shared.sink).clone() {
        sink.deliver(Delivery {
            channel: channel.clone(),
            event: publication.event.clone(),
            position: Some(position.clone()),
            trace: publication.trace,
        });
    }
    Ok(Way::AtOnce(Published {
        position: Some(position),
        repeated: false,
    }))
}

/// Appends to the ring; `None` if only a commit can.
fn append(
    shared: &Shared,
    publication: &Publication,
    retention: Retention,
) -> Result<Option<Position>, Error> {
    let limit = retention.entries.max(1);
    let mut histories = lock::write(&shared.histories);
    if !histories.may_run_ahead {
        return Ok(None);
    }
    if histories.unwritten_bytes > INBOX_BYTES {
        return Err(Error::Overloaded);
    }
    let bytes = log_row_bytes(&publication.event) + 2 * publication.channel.as_str().len() as u64;
    let ahead = 2 * (histories.unwritten_bytes + bytes);
    shared.room(ahead)?;
    if ahead > shared.disk_credit.load(Ordering::Relaxed) {
        // Nobody has looked yet whether the disk has room for so much.
        return Ok(None);
    }
    let number = histories.begin(&publication.channel, limit, true);
    let Some(ring) = histories.rings.get(&number) else {
        return Ok(None);
    };
    if !ring.relaxed || ring.is_held || ring.limit != limit {
        return Ok(None);
    }
    let now = shared.clock.now();
    let slot = Slot {
        sequence: UNWRITTEN,
        expire_ms: now.unix_ms.saturating_add(millis(retention.ttl)),
        event: publication.event.clone(),
    };
    let position = Position {
        epoch: ring.epoch.clone(),
        offset: ring.top + 1,
    };
    let unwritten = Unwritten {
        channel: number,
        offset: position.offset,
        expire_ms: slot.expire_ms,
        event: slot.event.clone(),
    };
    histories.append(number, limit, slot, now.unix_ms);
    histories.unwritten_bytes += unwritten.bytes();
    histories.unwritten.push(unwritten);
    histories.relaxed_ms = now.mono_ms;
    Ok(Some(position))
}

/// Puts events into the log, but for those that have left their ring already. The newest of a channel
/// always goes: it is what its next offset follows.
pub(super) fn write_out(batch: &mut Batch<'_>, unwritten: &[Unwritten]) -> Result<(), Error> {
    let mut rows = Vec::new();
    let mut begun = Vec::new();
    {
        let histories = lock::read(batch.histories);
        let mut seen = HashSet::new();
        for event in unwritten.iter().rev() {
            let Some(ring) = histories.rings.get(&event.channel) else {
                continue;
            };
            let is_newest = seen.insert(event.channel);
            if is_newest && !ring.is_stored {
                begun.push((ring.channel.clone(), ChannelRow::of(event.channel, ring)));
            }
            if is_newest || ring.has(event.offset) {
                rows.push(event);
            }
        }
    }
    for (key, row) in begun {
        batch.tables.channels.insert(key.as_str(), &row.to_row())?;
        batch.staged.stored.push(row.number);
    }
    for event in rows.into_iter().rev() {
        let sequence = log::insert(
            batch,
            event.channel,
            event.offset,
            event.expire_ms,
            event.event.as_bytes(),
        )?;
        let moved = (event.channel, event.offset, UNWRITTEN, sequence);
        batch.staged.moved.push(moved);
    }
    Ok(())
}

/// Tells the disk that memory is no longer ahead of it, once it is not; `now` if it is closing.
pub(super) fn catch_up(batch: &mut Batch<'_>, mono_ms: u64, now: bool) {
    if !batch.ledger.ahead || batch.staged.is_ahead {
        return;
    }
    let mut histories = lock::write(batch.histories);
    let is_quiet = mono_ms >= histories.relaxed_ms.saturating_add(QUIET_MS);
    if histories.unwritten.is_empty() && (now || is_quiet) {
        // Whatever is published from here on goes by the disk again.
        histories.may_run_ahead = false;
        batch.ledger.ahead = false;
        batch.staged.has_caught_up = true;
    }
}
