//! One client's state machine: inputs in, effects out.
//!
//! Pure: no socket, thread, runtime, database or clock is named here. The worker interprets the
//! effects, and a broadcast never comes this way.

pub mod access;
mod answers;
mod exchange;
mod identity;
pub mod pulse;
pub mod rate;
mod rights;
#[cfg(test)]
mod tests;
mod wish;

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock::Moment;
use crate::config::ChannelRule;
use crate::protocol::command::channel_value;
use crate::protocol::history::Unrecoverable;
use crate::protocol::{ChannelKey, Close, Command, Position, Reply, Request, RequestId};

pub use exchange::{Answer, Call, Effect, Input, Terms, Unread};
pub use identity::Identity;
use pulse::{Beat, Pulse};
use rate::{Rate, Verdict};
use wish::{What, Wish};

/// Events that one `history` command returns at most, and without a limit of its own.
const HISTORY_EVENTS_MAX: usize = 100;

/// Bytes of a client's own spelling of a channel that an error repeats. No right one is as long,
/// unless the client adds members or spaces that nobody asked for.
const ECHO_BYTES_MAX: usize = 1_024;

/// Bytes of what is no channel that are told apart from the reply, and so logged: a token, which somebody
/// may have put there by mistake, is longer.
const NO_CHANNEL_BYTES_MAX: usize = 32;

/// The state of one authenticated client.
#[derive(Debug)]
pub struct Session {
    identity: Arc<Identity>,
    /// Channels that were acknowledged. No key twice.
    subscriptions: Vec<ChannelKey>,
    stage: Stage,
    pulse: Pulse,
    rate: Rate,
}

#[derive(Debug)]
enum Stage {
    Ready,
    /// Exactly one call is out.
    Busy(Box<Pending>),
    /// `Close` or `Drop` was the last effect; there will be no other.
    Closed,
}

/// What is answered when the call comes back.
#[derive(Debug)]
struct Pending {
    id: Option<RequestId>,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    /// The channel has been joined and is not in `subscriptions`.
    Subscribe {
        channel: Box<RawValue>,
        key: ChannelKey,
        recovery: Recovery,
    },
    Standing {
        channel: Box<RawValue>,
        key: ChannelKey,
        recovery: Recovery,
    },
    Unread,
    Publish {
        key: ChannelKey,
    },
    History {
        key: ChannelKey,
    },
    Presence {
        key: ChannelKey,
    },
    /// Nothing has been done of it.
    Authorize(Box<Wish>),
    Refresh,
}

/// Whether the client wants to hear how a recovery went without one being tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// It did not ask, or the call says.
    AsAnswered,
    /// It asked for what a channel without history never keeps.
    InVain,
}

/// A refusal that becomes an `error` reply.
struct Refused {
    message: &'static str,
    code: &'static str,
}

const ACCESS_DENIED: Refused = Refused {
    message: "Access denied to channel",
    code: "access_denied",
};
const INVALID_CHANNEL: Refused = Refused {
    message: "Invalid channel",
    code: "invalid_channel",
};
const RATE_LIMITED: Refused = Refused {
    message: "Too many messages",
    code: "rate_limited",
};

impl Session {
    /// A client that has shown a good token.
    pub fn new(identity: Arc<Identity>, terms: &Terms, now: Moment) -> Self {
        Self {
            pulse: Pulse::new(identity.expires_at_ms, now),
            rate: Rate::new(terms.limits.commands_per_second, now.mono_ms),
            identity,
            subscriptions: Vec::new(),
            stage: Stage::Ready,
        }
    }

    /// Whose session it is.
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The channels it is subscribed to.
    pub fn subscriptions(&self) -> &[ChannelKey] {
        &self.subscriptions
    }

    /// Forgets every channel it follows or is about to, and names them.
    pub fn leave_all(&mut self) -> Vec<ChannelKey> {
        let mut channels = std::mem::take(&mut self.subscriptions);
        if let Stage::Busy(pending) = &self.stage
            && let Asked::Subscribe { key, .. } = &pending.asked
        {
            channels.push(key.clone());
        }
        self.stage = Stage::Closed;
        channels
    }

    /// Of the channel that is about to be followed, this is a copy that others have, too.
    pub fn share(&mut self, shared: &ChannelKey) {
        if let Stage::Busy(pending) = &mut self.stage
            && let Asked::Subscribe { key, .. } = &mut pending.asked
            && key == shared
        {
            key.clone_from(shared);
        }
    }

