//! Filling a Redis with what another backend keeps.

use super::ground::{Ground, HOLD_MS};
use super::vault::{Ask, Vault};
use super::{Options, unreachable};
use crate::broker::migration::{
    ChannelState, Checkpoint, Given, HistoryEvent, KeptAnswer, MigrationError, Record, Target,
};
use crate::broker::redis::history::decode;
use crate::broker::redis::values::{name, revised};
use crate::broker::redis::{notifications, users};
use crate::broker::{Error, Notification, User};
use crate::protocol::Epoch;

const ADOPT: &str = include_str!("scripts/adopt.lua");
const NOTE: &str = include_str!("scripts/note.lua");
/// A history's last position is remembered for so long after its last event, as `publish.lua` does it.
const IDLE_MS: u64 = 60 * 60 * 1000;

/// A Redis that is migrated to.
pub struct Destination(Vault);

impl Destination {
    /// Connects.
    ///
    /// # Errors
    /// It cannot be reached, or a server runs on it.
    pub fn open(options: Options) -> Result<Self, MigrationError> {
        let vault = Vault::open(options).map_err(|error| unreachable(&error))?;
        vault.refuse_if_used()?;
        Ok(Self(vault))
    }

    /// What an operator should mend before servers rely on it.
    ///
    /// # Errors
    /// It could not be asked.
    pub fn warnings(&self) -> Result<Vec<String>, MigrationError> {
        let evicting = self.0.evicting().map_err(target)?.into_iter();
        let warning = |(server, policy)| {
            format!(
                "{server}: maxmemory-policy {policy} lets Redis throw away what is remembered: set it to \
                 noeviction, best before this is run; as it is, who had subscribed to a channel without \
                 events is told epoch_changed"
            )
        };
        Ok(evicting.map(warning).collect())
    }
}

impl Target for Destination {
    fn found(&mut self) -> Result<Option<Checkpoint>, MigrationError> {
        let prefix = &self.0.options.prefix;
        let mark = self.0.ask(Ask::command("GET", self.0.mark("t")));
        let mark: Option<Vec<u8>> = mark.and_then(decode).map_err(target)?;
        if let Some(mark) = mark {
            let checkpoint = serde_json::from_slice(&mark);
            return checkpoint.map(Some).map_err(|_| {
                MigrationError::Refused(format!(
                    "Redis (prefix {prefix:?}) holds a migration of another version: empty it"
                ))
            });
        }
        if self.0.is_empty().map_err(target)? {
            return Ok(None);
        }
        Err(MigrationError::Refused(format!(
            "Redis is not empty: there are keys of ours under the prefix {prefix:?}; \
             choose another broker.redis.prefix, or delete them \
             (redis-cli --scan --pattern '{prefix}*' | xargs -d '\\n' redis-cli unlink)"
        )))
    }

