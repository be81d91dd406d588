//! A client with its session, and what it has heard: every event continues the one before. What it has
//! missed comes in pages of a few events, as a worker sends them (`fanfare::worker::replay`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fanfare::broker::Broker;
use fanfare::protocol::history::{Entry, Recovery};
use fanfare::protocol::{ChannelKey, Epoch, Position, Request};
use fanfare::session::{Answer, Call, Effect, Identity, Input, Session};
use fanfare::worker::channels::Activated;
use fanfare::worker::replay::page;
use fanfare::ws::Frame;
use fanfare::ws::frame::event_text;
use serde_json::{Value, json};

use crate::account::Account;
use crate::dice::Dice;
use crate::node::{self, Node};

/// Bytes of a page: eight events or so.
const PAGE_BYTES: usize = 1_500;

pub struct Client {
    /// Its slot in whichever worker has it.
    member: usize,
    connection: Option<Connection>,
    /// Where it stands in each channel that it ever followed.
    heard: HashMap<&'static str, Position>,
}

struct Connection {
    worker: usize,
    session: Session,
    /// What the session waits for: to be read, or read.
    call: Option<Call>,
    answer: Option<Answer>,
    /// The channel being subscribed to, and from where.
    asked: Option<(&'static str, Option<Position>)>,
    /// The channels it follows.
    live: Vec<&'static str>,
    /// Those of which it has not had all it missed.
    replays: VecDeque<Replay>,
}

/// A long replay between two pages.
struct Replay {
    channel: ChannelKey,
    /// The last event that was sent.
    at: Position,
    stage: Stage,
}

enum Stage {
    /// Nothing is held back for it.
    Postponed,
    /// Live events are held back again, and the next page is about to be read.
    Resumed,
    /// It was read, but not sent yet.
    Read(Recovery),
}

impl Client {
    pub fn new(member: usize) -> Self {
        Self {
            member,
            connection: None,
            heard: HashMap::new(),
        }
    }

    /// Where it stands.
    pub fn at(&self, channel: &str) -> Option<&Position> {
        self.heard.get(channel)
    }

    /// Asks for a channel, over a new connection if there is none, unless a call is out. On one that
    /// it follows already it may go back to an earlier place.
    pub fn subscribe(
        &mut self,
        channel: &'static str,
        node: &mut Node,
        account: &mut Account,
        dice: &mut Dice,
    ) {
        let connection = self.connection.get_or_insert_with(|| Connection {
            worker: dice.below(node::WORKERS as u64) as usize,
            session: Session::new(identity(), &node.terms, node.clock.now()),
            call: None,
            answer: None,
            asked: None,
            live: Vec::new(),
            replays: VecDeque::new(),
        });
        if connection.session.is_busy() {
            return;
        }
        let mut from = self.heard.get(channel).cloned();
        if connection.live.contains(&channel) {
            account.count("again on the same connection");
            let back = dice.below(3);
            from = from.map(|at| Position {
                offset: at.offset.saturating_sub(back),
                ..at
            });
        }
        let mut command = json!({"type": "subscribe", "channel": channel});
        if let Some(from) = &from {
            command["recover"] = json!({"epoch": from.epoch.as_str(), "offset": from.offset});
        }
        connection.live.retain(|live| *live != channel);
        connection.asked = Some((channel, from));
        self.input(Input::Request(request(&command)), node, account);
    }

    pub fn unsubscribe(&mut self, channel: &'static str, node: &mut Node, account: &mut Account) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if !connection.session.is_busy() {
            connection.live.retain(|live| *live != channel);
            let command = json!({"type": "unsubscribe", "channel": channel});
            self.input(Input::Request(request(&command)), node, account);
        }
    }

