//! A session with a clock that is moved by hand, and a watch on what must hold after every input.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::*;
use crate::config::{Access, ChannelRules, Limits, Retention, Slow};
use crate::protocol::{Epoch, Event};

/// 2026-11-23T04:05:06.789Z
pub const START: Moment = Moment {
    mono_ms: 1_000,
    unix_ms: 1_795_406_706_789,
};
pub const TOKEN_MS: u64 = 1_800_000;

/// A session of `u1` whose token names `room_7` and `team_a*`.
pub struct Bench {
    pub session: Session,
    pub terms: Terms,
    pub now: Moment,
    /// Joined and not left.
    joined: BTreeSet<ChannelKey>,
    /// Of those, the ones that were activated.
    active: BTreeSet<ChannelKey>,
    /// Commands that came too fast: refused, and not.
    pub too_fast: (usize, usize),
    /// Of every refusal its code, and the channel that it was about.
    pub refusals: Vec<(&'static str, Option<Box<str>>)>,
    call_is_out: bool,
    ended: bool,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Terms)) -> Self {
        let mut terms = terms();
        change(&mut terms);
        Self {
            session: Session::new(
                identity("u1", TOKEN_MS, &["room_7", "team_a*"]),
                &terms,
                START,
            ),
            terms,
            now: START,
            joined: BTreeSet::new(),
            active: BTreeSet::new(),
            too_fast: (0, 0),
            refusals: Vec::new(),
            call_is_out: false,
            ended: false,
        }
    }

    /// Hands the input over; what was done, each effect as a line.
    pub fn handle(&mut self, input: Input) -> Vec<String> {
        if matches!(input, Input::Answer(_)) {
            self.call_is_out = false;
        }
        let mut effects = Vec::new();
        self.session
            .handle(input, &self.terms, self.now, &mut effects);
        let is_shown = |effect: &&Effect| !matches!(effect, Effect::TooFast { .. });
        let lines = effects.iter().filter(is_shown).map(line).collect();
        for effect in effects {
            self.watch(effect);
        }
        assert_eq!(self.session.is_busy(), self.call_is_out && !self.ended);
        if !self.ended {
            let subscribed: BTreeSet<_> = self.session.subscriptions().iter().cloned().collect();
            assert_eq!(subscribed.len(), self.session.subscriptions().len());
            assert_eq!(subscribed, self.active);
            assert!(subscribed.len() <= self.terms.limits.channels_per_connection);
        }
        lines
    }

    /// The client sends a message.
    pub fn ask(&mut self, text: &str) -> Vec<String> {
        self.handle(Input::Request(Request::parse(text)))
    }

    /// The client sends a message that is answered at once with one message.
    #[track_caller]
    pub fn reply(&mut self, text: &str) -> String {
        let mut lines = self.ask(text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    pub fn answer(&mut self, answer: Answer) -> Vec<String> {
        self.handle(Input::Answer(answer))
    }

    /// Subscribes to a channel that stands at offset 5.
    pub fn subscribed(&mut self, key: &str) {
        self.ask(&format!(r#"{{"type":"subscribe","channel":"{key}"}}"#));
        self.answer(Answer::Subscribed {
            position: Some(at(5)),
            missed: None,
            unread: None,
        });
        assert!(
            self.session
                .subscriptions()
                .iter()
                .any(|held| held.as_str() == key)
        );
    }

    /// Time passes and nothing happens.
    pub fn wait(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
    }

    /// What the worker does when the connection is over. After it nothing may be left.
    pub fn finish(mut self) {
        for key in self.session.leave_all() {
            assert!(self.joined.remove(&key), "{key} was left and never joined");
        }
        assert!(self.joined.is_empty(), "joined for ever: {:?}", self.joined);
        self.ended = true;
        assert!(self.handle(Input::Deadline).is_empty());
    }

    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    fn watch(&mut self, effect: Effect) {
        assert!(!self.ended, "{effect:?} after the last effect");
        match effect {
            Effect::Join(key) => assert!(self.joined.insert(key)),
            Effect::Activate { channel, .. } => {
                assert!(self.joined.contains(&channel));
                assert!(self.active.insert(channel));
            }
            Effect::Leave(key) => {
                assert!(self.joined.remove(&key), "{key} was never joined");
                self.active.remove(&key);
            }
            Effect::Call(_) => {
                assert!(!self.call_is_out, "two calls at once");
                self.call_is_out = true;
            }
            Effect::Close(_) | Effect::Drop => self.ended = true,
            Effect::Send(text) | Effect::Acknowledge { text, .. } => {
                assert!(
                    !text.starts_with(r#"{"type":"error""#),
                    "not counted: {text}"
                );
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
            Effect::SendError {
                text,
                code,
                channel,
            } => {
                self.refusals.push((code, channel));
                assert!(text.contains(&format!(r#""code":"{code}""#)), "{text}");
                assert!(text.starts_with(r#"{"type":"error""#), "{text}");
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
            Effect::TooFast { refused: true } => self.too_fast.0 += 1,
            Effect::TooFast { refused: false } => self.too_fast.1 += 1,
            Effect::Ping | Effect::AuthFailure(_) => {}
        }
    }
}

pub fn identity(user: &str, expires_in_ms: u64, channels: &[&str]) -> Arc<Identity> {
    Arc::new(Identity {
        user_id: user.into(),
        wallet: None,
        jti: None,
        family: None,
        issued_at_ms: 0,
        expires_at_ms: START.unix_ms + expires_in_ms,
        variant: None,
        channels: channels.iter().map(ToString::to_string).collect(),
    })
}

pub fn at(offset: u64) -> Position {
    Position {
        epoch: Epoch::new("e1"),
        offset,
    }
}

pub fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

pub fn event(json: &str) -> Event {
    Event::parse(json, 1 << 16).unwrap()
}

fn terms() -> Terms {
    let kept = Some(Retention {
        entries: 100,
        ttl: Duration::from_secs(86_400),
        durability: crate::config::Durability::Commit,
    });
    let rule = |subscribe, publish, history| ChannelRule {
        subscribe,
        publish,
        history,
        presence: false,
        join_leave: false,
        slow: Slow::Close,
    };
    let rules = [
        ("notifications", rule(Access::Own, Access::None, kept)),
        ("feed", rule(Access::Own, Access::None, kept)),
        ("creator", rule(Access::Any, Access::None, kept)),
        ("post", rule(Access::Any, Access::None, kept)),
        ("room", rule(Access::Token, Access::Token, kept)),
        ("team", rule(Access::Token, Access::None, kept)),
        ("live", rule(Access::Any, Access::Any, None)),
        ("box", rule(Access::None, Access::Any, kept)),
        (
            "gate",
            ChannelRule {
                presence: true,
                ..rule(Access::Backend, Access::Backend, kept)
            },
        ),
    ];
    Terms {
        channels: ChannelRules(
            rules
                .into_iter()
                .map(|(kind, rule)| (kind.to_owned(), rule))
                .collect(),
        ),
        limits: Limits {
            history_bytes: u64::MAX,
            connections: usize::MAX,
            connections_per_user: 64,
            connections_per_address: 256,
            accepts_per_second: 2_000,
            sign_in_per_minute: 10,
            requests_per_second: 50,
            commands_per_second: 50,
            dry_run: false,
            message_bytes: 1 << 16,
            event_bytes: 100,
            body_bytes: 1 << 20,
            channels_per_connection: 3,
            channel_key_bytes: 40,
            queue_bytes: 1 << 20,
            queue_age: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            notifications_per_user: 1_000,
            store_bytes: 1 << 30,
        },
        node: "n1".into(),
    }
}

/// An effect as a test writes it down: messages as they are, the rest in words.
fn line(effect: &Effect) -> String {
    match effect {
        Effect::Send(text) | Effect::SendError { text, .. } | Effect::Acknowledge { text, .. } => {
            text.clone()
        }
        Effect::TooFast { .. } => "TOO FAST".to_owned(),
        Effect::AuthFailure(check) => format!("AUTH FAILURE {check}"),
        Effect::Ping => "PING".to_owned(),
        Effect::Join(key) => format!("JOIN {key}"),
        Effect::Activate {
            channel,
            position,
            missed,
        } => {
            let upto = position.as_ref().map(|position| position.offset);
            let missed: Vec<_> = missed.iter().map(|entry| entry.offset).collect();
            format!("ACTIVATE {channel} {upto:?} {missed:?}")
        }
        Effect::Leave(key) => format!("LEAVE {key}"),
        Effect::Close(close) => format!("CLOSE {}", close.code()),
        Effect::Drop => "DROP".to_owned(),
        Effect::Call(call) => match call {
            Call::Subscribe {
                channel,
                history,
                recover,
                unread_of,
            } => {
                let mut line = format!("CALL subscribe {channel}");
                if *history {
                    line += " history";
                }
                if let Some(Position { epoch, offset }) = recover {
                    line += &format!(" from {}:{offset}", epoch.as_str());
                }
                if let Some(user) = unread_of {
                    line += &format!(" unread of {user}");
                }
                line
            }
            Call::Standing { channel } => format!("CALL standing {channel}"),
            Call::Unread { user_id } => format!("CALL unread of {user_id}"),
            Call::Publish {
                channel,
                event,
                retention,
            } => {
                let event = String::from_utf8_lossy(event.as_bytes());
                let kept = if retention.is_some() {
                    "kept"
                } else {
                    "passing"
                };
                format!("CALL publish {channel} {kept} {event}")
            }
            Call::History {
                channel,
                before,
                limit,
            } => format!("CALL history {channel} {limit} before {before:?}"),
            Call::Presence { channel } => format!("CALL presence {channel}"),
            Call::Authorize { channel, action } => {
                format!("CALL authorize {} {channel}", action.as_str())
            }
            Call::Verify { token } => format!("CALL verify {token}"),
        },
    }
}
