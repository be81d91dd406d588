//! What this client may ask of which channel.

use serde_json::value::RawValue;

use super::{ACCESS_DENIED, INVALID_CHANNEL, Refused, Session, Terms, access};
use crate::config::{Access, ChannelRule};
use crate::protocol::command::channel_value;
use crate::protocol::{ChannelKey, Event, EventError};

impl Session {
    pub(super) fn resolve(&self, channel: &RawValue, terms: &Terms) -> Result<ChannelKey, Refused> {
        let value = channel_value(channel).ok_or(INVALID_CHANNEL)?;
        let bytes_max = terms.limits.channel_key_bytes;
        ChannelKey::resolve(&value, Some(&self.identity.user_id), bytes_max)
            .map_err(|_| INVALID_CHANNEL)
    }

    pub(super) fn may_subscribe<'t>(
        &self,
        channel: &RawValue,
        terms: &'t Terms,
    ) -> Result<(ChannelKey, &'t ChannelRule), Refused> {
        let key = self.resolve(channel, terms)?;
        let rule = self.rule(&key, terms, |rule| rule.subscribe)?;
        let full = self.subscriptions.len() >= terms.limits.channels_per_connection;
        if full && !self.subscriptions.contains(&key) {
            return Err(Refused {
                message: "Too many channels",
                code: "limit_reached",
            });
        }
        Ok((key, rule))
    }

    pub(super) fn may_publish<'t>(
        &self,
        channel: &RawValue,
        event: &RawValue,
        terms: &'t Terms,
    ) -> Result<(ChannelKey, Event, &'t ChannelRule), Refused> {
        let key = self.resolve(channel, terms)?;
        let rule = self.rule(&key, terms, |rule| rule.publish)?;
        let event =
            Event::parse(event.get(), terms.limits.event_bytes).map_err(|error| match error {
                EventError::TooLarge => Refused {
                    message: "Event too large",
                    code: "event_too_large",
                },
                _ => Refused {
                    message: "Invalid event",
                    code: "invalid_event",
                },
            })?;
        Ok((key, event, rule))
    }

    pub(super) fn may_look_back(
        &self,
        channel: &RawValue,
        terms: &Terms,
    ) -> Result<(ChannelKey, Access), Refused> {
        let key = self.resolve(channel, terms)?;
        let rule = self.rule(&key, terms, |rule| rule.subscribe)?;
        match rule.history {
            Some(_) => Ok((key, rule.subscribe)),
            None => Err(Refused {
                message: "The channel keeps no history",
                code: "no_history",
            }),
        }
    }

    pub(super) fn may_see_who(
        &self,
        channel: &RawValue,
        terms: &Terms,
    ) -> Result<(ChannelKey, Access), Refused> {
        let key = self.resolve(channel, terms)?;
        let rule = self.rule(&key, terms, |rule| rule.subscribe)?;
        if rule.presence {
            Ok((key, rule.subscribe))
        } else {
            Err(Refused {
                message: "The channel keeps no presence",
                code: "no_presence",
            })
        }
    }

    /// The rule of a channel, if it lets this client do what `access` picks, or leaves it to the
    /// backend: see [`Session::wish`].
    pub(super) fn rule<'t>(
        &self,
        key: &ChannelKey,
        terms: &'t Terms,
        access: impl Fn(&ChannelRule) -> Access,
    ) -> Result<&'t ChannelRule, Refused> {
        terms
            .channels
            .rule(key.kind())
            .filter(|rule| access::allows(access(rule), &self.identity, key))
            .ok_or(ACCESS_DENIED)
    }
}
