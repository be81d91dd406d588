//! What a client is told when a call comes back.

use std::sync::Arc;

use serde_json::value::to_raw_value;

use super::{
    ACCESS_DENIED, Answer, Asked, Call, Effect, Identity, Pending, Refused, Reply, Session, Stage,
    Terms, Unread,
};
use crate::clock::Moment;

/// Subscriptions up to which a session has no room to spare for more: most have one or two.
const FEW: usize = 4;

impl Session {
    pub(super) fn answer(
        &mut self,
        answer: Answer,
        terms: &Terms,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Stage::Busy(pending) = std::mem::replace(&mut self.stage, Stage::Ready) else {
            debug_assert!(false, "an answer came while no call was out");
            return;
        };
        let Pending { id, asked } = *pending;
        let (asked, answer) = match (asked, answer) {
            (Asked::Authorize(wish), Answer::Authorized(is_allowed)) => {
                return self.authorized(id, *wish, is_allowed, effects);
            }
            others => others,
        };
        let id = id.as_ref();
        if let Asked::Subscribe { channel, key, .. } = &asked
            && self.rule(key, terms, |rule| rule.subscribe).is_err()
        {
            // The rules have changed since it asked.
            effects.push(Effect::Leave(key.clone()));
            effects.push(ACCESS_DENIED.send(id, Some(channel)));
            return;
        }
        match (asked, answer) {
            (
                Asked::Subscribe {
                    channel,
                    key,
                    recovery,
                },
                Answer::Subscribed {
                    position,
                    missed,
                    unread,
                },
            ) => {
                let recovered = recovery
                    .in_vain()
                    .or(missed.as_ref().map(|missed| match missed {
                        Ok(_) => Ok(()),
                        Err(reason) => Err(reason.as_str()),
                    }));
                let reply = Reply::Subscribed {
                    channel: &channel,
                    key: &key,
                    position: position.as_ref(),
                    recovered,
                };
                let text = reply.encode(id);
                if self.subscriptions.len() < FEW {
                    // Growth as usual begins with room for four.
                    self.subscriptions.reserve_exact(1);
                }
                self.subscriptions.push(key.clone());
                let missed = missed.and_then(Result::ok).unwrap_or_default();
                effects.push(Effect::Acknowledge {
                    text,
                    channel: key.clone(),
                    stands: position.clone().filter(|_| missed.is_empty()),
                });
                effects.push(Effect::Activate {
                    channel: key,
                    position,
                    missed,
                });
                effects.extend(unread.map(tell_unread));
            }
            (
                Asked::Standing {
                    channel,
                    key,
                    recovery,
                },
                Answer::Subscribed { position, .. },
            ) => {
                let reply = Reply::Subscribed {
                    channel: &channel,
                    key: &key,
                    position: position.as_ref(),
                    recovered: recovery.in_vain(),
                };
                effects.push(Effect::Send(reply.encode(id)));
                if let Some(user_id) = self.owner_of_inbox(&key) {
                    let pending = Pending {
                        id: None,
                        asked: Asked::Unread,
                    };
                    self.call(Call::Unread { user_id }, pending, effects);
                }
            }
            (Asked::Unread, Answer::Unread(unread)) => {
                effects.extend(unread.map(tell_unread));
            }
            // The subscription stands without it.
            (Asked::Unread, Answer::Failed { .. }) => {}
            (Asked::Publish { key }, Answer::Published { position }) => {
                let reply = Reply::Published {
                    key: &key,
                    position: position.as_ref(),
                };
                effects.push(Effect::Send(reply.encode(id)));
            }
            (Asked::History { key }, Answer::History { position, events }) => {
                let reply = Reply::History {
                    key: &key,
                    position: &position,
                    events: &events,
                };
                effects.push(Effect::Send(reply.encode(id)));
            }
            (Asked::Presence { key }, Answer::Presence { users, count }) => {
                let reply = Reply::Presence {
                    key: &key,
                    users: &users,
                    count,
                };
                effects.push(Effect::Send(reply.encode(id)));
            }
            (Asked::Refresh, Answer::Verified(verified)) => {
                let own = |newer: &Arc<Identity>| newer.user_id == self.identity.user_id;
                match verified.and_then(|newer| own(&newer).then_some(newer).ok_or("other_user")) {
                    Ok(newer) => {
                        self.pulse.renew(newer.expires_at_ms, now);
                        let reply = Reply::Refreshed {
                            expires_at_ms: newer.expires_at_ms,
                        };
                        self.identity = newer;
                        effects.push(Effect::Send(reply.encode(id)));
                        self.leave_uncovered(terms, effects);
                    }
                    Err(check) => {
                        effects.push(Effect::AuthFailure(check));
                        let refused = Refused {
                            message: "Invalid token",
                            code: "invalid_token",
                        };
                        effects.push(refused.send(id, None));
                    }
                }
            }
            (asked, Answer::Failed { code }) => {
                let refused = Refused {
                    message: "Temporarily unavailable",
                    code,
                };
                match asked {
                    Asked::Subscribe { channel, key, .. } => {
                        effects.push(Effect::Leave(key));
                        effects.push(refused.send(id, Some(&channel)));
                    }
                    Asked::Authorize(wish) => effects.push(refused.send_of(id, &wish.key)),
                    Asked::Publish { key } | Asked::History { key } | Asked::Presence { key } => {
                        effects.push(refused.send_of(id, &key));
                    }
                    _ => effects.push(refused.send(id, None)),
                }
            }
            (asked, answer) => {
                debug_assert!(false, "{answer:?} does not answer {asked:?}");
                self.end(Effect::Drop, effects);
            }
        }
    }

    /// A newer token may say less than the one before, and newer rules: what they no longer allow
    /// ends here.
    pub(super) fn leave_uncovered(&mut self, terms: &Terms, effects: &mut Vec<Effect>) {
        let held = std::mem::take(&mut self.subscriptions);
        let (kept, uncovered) = held
            .into_iter()
            .partition(|key| self.rule(key, terms, |rule| rule.subscribe).is_ok());
        self.subscriptions = kept;
        for key in uncovered {
            let named = to_raw_value(key.as_str()).expect("a string is always JSON");
            let reply = Reply::Unsubscribed {
                channel: &named,
                key: &key,
            };
            let reply = Effect::Send(reply.encode(None));
            effects.push(Effect::Leave(key));
            effects.push(reply);
        }
    }
}

fn tell_unread(unread: Unread) -> Effect {
    let reply = Reply::UnreadNotifications {
        notifications: &unread.notifications,
        count: unread.count,
    };
    Effect::Send(reply.encode(None))
}
