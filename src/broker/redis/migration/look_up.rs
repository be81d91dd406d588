//! Telling what a Redis that was filled has in the place of each record.

use redis::Value;

use super::export::{KEPT, stored_note};
use super::import::{events_of, notes_of};
use super::vault::{Ask, Vault};
use crate::broker::migration::{ChannelState, HistoryEvent, KeptValue, Record};
use crate::broker::redis::history::{decode, garbled};
use crate::broker::redis::values::{name, revocation};
use crate::broker::redis::{notifications, wire};
use crate::broker::{Error, Notification};

/// Reads the answers to a few questions.
type Read<'a> =
    Box<dyn FnOnce(&mut std::vec::IntoIter<Value>) -> Result<Vec<Option<Record>>, Error> + 'a>;

impl Vault {
    pub(super) fn look_up(&self, records: &[Record]) -> Result<Vec<Option<Record>>, Error> {
        let mut asks = Vec::with_capacity(records.len());
        let mut reads: Vec<Read<'_>> = Vec::new();
        let mut rest = records;
        let mut ids = Vec::new();
        while let Some(record) = rest.first() {
            let mut taken = 1;
            match record {
                // All users at once, below.
                Record::User(user) => {
                    ids.push(user.id.as_str());
                    reads.push(Box::new(|_| Ok(vec![None])));
                }
                Record::Notification(note) => {
                    let notes = notes_of(rest, &note.user_id);
                    taken = notes.len();
                    let orders = orders(&notes)?;
                    let [unread, read, rows] =
                        <[String; 3]>::try_from(self.keys.notes(&note.user_id)).unwrap_or_default();
                    for (name, key) in [("HMGET", rows), ("ZMSCORE", unread), ("ZMSCORE", read)] {
                        let ask = Ask::command(name, key);
                        asks.push(
                            orders
                                .iter()
                                .fold(ask, |ask, order| ask.arg(order.as_str())),
                        );
                    }
                    reads.push(Box::new(move |answers| {
                        read_notes(&note.user_id, &orders, answers)
                    }));
                }
                Record::Channel(state) => {
                    let key = self.keys.channel(&state.channel, "m");
                    let ask = Ask::command("HMGET", key);
                    asks.push(["e", "o", "n", "r"].into_iter().fold(ask, Ask::arg));
                    reads.push(Box::new(|answers| self.read_state(state, answers)));
                }
                Record::Event(event) => {
                    let events = events_of(rest, &event.channel);
                    taken = events.len();
                    let last = events.last().map_or(event.offset, |last| last.offset);
                    let ask = Ask::command("XRANGE", self.keys.channel(&event.channel, "h"));
                    asks.push(ask.number(event.offset).number(last));
                    reads.push(Box::new(move |answers| read_events(&events, answers)));
                }
                Record::Revocation(revoked) => {
                    let (name, before_ms) = name(&revoked.revoked);
                    let entry = format!("{name}{before_ms:020}{:020}", revoked.keep_until_ms);
                    // Servers read the list; the row is what they compare with.
                    let [list, _, rows] =
                        <[String; 3]>::try_from(self.keys.revoked()).unwrap_or_default();
                    asks.push(Ask::command("HGET", rows).arg(name.as_str()));
                    asks.push(Ask::command("ZSCORE", list).arg(entry));
                    reads.push(Box::new(move |answers| {
                        let row: Option<String> = next(answers)?;
                        let listed: Option<f64> = next(answers)?;
                        let found = row.filter(|_| listed.is_some());
                        let found = found.map(|row| revocation(&format!("{name}{row}")));
                        Ok(vec![found.transpose()?.map(Record::Revocation)])
                    }));
                }
                Record::Value(KeptValue { space, key, .. }) => {
                    let key = self.keys.value(space, key);
                    asks.push(Ask::script(KEPT, vec![key.clone()]));
                    reads.push(Box::new(move |answers| self.read_one(&key, answers)));
                }
                Record::Answer(kept) => {
                    let key = self.answer_key(kept);
                    asks.push(Ask::script(KEPT, vec![key.clone()]));
                    reads.push(Box::new(move |answers| self.read_one(&key, answers)));
                }
            }
            rest = &rest[taken..];
        }
        let mut answers = self.ask_all(&asks)?.into_iter();
        let mut found = Vec::with_capacity(records.len());
        for read in reads {
            found.extend(read(&mut answers)?);
        }
        let mut users = self.find_users(&ids)?.into_iter();
        for (record, found) in records.iter().zip(&mut found) {
            if let Record::User(_) = record {
                *found = users.next().flatten().map(Record::User);
            }
        }
        Ok(found)
    }

