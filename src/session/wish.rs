//! What a client wants of a channel, checked as far as this node can check it: carried out at once, or
//! once the application's backend has allowed it.

use serde_json::value::RawValue;

use super::access::Action;
use super::{ACCESS_DENIED, Asked, Call, Effect, Pending, Session};
use crate::config::{Access, ChannelRule, Retention};
use crate::protocol::{ChannelKey, Event, Position, RequestId};

/// A command about a channel of which nothing but the backend's word may be missing.
#[derive(Debug)]
pub(super) struct Wish {
    /// In the client's own form, for the reply.
    pub(super) channel: Box<RawValue>,
    pub(super) key: ChannelKey,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Subscribe {
        rule: ChannelRule,
        recover: Option<Position>,
    },
    Publish {
        event: Event,
        retention: Option<Retention>,
    },
    History {
        before: Option<u64>,
        limit: usize,
    },
    Presence,
}

impl Session {
    /// Carries a wish out, or has the backend asked first if `access` says so.
    pub(super) fn wish(
        &mut self,
        id: Option<RequestId>,
        wish: Wish,
        access: Access,
        effects: &mut Vec<Effect>,
    ) {
        if access != Access::Backend {
            return self.grant(id, wish, effects);
        }
        let call = Call::Authorize {
            channel: wish.key.clone(),
            action: match wish.what {
                What::Publish { .. } => Action::Publish,
                What::Subscribe { .. } | What::History { .. } | What::Presence => Action::Subscribe,
            },
        };
        let asked = Asked::Authorize(Box::new(wish));
        self.call(call, Pending { id, asked }, effects);
    }

    /// The backend has answered.
    pub(super) fn authorized(
        &mut self,
        id: Option<RequestId>,
        wish: Wish,
        is_allowed: bool,
        effects: &mut Vec<Effect>,
    ) {
        if is_allowed {
            self.grant(id, wish, effects);
        } else {
            effects.push(ACCESS_DENIED.send(id.as_ref(), Some(&wish.channel)));
        }
    }

    fn grant(&mut self, id: Option<RequestId>, wish: Wish, effects: &mut Vec<Effect>) {
        let Wish { channel, key, what } = wish;
        let (call, asked) = match what {
            What::Subscribe { rule, recover } => {
                return self.subscribe(id, channel, key, &rule, recover, effects);
            }
            What::Publish { event, retention } => (
                Call::Publish {
                    channel: key.clone(),
                    event,
                    retention,
                },
                Asked::Publish { key },
            ),
            What::History { before, limit } => (
                Call::History {
                    channel: key.clone(),
                    before,
                    limit,
                },
                Asked::History { key },
            ),
            What::Presence => (
                Call::Presence {
                    channel: key.clone(),
                },
                Asked::Presence { key },
            ),
        };
        self.call(call, Pending { id, asked }, effects);
    }
}