    /// Whether a call is out: then no request may be handed in.
    pub const fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Busy(_))
    }

    /// When [`Input::Deadline`] is due, in monotonic milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        match self.stage {
            Stage::Closed => u64::MAX,
            _ => self.pulse.deadline_ms(),
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, input: Input, terms: &Terms, now: Moment, effects: &mut Vec<Effect>) {
        if matches!(self.stage, Stage::Closed) {
            return;
        }
        match input {
            Input::Opened { connection_id } => {
                let greeting = Reply::Connected {
                    user_id: &self.identity.user_id,
                    connection_id: &connection_id,
                    node: &terms.node,
                    expires_at_ms: self.identity.expires_at_ms,
                };
                effects.push(Effect::Send(greeting.encode(None)));
            }
            Input::Request(request) => self.request(request, terms, now, effects),
            Input::Follow { channel, recover } => {
                self.follow(None, channel, recover, terms, effects);
            }
            Input::Answer(answer) => self.answer(answer, terms, now, effects),
            Input::Pong => self.pulse.pong(),
            Input::Deadline => {
                while let Some(beat) = self.pulse.beat(now) {
                    match beat {
                        Beat::Ping => effects.push(Effect::Ping),
                        Beat::Warn => {
                            let expires_at_ms = self.identity.expires_at_ms;
                            let warning = Reply::TokenExpiring { expires_at_ms };
                            effects.push(Effect::Send(warning.encode(None)));
                        }
                        Beat::Lost => return self.end(Effect::Drop, effects),
                        Beat::Close(close) => return self.end(Effect::Close(close), effects),
                    }
                }
            }
            Input::Terms => self.leave_uncovered(terms, effects),
            Input::Drain { at_ms } => self.pulse.drain(at_ms),
            Input::End(close) => self.end(Effect::Close(close), effects),
        }
    }

    /// The worker takes the rest back through [`Session::leave_all`], but a channel that was only
    /// joined is nowhere but in the call that will not be answered any more.
    fn end(&mut self, last: Effect, effects: &mut Vec<Effect>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed);
        if let Stage::Busy(pending) = stage
            && let Asked::Subscribe { key, .. } = pending.asked
        {
            effects.push(Effect::Leave(key));
        }
        effects.push(last);
    }

    fn request(&mut self, request: Request, terms: &Terms, now: Moment, effects: &mut Vec<Effect>) {
        debug_assert!(!self.is_busy(), "a request came while a call was out");
        let Request { id, command } = request;
        let verdict = self
            .rate
            .spend(terms.limits.commands_per_second, now.mono_ms);
        if verdict != Verdict::Pass {
            let refused = !terms.limits.dry_run;
            effects.push(Effect::TooFast { refused });
        }
        match verdict {
            Verdict::Pass => {}
            _ if terms.limits.dry_run => {}
            Verdict::Refuse | Verdict::GiveUp => {
                effects.push(RATE_LIMITED.send(id.as_ref(), None));
                if verdict == Verdict::GiveUp {
                    self.end(Effect::Close(Close::TooManyErrors), effects);
                }
                return;
            }
        }
        match command {
            Err(error) => {
                let (message, code) = (error.to_string(), error.code());
                let reply = Reply::Error {
                    message: &message,
                    code,
                    channel: None,
                };
                effects.push(Effect::SendError {
                    text: reply.encode(id.as_ref()),
                    code,
                    channel: None,
                });
            }
            Ok(Command::Ping) => effects.push(Effect::Send(Reply::Pong.encode(id.as_ref()))),
            Ok(Command::Refresh { token }) => {
                self.call(
                    Call::Verify { token },
                    Pending {
                        id,
                        asked: Asked::Refresh,
                    },
                    effects,
                );
            }
            Ok(Command::Subscribe { channel, recover }) => {
                self.follow(id, channel, recover, terms, effects);
            }
            Ok(Command::Unsubscribe { channel }) => match self.resolve(&channel, terms) {
                Ok(key) => {
                    if let Some(at) = self.subscriptions.iter().position(|held| *held == key) {
                        self.subscriptions.swap_remove(at);
                        effects.push(Effect::Leave(key.clone()));
                    }
                    let reply = Reply::Unsubscribed {
                        channel: &channel,
                        key: &key,
                    };
                    effects.push(Effect::Send(reply.encode(id.as_ref())));
                }
                Err(refused) => effects.push(refused.send(id.as_ref(), Some(&channel))),
            },
            Ok(Command::Publish { channel, event }) => {
                match self.may_publish(&channel, &event, terms) {
                    Ok((key, event, rule)) => {
                        let (retention, access) = (rule.history, rule.publish);
                        let what = What::Publish { event, retention };
                        self.wish(id, Wish { channel, key, what }, access, effects);
                    }
                    Err(refused) => effects.push(refused.send(id.as_ref(), Some(&channel))),
                }
            }
            Ok(Command::History {
                channel,
                limit,
                before,
            }) => match self.may_look_back(&channel, terms) {
                Ok((key, access)) => {
                    let limit = limit.unwrap_or(HISTORY_EVENTS_MAX).min(HISTORY_EVENTS_MAX);
                    let what = What::History { before, limit };
                    self.wish(id, Wish { channel, key, what }, access, effects);
                }
                Err(refused) => effects.push(refused.send(id.as_ref(), Some(&channel))),
            },
            Ok(Command::Presence { channel }) => match self.may_see_who(&channel, terms) {
                Ok((key, access)) => {
                    let what = What::Presence;
                    self.wish(id, Wish { channel, key, what }, access, effects);
                }
                Err(refused) => effects.push(refused.send(id.as_ref(), Some(&channel))),
            },
        }
    }

    fn follow(
        &mut self,
        id: Option<RequestId>,
        channel: Box<RawValue>,
        recover: Option<Position>,
        terms: &Terms,
        effects: &mut Vec<Effect>,
    ) {
        debug_assert!(
            !self.is_busy(),
            "a channel was asked for while a call was out"
        );
        match self.may_subscribe(&channel, terms) {
            Ok((key, rule)) => {
                let (rule, access) = (rule.clone(), rule.subscribe);
                let what = What::Subscribe { rule, recover };
                self.wish(id, Wish { channel, key, what }, access, effects);
            }
            Err(refused) => effects.push(refused.send(id.as_ref(), Some(&channel))),
        }
    }

    /// This client's user, if it is their notifications' channel.
    fn owner_of_inbox(&self, key: &ChannelKey) -> Option<Arc<str>> {
        let user_id = &self.identity.user_id;
        (key.kind() == "notifications" && key.id() == &**user_id).then(|| user_id.clone())
    }

    fn call(&mut self, call: Call, pending: Pending, effects: &mut Vec<Effect>) {
        self.stage = Stage::Busy(Box::new(pending));
        effects.push(Effect::Call(call));
    }

    fn subscribe(
        &mut self,
        id: Option<RequestId>,
        channel: Box<RawValue>,
        key: ChannelKey,
        rule: &ChannelRule,
        recover: Option<Position>,
        effects: &mut Vec<Effect>,
    ) {
        let recovery = match (&recover, rule.history) {
            (Some(_), None) => Recovery::InVain,
            _ => Recovery::AsAnswered,
        };
        let recover = recover.filter(|_| rule.history.is_some());
        if let Some(at) = self.subscriptions.iter().position(|held| *held == key) {
            if recover.is_none() {
                let call = Call::Standing {
                    channel: key.clone(),
                };
                let pending = Pending {
                    id,
                    asked: Asked::Standing {
                        channel,
                        key,
                        recovery,
                    },
                };
                return self.call(call, pending, effects);
            }
            self.subscriptions.swap_remove(at);
            effects.push(Effect::Leave(key.clone()));
        }
        effects.push(Effect::Join(key.clone()));
        let call = Call::Subscribe {
            channel: key.clone(),
            history: rule.history.is_some(),
            recover,
            unread_of: self.owner_of_inbox(&key),
        };
        self.call(
            call,
            Pending {
                id,
                asked: Asked::Subscribe {
                    channel,
                    key,
                    recovery,
                },
            },
            effects,
        );
    }
}