    fn read_one(
        &self,
        key: &str,
        answers: &mut std::vec::IntoIter<Value>,
    ) -> Result<Vec<Option<Record>>, Error> {
        let found = self.read_kept(key, answers.next().unwrap_or_default())?;
        Ok(vec![found.map(|(record, _)| record)])
    }

    fn read_state(
        &self,
        state: &ChannelState,
        answers: &mut std::vec::IntoIter<Value>,
    ) -> Result<Vec<Option<Record>>, Error> {
        let fields: Vec<Option<String>> = next(answers)?;
        let [Some(epoch), Some(top), Some(limit), Some(run_id)] = fields.as_slice() else {
            return Ok(vec![None]);
        };
        // An epoch of another process has ended.
        if !self.run_ids()?.split(',').any(|known| known == run_id) {
            return Ok(vec![None]);
        }
        let number = |text: &String| text.parse::<u64>().map_err(Error::storage);
        Ok(vec![Some(Record::Channel(ChannelState {
            channel: state.channel.clone(),
            epoch: wire::epoch(epoch.as_bytes()).ok_or_else(garbled)?,
            top: number(top)?,
            limit: number(limit)?,
            expire_ms: state.expire_ms,
        }))])
    }
}

fn orders(notes: &[&Notification]) -> Result<Vec<String>, Error> {
    let order = |note: &&Notification| {
        let taken_apart = notifications::taken_apart(&note.id).ok_or_else(garbled)?;
        Ok(notifications::digits(taken_apart.0))
    };
    notes.iter().map(order).collect()
}

fn read_notes(
    user_id: &str,
    orders: &[String],
    answers: &mut std::vec::IntoIter<Value>,
) -> Result<Vec<Option<Record>>, Error> {
    let rows: Vec<Option<Vec<u8>>> = next(answers)?;
    let unread: Vec<Option<f64>> = next(answers)?;
    let read: Vec<Option<f64>> = next(answers)?;
    let mut found = Vec::with_capacity(orders.len());
    for (at, (order, row)) in orders.iter().zip(rows).enumerate() {
        let is_in = |list: &[Option<f64>]| list.get(at).is_some_and(Option::is_some);
        found.push(match (row, is_in(&unread), is_in(&read)) {
            (Some(row), true, false) | (Some(row), false, true) => {
                let note = stored_note(user_id, is_in(&read), order.as_bytes(), &row)?;
                Some(Record::Notification(note))
            }
            _ => None,
        });
    }
    Ok(found)
}

fn read_events(
    events: &[&HistoryEvent],
    answers: &mut std::vec::IntoIter<Value>,
) -> Result<Vec<Option<Record>>, Error> {
    let entries: Vec<(String, Vec<Vec<u8>>)> = next(answers)?;
    let mut entries = entries.into_iter().peekable();
    let mut found = Vec::with_capacity(events.len());
    for event in events {
        let place = |id: &str| {
            let (offset, expire) = id.split_once('-')?;
            Some((offset.parse::<u64>().ok()?, expire.parse::<u64>().ok()?))
        };
        let is_it = |(id, _): &(String, Vec<Vec<u8>>)| {
            place(id).is_some_and(|(offset, _)| offset == event.offset)
        };
        found.push(match entries.next_if(is_it) {
            Some((id, fields)) => Some(Record::Event(HistoryEvent {
                channel: event.channel.clone(),
                offset: event.offset,
                expire_ms: place(&id).map_or(0, |(_, expire_ms)| expire_ms),
                event: fields
                    .get(1)
                    .and_then(|json| wire::event(json))
                    .ok_or_else(garbled)?,
            })),
            None => None,
        });
    }
    Ok(found)
}

fn next<T: redis::FromRedisValue>(answers: &mut std::vec::IntoIter<Value>) -> Result<T, Error> {
    decode(answers.next().ok_or_else(garbled)?)
}
