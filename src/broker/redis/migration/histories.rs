//! Telling which channels a Redis knows, and what it keeps of their events.

use redis::Value;

use super::export::{CHUNK_BYTES, source};
use super::vault::{Ask, Vault};
use crate::broker::Error;
use crate::broker::migration::{Batch, ChannelState, HistoryEvent, MigrationError, Record};
use crate::broker::redis::history::{decode, garbled, new_epoch};
use crate::broker::redis::wire;
use crate::protocol::ChannelKey;

const SURVEY: &str = concat!(
    include_str!("scripts/ends.lua"),
    include_str!("scripts/survey.lua")
);
const EVENTS: &str = include_str!("scripts/events.lua");

impl Vault {
    pub(super) fn histories(
        &self,
        channels: &[ChannelKey],
        beyond_ms: u64,
        batch: &mut Batch<'_>,
    ) -> Result<(), MigrationError> {
        let surveys = channels.iter().map(|channel| {
            let parts = ["m", "h"].map(|part| self.keys.channel(channel, part));
            Ask::script(SURVEY, parts.into())
                .arg(new_epoch())
                .number(beyond_ms)
        });
        let surveys = self.ask_all(&surveys.collect::<Vec<_>>()).map_err(source)?;
        let mut found = Vec::new();
        for (channel, survey) in channels.iter().zip(surveys) {
            let survey = Survey::read(channel, survey).map_err(source)?;
            found.extend(survey.filter(|survey| survey.state.expire_ms > beyond_ms));
        }
        let ask = |survey: &Survey, from: u64| {
            Ask::script(EVENTS, vec![self.keys.channel(&survey.state.channel, "h")])
                .number(from)
                .number(survey.state.top)
                .number(CHUNK_BYTES)
        };
        let with_events = found.iter().filter(|survey| !survey.ends.is_empty());
        let firsts: Vec<Ask> = with_events.map(|it| ask(it, it.first())).collect();
        let mut firsts = self.ask_all(&firsts).map_err(source)?.into_iter();
        for survey in found {
            batch.add(Record::Channel(survey.state.clone()))?;
            let mut offset = survey.first();
            while offset <= survey.state.top {
                let page = if offset == survey.first() {
                    firsts.next().unwrap_or_default()
                } else {
                    self.ask(ask(&survey, offset)).map_err(source)?
                };
                let page: Vec<Vec<u8>> = decode(page).map_err(source)?;
                if page.is_empty() {
                    // What ended meanwhile takes everything before it along.
                    return Err(MigrationError::Changed);
                }
                for json in page {
                    batch.add(Record::Event(HistoryEvent {
                        channel: survey.state.channel.clone(),
                        offset,
                        expire_ms: survey.ends_at(offset),
                        event: wire::event(&json).ok_or_else(garbled).map_err(source)?,
                    }))?;
                    offset += 1;
                }
            }
        }
        Ok(())
    }
}

/// What the script `survey` says.
struct Survey {
    state: ChannelState,
    /// When each living event ends, the last one's first.
    ends: Vec<u64>,
}

impl Survey {
    fn read(channel: &ChannelKey, answer: Value) -> Result<Option<Self>, Error> {
        let parts: Vec<String> = decode(answer)?;
        let [epoch, top, limit, expire, ends @ ..] = parts.as_slice() else {
            return Ok(None);
        };
        let number = |text: &String| text.parse::<u64>().map_err(Error::storage);
        Ok(Some(Self {
            state: ChannelState {
                channel: channel.clone(),
                epoch: wire::epoch(epoch.as_bytes()).ok_or_else(garbled)?,
                top: number(top)?,
                limit: number(limit)?,
                // Without an end: for good.
                expire_ms: expire.parse().unwrap_or(u64::MAX),
            },
            ends: ends.iter().map(number).collect::<Result<_, _>>()?,
        }))
    }

    fn first(&self) -> u64 {
        self.state.top + 1 - self.ends.len() as u64
    }

    fn ends_at(&self, offset: u64) -> u64 {
        let at = self.state.top.checked_sub(offset);
        at.and_then(|at| self.ends.get(at as usize).copied())
            .unwrap_or(0)
    }
}

/// A user id in a channel's key may be anything.
pub(super) fn channel(name: &str) -> Option<ChannelKey> {
    match name.strip_prefix("notifications_") {
        Some(user) => Some(ChannelKey::notifications_of(user)),
        None => ChannelKey::parse(name, usize::MAX).ok(),
    }
}
