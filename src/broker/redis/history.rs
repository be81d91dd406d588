//! Publishing and looking back.
//!
//! A history is a stream and a hash (`keys.rs`), which one script changes together. The hash holds the
//! epoch, the offset, and the run id of the server under which both were last touched. An epoch is 64
//! random bits that a node brings; it ends when the hash is gone (a quiet channel is forgotten an hour
//! after its last event has expired; a server that is short of memory may evict it) and when another
//! process answers: after a restart or a failover the newest events may be missing, and an offset
//! must never stand for two.

use redis::Value;

use super::call::Call;
use super::scripts::Script;
use super::sending::Written;
use super::{Redis, wire};
use crate::broker::{Entry, Error, Publication, Published, Recovery, Retention, Unrecoverable};
use crate::clock::millis;
use crate::protocol::{ChannelKey, Epoch, Position};

/// How long the answer to an idempotency key is kept.
pub(super) const KEEP_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a channel without events is remembered after somebody asked for its position.
const QUIET_MS: u64 = 24 * 60 * 60 * 1000;
/// Events that one look back gives at most: the most that a history may have.
const ENTRIES_MAX: usize = 100_000;

/// What was read of a channel.
pub(super) struct Read {
    position: Position,
    /// How many events the last publication let it keep.
    limit: u64,
    /// There were more than were asked for at most.
    was_cut: bool,
    entries: Vec<Entry>,
}

/// What is asked of a channel.
pub(super) enum Question<'a> {
    Position,
    /// What came after it, unless that is more than so many.
    Since(&'a Position, u64),
    Before(Option<u64>, usize),
}

impl Redis {
    pub(super) async fn append(
        &self,
        publication: &Publication,
        retention: Retention,
    ) -> Result<Published, Error> {
        let channel = &publication.channel;
        let mut keys = vec![
            self.keys.channel(channel, "m"),
            self.keys.channel(channel, "h"),
        ];
        if let Some(key) = &publication.idempotency_key {
            keys.push(self.keys.channel(channel, &format!("i:{key}")));
        }
        let call = Call::script(Script::Publish, keys)
            .arg(new_epoch())
            .arg(publication.event.as_bytes().to_vec())
            .number(retention.entries.max(1) as u64)
            .number(lasting(millis(retention.ttl)));
        let call = self.spoken(call, channel).number(KEEP_MS);
        let call = call.arg(wire::trace(publication.trace));
        let durable = retention.durability == crate::broker::Durability::Commit;
        let Written {
            answer,
            is_replicated,
        } = self.written(&call, durable).await?;
        let (repeated, answer): (u64, String) = decode(answer)?;
        let position = placed(&answer)?;
        let repeated = repeated == 1;
        if let (false, Some(position)) = (repeated, &position) {
            self.pass_on(publication, Some(position)).await?;
        }
        if !is_replicated {
            return Err(Error::Unavailable);
        }
        Ok(Published { position, repeated })
    }

    /// An event without history.
    pub(super) async fn pass(&self, publication: &Publication) -> Result<Published, Error> {
        let channel = &publication.channel;
        let json = publication.event.as_bytes();
        let published = |repeated| Published {
            position: None,
            repeated,
        };
        if let Some(key) = &publication.idempotency_key {
            let keys = vec![self.keys.channel(channel, &format!("i:{key}"))];
            let call = Call::script(Script::Pass, keys).arg(json.to_vec());
            let call = self.spoken(call, channel).number(KEEP_MS);
            let call = call.arg(wire::trace(publication.trace));
            let Written {
                answer,
                is_replicated,
            } = self.written(&call, true).await?;
            let repeated = decode::<u64>(answer)? == 1;
            if !repeated {
                self.pass_on(publication, None).await?;
            }
            if !is_replicated {
                return Err(Error::Unavailable);
            }
            return Ok(published(repeated));
        }
        if self.pubsub.is_some() {
            self.pass_on(publication, None).await?;
        } else {
            let (line, verb) = self.voice(channel);
            let mut message = wire::trace(publication.trace).into_bytes();
            message.extend_from_slice(json.as_ref());
            let call = Call::command(verb, line).arg(message);
            self.link.call(&call).await?;
        }
        Ok(published(false))
    }

    /// Where a channel's events are published by the data server, and how. The name is empty if pub/sub
    /// has a Redis of its own.
    fn voice(&self, channel: &ChannelKey) -> (String, &'static str) {
        if self.pubsub.is_some() {
            (String::new(), "PUBLISH")
        } else if self.link.can_shard() {
            (self.keys.sharded_line(channel), "SPUBLISH")
        } else {
            (self.keys.open_line(channel), "PUBLISH")
        }
    }

    /// Tells a script how to publish. While a slot moves, what its new server publishes by the slot is heard
    /// by nobody yet; what all servers publish is.
    fn spoken(&self, call: Call, channel: &ChannelKey) -> Call {
        let (line, verb) = self.voice(channel);
        if verb == "PUBLISH" {
            return call.arg(line).arg(verb);
        }
        call.arg_or_moving(line, self.keys.open_line(channel))
            .arg_or_moving(verb, "PUBLISH")
    }