    /// The broker is asked what the session wants to know; it will be told later.
    pub async fn read(&mut self, node: &mut Node) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let Some(call) = connection.call.take() else {
            return;
        };
        let Call::Subscribe {
            channel, recover, ..
        } = call
        else {
            panic!("{call:?}");
        };
        node.broker.subscribe(&channel).await.unwrap();
        let (position, missed) = match recover {
            None => (node.broker.position(&channel).await.unwrap(), None),
            Some(since) => {
                let recovery = page(&*node.broker, &channel, &since, PAGE_BYTES).await;
                let Recovery { position, missed } = recovery.unwrap();
                (position, Some(missed))
            }
        };
        connection.answer = Some(Answer::Subscribed {
            position: Some(position),
            missed,
            unread: None,
        });
    }

    /// The session is told.
    pub fn answer(&mut self, node: &mut Node, account: &mut Account) {
        let connection = self.connection.as_mut();
        if let Some(answer) = connection.and_then(|connection| connection.answer.take()) {
            self.input(Input::Answer(answer), node, account);
        }
    }

    /// Whether it has not had all it missed.
    pub fn is_replaying(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| !connection.replays.is_empty())
    }

    /// Its first replay goes a step on: live events are held back again, a page is read, it is sent.
    pub async fn go_on(&mut self, node: &mut Node, account: &mut Account) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let Some(mut replay) = connection.replays.pop_front() else {
            return;
        };
        match replay.stage {
            Stage::Postponed => {
                let slot = self.member as u32;
                node.channels(connection.worker)
                    .resume(&replay.channel, slot);
                replay.stage = Stage::Resumed;
                connection.replays.push_front(replay);
            }
            Stage::Resumed => {
                let (channel, at) = (&replay.channel, &replay.at);
                let read = page(&*node.broker, channel, at, PAGE_BYTES).await;
                replay.stage = Stage::Read(read.unwrap());
                connection.replays.push_front(replay);
            }
            Stage::Read(Recovery {
                position,
                missed: Ok(missed),
            }) => {
                self.send_page(
                    &replay.channel,
                    Some(position),
                    missed,
                    "paged",
                    node,
                    account,
                );
            }
            Stage::Read(Recovery {
                position,
                missed: Err(reason),
            }) => {
                // What was promised has left the history meanwhile: it is sent away (4103).
                account.count("promised in vain");
                let channel = self.heard.keys();
                let mut channel = channel.filter(|channel| ***channel == *replay.channel.as_str());
                let (channel, now) = (*channel.next().unwrap(), node.clock.now());
                let (at, top) = (replay.at.offset, position.offset);
                account.not_recovered(channel, at, top, reason.as_str(), now.unix_ms);
                self.cut(node);
            }
        }
    }

    /// The connection is gone, and with it everything that was on the way.
    pub fn cut(&mut self, node: &mut Node) {
        if let Some(mut connection) = self.connection.take() {
            for key in connection.session.leave_all() {
                node.leave(connection.worker, &key, self.member);
            }
        }
    }

    fn input(&mut self, input: Input, node: &mut Node, account: &mut Account) {
        let connection = self.connection.as_mut().unwrap();
        let mut effects = Vec::new();
        let now = node.clock.now();
        connection
            .session
            .handle(input, &node.terms, now, &mut effects);
        let worker = connection.worker;
        for effect in effects {
            match effect {
                Effect::Send(text) | Effect::Acknowledge { text, .. } => {
                    self.reply(&text, now.unix_ms, account)
                }
                Effect::Join(key) => node.join(worker, &key, self.member),
                Effect::Leave(key) => {
                    node.leave(worker, &key, self.member);
                    let replays = &mut self.connection.as_mut().unwrap().replays;
                    replays.retain(|replay| replay.channel != key);
                }
                Effect::Call(call) => self.connection.as_mut().unwrap().call = Some(call),
                Effect::Activate {
                    channel,
                    position,
                    missed,
                } => self.send_page(&channel, position, missed, "missed", node, account),
                other => panic!("{other:?}"),
            }
        }
    }

    /// As the worker's own, which sends to sockets.
    fn send_page(
        &mut self,
        channel: &ChannelKey,
        position: Option<Position>,
        missed: Vec<Entry>,
        how: &'static str,
        node: &mut Node,
        account: &mut Account,
    ) {
        let mut last = None;
        for entry in missed {
            let at = Position {
                epoch: position.as_ref().unwrap().epoch.clone(),
                offset: entry.offset,
            };
            let text = event_text(channel, &entry.event, Some(&at));
            self.event(text.as_bytes(), how, account);
            last = Some(at);
        }
        let connection = self.connection.as_mut().unwrap();
        let (channels, slot) = (node.channels(connection.worker), self.member as u32);
        let activated = match last {
            Some(at) if Some(&at) != position.as_ref() => {
                connection.replays.push_back(Replay {
                    channel: channel.clone(),
                    at,
                    stage: Stage::Postponed,
                });
                channels.postpone(channel, slot)
            }
            _ => channels.activate(channel, slot, position),
        };
        let how = match how {
            "paged" => "held back while the last page was read",
            _ => "held back",
        };
        match activated {
            Activated::Held(frames) => {
                for (_, frame) in frames {
                    self.event(payload(&frame), how, account);
                }
            }
            Activated::Lost => panic!("so much is never held back here"),
        }
    }

    /// A live event.
    #[track_caller]
    pub fn hear(&mut self, frame: &Frame, account: &mut Account) {
        self.event(payload(frame), "live", account);
    }

    #[track_caller]
    fn event(&mut self, text: &[u8], how: &'static str, account: &mut Account) {
        account.count(how);
        let event: Value = serde_json::from_slice(text).unwrap();
        let meta = &event["_meta"];
        let at = Position {
            epoch: Epoch::new(meta["epoch"].as_str().unwrap()),
            offset: meta["offset"].as_u64().unwrap(),
        };
        let connection = self.connection.as_ref().expect("an event to nobody");
        let mut live = connection.live.iter();
        let channel = *live
            .find(|live| meta["channel"] == **live)
            .expect("an event of a channel that was not acknowledged");
        let before = self.heard.get_mut(channel).unwrap();
        before.offset += 1;
        assert_eq!(*before, at, "{channel}, {how}");
        account.learn(channel, &at, event["n"].as_u64().unwrap());
    }

    fn reply(&mut self, text: &str, now_ms: u64, account: &mut Account) {
        let reply: Value = serde_json::from_str(text).unwrap();
        if reply["type"] == "unsubscribed" {
            return;
        }
        assert_eq!(reply["type"], "subscribed", "{text}");
        let data = &reply["data"];
        let stands = Position {
            epoch: Epoch::new(data["epoch"].as_str().unwrap()),
            offset: data["offset"].as_u64().unwrap(),
        };
        let connection = self.connection.as_mut().unwrap();
        let (channel, from) = connection.asked.take().unwrap();
        connection.live.push(channel);
        let begins = match (from, data["recovered"].as_bool()) {
            (None, None) => stands,
            (Some(from), Some(true)) => {
                assert_eq!(from.epoch, stands.epoch);
                assert!(from.offset <= stands.offset);
                from
            }
            // A channel without an event may be another one after a restart: there was nothing to miss.
            (Some(from), Some(false)) if from.offset == 0 && from.epoch != stands.epoch => stands,
            (Some(from), Some(false)) => {
                let reason = data["reason"].as_str().unwrap();
                account.not_recovered(channel, from.offset, stands.offset, reason, now_ms);
                stands
            }
            other => panic!("{other:?} {text}"),
        };
        self.heard.insert(channel, begins);
    }
}

fn request(command: &Value) -> Request {
    Request::parse(&command.to_string())
}

/// What is in a frame; all of these are short.
fn payload(frame: &Frame) -> &[u8] {
    let header = if frame[1] == 126 { 4 } else { 2 };
    &frame[header..]
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        user_id: "u1".into(),
        wallet: None,
        jti: None,
        family: None,
        issued_at_ms: 0,
        expires_at_ms: u64::MAX,
        variant: None,
        channels: Arc::new([]),
    })
}