    fn wipe(&mut self) -> Result<(), MigrationError> {
        let mark = self.0.mark("t");
        for server in self.0.servers().map_err(target)? {
            for pattern in self.0.keys.patterns() {
                let mut cursor = 0;
                loop {
                    let step = self.0.scan(&server, cursor, &pattern, None);
                    let (next, keys) = step.map_err(target)?;
                    // The mark is the last to go: a server that started now would believe the rest.
                    let keys = keys.into_iter().filter(|key| *key != mark);
                    let asks = keys.map(|key| Ask::command("UNLINK", key));
                    self.0.ask_all(&asks.collect::<Vec<_>>()).map_err(target)?;
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        records: &[Record],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), MigrationError> {
        let asks = self.0.placing(records).map_err(target)?;
        self.0.ask_all(&asks).map_err(target)?;
        if let Some(checkpoint) = checkpoint {
            self.0.set_mark(checkpoint)?;
        }
        // Servers look for the mark after they are heard: one of both sees the other.
        if records.is_empty()
            && let Err(refused) = self.0.refuse_if_used()
        {
            if checkpoint.is_some_and(Checkpoint::is_first) {
                let ask = Ask::command("DEL", self.0.mark("t"));
                self.0.ask(ask).map_err(target)?;
            }
            return Err(refused);
        }
        Ok(())
    }

    fn look_up(&mut self, records: &[Record]) -> Result<Vec<Option<Record>>, MigrationError> {
        self.0.look_up(records).map_err(target)
    }

    fn identity(&mut self) -> Result<String, MigrationError> {
        self.0.run_ids().map_err(target)
    }

    fn finish(&mut self, checkpoint: &Checkpoint) -> Result<(), MigrationError> {
        let ground = checkpoint.compared.as_ref();
        let ground = ground.and_then(|(_, ground)| ground.as_deref());
        // It stands for channels of which nothing was forgotten; of what was thrown away nobody knows.
        let evicts = !self.0.evicting().map_err(target)?.is_empty();
        if let Some(ground) = ground.filter(|_| !evicts) {
            let now_ms = self.0.options.clock.unix_ms();
            let until_ms = (now_ms + HOLD_MS).min(remembered_ms(checkpoint.begun_ms));
            let run_ids = self.0.run_ids().map_err(target)?;
            let ground = Ground::new(Epoch::new(ground), until_ms, run_ids);
            let ask = Ask::command("SET", self.0.mark("g"))
                .arg(ground.to_text())
                .arg("PXAT")
                .number(until_ms);
            self.0.ask(ask).map_err(target)?;
        }
        self.0.wait_for_replicas().map_err(target)?;
        let ask = Ask::command("DEL", self.0.mark("t"));
        self.0.ask(ask).map_err(target)?;
        let replicated = self.0.wait_for_replicas().map_err(target);
        if replicated.is_err() {
            // A replica that took over would have the mark: then it is not finished.
            self.0.set_mark(checkpoint)?;
        }
        replicated
    }
}

impl Vault {
    fn set_mark(&self, checkpoint: &Checkpoint) -> Result<(), MigrationError> {
        let mark = serde_json::to_vec(checkpoint)
            .map_err(|error| MigrationError::Target(Error::storage(error)))?;
        let ask = Ask::command("SET", self.mark("t")).arg(mark);
        self.ask(ask).map(drop).map_err(target)
    }

    /// What puts records in place.
    fn placing(&self, records: &[Record]) -> Result<Vec<Ask>, Error> {
        let mut asks = Vec::with_capacity(records.len());
        let mut rest = records;
        while let Some(record) = rest.first() {
            let mut taken = 1;
            match record {
                Record::User(user) => asks.extend(self.user(user)),
                Record::Notification(note) => {
                    let notes = notes_of(rest, &note.user_id);
                    taken = notes.len();
                    let mut ask = Ask::script(NOTE, self.keys.notes(&note.user_id));
                    for note in notes {
                        let (order, row) = notifications::to_row(note)?;
                        ask = ask.arg(notifications::digits(order));
                        ask = ask.number(note.is_read.into()).arg(row);
                    }
                    asks.push(ask);
                }
                Record::Channel(state) => {
                    let events = events_of(&rest[1..], &state.channel);
                    taken += events.len();
                    asks.push(self.history(Some(state), &state.channel, &events));
                }
                Record::Event(event) => {
                    let events = events_of(rest, &event.channel);
                    taken = events.len();
                    asks.push(self.history(None, &event.channel, &events));
                }
                Record::Revocation(revocation) => {
                    let (name, before_ms) = name(&revocation.revoked);
                    let until_ms = revocation.keep_until_ms;
                    let [list, ends, rows] =
                        <[String; 3]>::try_from(self.keys.revoked()).unwrap_or_default();
                    let row = format!("{before_ms:020}{until_ms:020}");
                    let entry = format!("{name}{row}");
                    asks.push(Ask::command("HSET", rows).arg(name.as_str()).arg(row));
                    asks.push(Ask::command("ZADD", list).arg("0").arg(entry));
                    asks.push(Ask::command("ZADD", ends).number(until_ms).arg(name));
                }
                Record::Value(kept) => {
                    let key = self.keys.value(&kept.space, &kept.key);
                    asks.push(set(key, revised(&kept.value), kept.expire_ms));
                }
                Record::Answer(kept) => {
                    let value = match &kept.given {
                        Given::Published { position, .. } => {
                            position.as_ref().map_or_else(String::new, |position| {
                                format!("{}:{}", position.offset, position.epoch.as_str())
                            })
                        }
                        Given::Added(note) => {
                            let (order, row) = notifications::to_row(note)?;
                            let order = notifications::digits(order);
                            format!("{order} {}", String::from_utf8_lossy(&row))
                        }
                    };
                    asks.push(set(
                        self.answer_key(kept),
                        value.into_bytes(),
                        Some(kept.expire_ms),
                    ));
                }
            }
            rest = &rest[taken..];
        }
        Ok(asks)
    }

    fn user(&self, user: &User) -> Vec<Ask> {
        let mut hash = Ask::command("HSET", self.keys.user(&user.id, "u"))
            .arg("c")
            .number(user.created_at_ms);
        if let Some(nickname) = &user.nickname {
            hash = hash.arg("n").arg(nickname.as_str());
        }
        let mut asks = Vec::new();
        if let Some(wallet) = &user.wallet {
            hash = hash.arg("w").arg(wallet.as_str());
            let claim = Ask::command("SET", self.keys.wallet(wallet));
            asks.push(claim.arg(users::claim(&user.id)));
        }
        asks.push(hash);
        asks
    }

    fn history(
        &self,
        state: Option<&ChannelState>,
        channel: &crate::protocol::ChannelKey,
        events: &[&HistoryEvent],
    ) -> Ask {
        let keys = ["m", "h"].map(|part| self.keys.channel(channel, part));
        let ask = Ask::script(ADOPT, keys.into());
        let mut ask = match state {
            Some(state) => {
                let idle_ms = state
                    .expire_ms
                    .max(remembered_ms(self.options.clock.unix_ms()));
                ask.arg(state.epoch.as_str())
                    .number(state.top)
                    .number(state.limit.max(1))
                    .number(idle_ms)
            }
            None => ask.arg("").arg("").arg("").arg(""),
        };
        ask = ask.number(events.last().map_or(0, |event| event.expire_ms));
        for event in events {
            ask = ask
                .arg(format!("{}-{}", event.offset, event.expire_ms))
                .arg(event.event.as_bytes().to_vec());
        }
        ask
    }

    pub(super) fn answer_key(&self, kept: &KeptAnswer) -> String {
        let part = format!("i:{}", kept.key);
        match &kept.given {
            Given::Published { channel, .. } => self.keys.channel(channel, &part),
            Given::Added(note) => self.keys.user(&note.user_id, &part),
        }
    }
}

/// Until when a channel that was migrated now is remembered at least: longer than the ground holds.
fn remembered_ms(now_ms: u64) -> u64 {
    now_ms.saturating_add(HOLD_MS + IDLE_MS)
}

fn set(key: String, value: Vec<u8>, expire_ms: Option<u64>) -> Ask {
    let ask = Ask::command("SET", key).arg(value);
    match expire_ms {
        Some(expire_ms) => ask.arg("PXAT").number(expire_ms),
        None => ask,
    }
}

/// The notifications of a user that records begin with.
pub(super) fn notes_of<'a>(records: &'a [Record], user_id: &str) -> Vec<&'a Notification> {
    let notes = records.iter().map_while(|record| match record {
        Record::Notification(note) if note.user_id == user_id => Some(note),
        _ => None,
    });
    notes.collect()
}

/// The events of a channel that records begin with.
pub(super) fn events_of<'a>(
    records: &'a [Record],
    channel: &crate::protocol::ChannelKey,
) -> Vec<&'a HistoryEvent> {
    let events = records.iter().map_while(|record| match record {
        Record::Event(event) if event.channel == *channel => Some(event),
        _ => None,
    });
    events.collect()
}

fn target(error: Error) -> MigrationError {
    MigrationError::Target(error)
}