    /// Publishes what is stored already, where pub/sub has a Redis of its own.
    async fn pass_on(
        &self,
        publication: &Publication,
        position: Option<&Position>,
    ) -> Result<(), Error> {
        let Some(pubsub) = &self.pubsub else {
            return Ok(());
        };
        let channel = &publication.channel;
        let mut message = position.map_or_else(Vec::new, |it| wire::head(it).into_bytes());
        message.extend_from_slice(wire::trace(publication.trace).as_bytes());
        message.extend_from_slice(publication.event.as_bytes());
        let call = if pubsub.can_shard() {
            Call::command("SPUBLISH", self.keys.sharded_line(channel))
        } else {
            Call::command("PUBLISH", self.keys.open_line(channel))
        };
        pubsub.call(&call.arg(message)).await.map(drop)
    }

    pub(super) async fn read(
        &self,
        channel: &ChannelKey,
        question: Question<'_>,
    ) -> Result<Read, Error> {
        let answer = self.link.call(&self.question(channel, &question)).await?;
        read(answer)
    }

    pub(super) fn question(&self, channel: &ChannelKey, question: &Question<'_>) -> Call {
        let keys = vec![
            self.keys.channel(channel, "m"),
            self.keys.channel(channel, "h"),
        ];
        let call = Call::script(Script::Read, keys)
            .arg(new_epoch())
            .number(QUIET_MS);
        match question {
            Question::Position => call.arg("position"),
            Question::Since(since, most) => call
                .arg("recover")
                .arg(since.epoch.as_str())
                .number(since.offset)
                .number(*most),
            Question::Before(_, 0) | Question::Before(Some(0), _) => call.arg("position"),
            Question::Before(before, limit) => call
                .arg("history")
                .arg(before.map_or_else(String::new, |offset| offset.to_string()))
                .number(*limit.min(&ENTRIES_MAX) as u64),
        }
    }
}

impl Read {
    pub(super) fn position(self) -> Position {
        self.position
    }

    /// What came after `since`, whole or not at all.
    pub(super) fn since(self, since: &Position) -> Recovery {
        let Self {
            position,
            limit,
            was_cut,
            entries,
        } = self;
        let missed = if since.epoch != position.epoch || since.offset > position.offset {
            Err(Unrecoverable::EpochChanged)
        } else {
            let count = position.offset - since.offset;
            let is_whole = entries.len() as u64 == count
                && entries
                    .first()
                    .is_none_or(|first| first.offset == since.offset + 1);
            match (is_whole, count > limit || was_cut) {
                (true, _) => Ok(entries),
                (false, true) => Err(Unrecoverable::TooFar),
                (false, false) => Err(Unrecoverable::HistoryExpired),
            }
        };
        Recovery { position, missed }
    }

    /// A page, oldest first.
    pub(super) fn page(self) -> (Position, Vec<Entry>) {
        let mut entries = self.entries;
        if entries.first().map(|entry| entry.offset) > entries.last().map(|entry| entry.offset) {
            entries.reverse();
        }
        (self.position, entries)
    }
}

/// Understands what the script `read` answers.
pub(super) fn read(answer: Value) -> Result<Read, Error> {
    type Stored = (String, Vec<(String, Vec<u8>)>);
    let (epoch, offset, limit, now_ms, was_cut, entries): (
        String,
        u64,
        u64,
        u64,
        u64,
        Vec<Stored>,
    ) = decode(answer)?;
    let mut alive = Vec::with_capacity(entries.len());
    for (id, fields) in entries {
        let (offset, expire_ms) = id.split_once('-').ok_or_else(garbled)?;
        let expire_ms: u64 = expire_ms.parse().map_err(Error::storage)?;
        if expire_ms <= now_ms {
            continue;
        }
        let json = fields.first().map(|(_, json)| json.as_slice());
        alive.push(Entry {
            offset: offset.parse().map_err(Error::storage)?,
            event: json.and_then(wire::event).ok_or_else(garbled)?,
        });
    }
    Ok(Read {
        position: Position {
            epoch: wire::epoch(epoch.as_bytes()).ok_or_else(garbled)?,
            offset,
        },
        limit,
        was_cut: was_cut == 1,
        entries: alive,
    })
}

/// `OFFSET:EPOCH`, as the answer to an idempotency key is kept; nothing: there was no history then.
pub(super) fn placed(answer: &str) -> Result<Option<Position>, Error> {
    if answer.is_empty() {
        return Ok(None);
    }
    let (offset, epoch) = answer.split_once(':').ok_or_else(garbled)?;
    Ok(Some(Position {
        epoch: wire::epoch(epoch.as_bytes()).ok_or_else(garbled)?,
        offset: offset.parse().map_err(Error::storage)?,
    }))
}

/// Never used before, and by nobody else.
pub(super) fn new_epoch() -> String {
    let epoch = format!("{:016x}", uuid::Uuid::new_v4().as_u128() as u64);
    debug_assert_eq!(Epoch::new(&epoch).as_str(), epoch);
    epoch
}

/// A time to live that Redis takes: it adds it to the time of day.
pub(super) fn lasting(ms: u64) -> u64 {
    const CENTURIES_MS: u64 = 10_000_000_000_000;
    ms.clamp(1, CENTURIES_MS)
}

pub(super) fn decode<T: redis::FromRedisValue>(value: Value) -> Result<T, Error> {
    redis::from_redis_value(value).map_err(Error::storage)
}

pub(super) fn garbled() -> Error {
    Error::storage("what Redis holds under one of our keys is not ours")
}