impl Recovery {
    fn in_vain(self) -> Option<Result<(), &'static str>> {
        (self == Self::InVain).then(|| Err(Unrecoverable::HistoryExpired.as_str()))
    }
}

impl Refused {
    fn send(&self, id: Option<&RequestId>, channel: Option<&RawValue>) -> Effect {
        let channel = channel.filter(|channel| channel.get().len() <= ECHO_BYTES_MAX);
        self.effect(id, channel, channel.and_then(asked_for))
    }

    /// For a channel that was found to be one, which the reply does not repeat.
    fn send_of(&self, id: Option<&RequestId>, key: &ChannelKey) -> Effect {
        self.effect(id, None, Some(key.as_str().into()))
    }

    fn effect(
        &self,
        id: Option<&RequestId>,
        repeated: Option<&RawValue>,
        channel: Option<Box<str>>,
    ) -> Effect {
        let reply = Reply::Error {
            message: self.message,
            code: self.code,
            channel: repeated,
        };
        Effect::SendError {
            text: reply.encode(id),
            code: self.code,
            channel,
        }
    }
}

/// What a client calls a channel: the key, however long it may be, or else what it sent.
fn asked_for(channel: &RawValue) -> Option<Box<str>> {
    let value = channel_value(channel);
    let key = value
        .as_ref()
        .and_then(|value| ChannelKey::resolve(value, None, ECHO_BYTES_MAX).ok());
    if let Some(key) = key {
        return Some(key.as_str().into());
    }
    let sent = value.as_ref().and_then(Value::as_str);
    let sent = sent.unwrap_or_else(|| channel.get());
    (sent.len() <= NO_CHANNEL_BYTES_MAX).then(|| sent.into())
}
