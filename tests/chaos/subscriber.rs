//! A client that follows two channels, loses its connection all the time, comes back and asks for
//! what it missed. What it hears has to continue what it heard, event by event.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::account::{Account, key, number};
use crate::support::{Dice, Server, frame, handshake};

/// Where the test is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything happens.
    Storm,
    /// Nothing is published or killed any more, connections are still cut.
    Calm,
    /// Everybody comes back once more and stays until nothing is missing.
    Settle,
}

/// Nothing may come after the last event for so long.
const QUIET: Duration = Duration::from_millis(300);
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

pub struct Subscriber {
    path: String,
    to: SocketAddr,
    follows: [Followed; 2],
    account: Rc<RefCell<Account>>,
    dice: Dice,
}

/// One channel as its follower knows it.
struct Followed {
    channel: usize,
    /// The last event it has had, or was told to begin after; its epoch.
    at: Option<(String, u64)>,
    /// Whether the subscription was acknowledged on this connection.
    is_live: bool,
    /// Offsets up to this were promised as missed ones.
    promised: u64,
}

/// How a connection ended.
enum End {
    /// By our own hand.
    Cut,
    /// By the server's or its death.
    Broken,
    /// Nothing is missing.
    Settled,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
    by: Option<usize>,
    n: Option<usize>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Meta {
    channel: String,
    offset: u64,
    epoch: String,
}

impl Subscriber {
    pub fn new(
        n: usize,
        channels: [usize; 2],
        server: &Server,
        account: &Rc<RefCell<Account>>,
        dice: Dice,
    ) -> Self {
        Self {
            path: format!("/ws?token={}", server.token(&format!("reader-{n}"))),
            to: server.addr(),
            follows: channels.map(|channel| Followed {
                channel,
                at: None,
                is_live: false,
                promised: 0,
            }),
            account: account.clone(),
            dice,
        }
    }

    /// Comes and goes until it is told to settle and has everything.
    pub async fn run(mut self, mut stage: watch::Receiver<Stage>) {
        loop {
            let settling = *stage.borrow_and_update() == Stage::Settle;
            let end = self.stay(settling, &mut stage).await;
            match end {
                Ok(End::Settled) => return,
                Ok(End::Cut) => self.account.borrow_mut().cut += 1,
                Ok(End::Broken) | Err(_) => self.account.borrow_mut().broken += 1,
            }
            let away_ms = match self.dice.below(20) {
                0 => 2_000 + self.dice.below(2_000),
                1..6 => self.dice.below(1_000),
                _ => 20 + self.dice.below(100),
            };
            sleep(Duration::from_millis(away_ms)).await;
        }
    }

    /// One connection, from its first byte to its end.
    async fn stay(
        &mut self,
        settling: bool,
        stage: &mut watch::Receiver<Stage>,
    ) -> std::io::Result<End> {
        let life_ms = 50 + self.dice.below(200) * self.dice.below(60);
        let mut until = Instant::now() + Duration::from_millis(life_ms);
        let mut stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let mut hello = handshake(&self.path).into_bytes();
        for followed in &mut self.follows {
            followed.is_live = false;
            hello.extend(frame(TEXT, followed.subscribe().to_string().as_bytes()));
        }
        stream.write_all(&hello).await?;
        let mut received = BytesMut::new();
        let mut is_upgraded = false;
        if settling {
            until = Instant::now() + QUIET;
        }
        loop {
            while is_upgraded && let Some((first, payload)) = take_frame(&mut received) {
                match first {
                    TEXT => self.hear(&payload),
                    PING => stream.write_all(&frame(PONG, &payload)).await?,
                    CLOSE => return Ok(End::Broken),
                    other => panic!("a frame that starts with {other:#x}"),
                }
                if settling {
                    until = Instant::now() + QUIET;
                }
            }
            if !is_upgraded && let Some(head) = head(&mut received) {
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                is_upgraded = true;
                continue;
            }
            tokio::select! {
                read = stream.read_buf(&mut received) => if read? == 0 {
                    return Ok(End::Broken);
                },
                () = sleep_until(until) => {
                    if !settling {
                        return Ok(End::Cut);
                    }
                    if self.has_everything() {
                        return Ok(End::Settled);
                    }
                    until = Instant::now() + QUIET;
                }
                _ = stage.changed() => if *stage.borrow() == Stage::Settle {
                    return Ok(End::Cut);
                },
            }
        }
    }

    fn hear(&mut self, text: &[u8]) {
        let message: Message = serde_json::from_slice(text).unwrap();
        match message.kind.as_str() {
            "tick" => self.event(&message),
            "connected" => {}
            "subscribed" => self.subscribed(&message.data),
            "disconnect" => {
                // What is lost on the way to a slow reader is said so; nothing else ends it here.
                let code = message.data["code"].as_u64().unwrap();
                assert!([4102, 4103].contains(&code), "{}", message.data);
                let mut account = self.account.borrow_mut();
                *account.sent_away.entry(code).or_default() += 1;
            }
            other => panic!("{other}: {}", message.data),
        }
    }

    fn event(&mut self, message: &Message) {
        let meta = message.meta.as_ref().unwrap();
        let channel = number(&meta.channel);
        let followed = self.follow(channel);
        let (epoch, at) = followed.at.as_mut().unwrap();
        assert!(followed.is_live, "an event before its acknowledgement");
        assert_eq!((&meta.epoch, meta.offset), (&*epoch, *at + 1));
        *at += 1;
        let was_missed = meta.offset <= followed.promised;
        let mut account = self.account.borrow_mut();
        account.heard += 1;
        account.recovered_events += u64::from(was_missed);
        let mark = (message.by.unwrap(), message.n.unwrap());
        account.learn(channel, &meta.epoch, meta.offset, mark);
    }

    fn subscribed(&mut self, data: &Value) {
        let channel = number(data["channelKey"].as_str().unwrap());
        let (epoch, offset) = (data["epoch"].as_str().unwrap(), data["offset"].as_u64());
        let offset = offset.unwrap();
        let account = self.account.clone();
        let mut account = account.borrow_mut();
        let followed = self.follow(channel);
        assert!(!followed.is_live, "acknowledged twice");
        followed.is_live = true;
        match (followed.at.clone(), data["recovered"].as_bool()) {
            (None, None) => followed.at = Some((epoch.to_string(), offset)),
            (Some((known, at)), Some(true)) => {
                assert_eq!(known, epoch);
                assert!(at <= offset, "it has {at}, the channel only {offset}");
                account.recovered += 1;
                followed.promised = offset;
            }
            // A channel without an event may be another one after a kill: nothing was there to miss.
            (Some((_, 0)), Some(false)) if data["reason"] == "epoch_changed" => {
                followed.at = Some((epoch.to_string(), offset));
            }
            (Some((_, at)), Some(false)) => {
                let reason = data["reason"].as_str().unwrap();
                account.not_recovered(channel, at, offset, reason);
                followed.at = Some((epoch.to_string(), offset));
            }
            _ => panic!("{data}"),
        }
        if offset > 0 {
            account.epoch(channel, epoch);
        }
    }

    fn has_everything(&self) -> bool {
        let account = self.account.borrow();
        self.follows.iter().all(|followed| {
            let at = followed.at.as_ref().map(|(_, at)| *at);
            followed.is_live && at == Some(account.top(followed.channel))
        })
    }

    fn follow(&mut self, channel: usize) -> &mut Followed {
        let mut follows = self.follows.iter_mut();
        follows
            .find(|followed| followed.channel == channel)
            .unwrap()
    }
}

impl Followed {
    fn subscribe(&self) -> Value {
        let mut command = json!({"type": "subscribe", "channel": key(self.channel)});
        if let Some((epoch, offset)) = &self.at {
            command["recover"] = json!({"epoch": epoch, "offset": offset});
        }
        command
    }
}

/// The head of the answer to the upgrade, once it is whole.
fn head(received: &mut BytesMut) -> Option<String> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    received.advance(end + 4);
    Some(head)
}

/// First byte and payload of the next frame, once it is whole.
fn take_frame(received: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let (header, length) = match received.get(1)? {
        126 => {
            let length = received.get(2..4)?.try_into().unwrap();
            (4, u16::from_be_bytes(length).into())
        }
        127 => {
            let length = received.get(2..10)?.try_into().unwrap();
            (10, u64::from_be_bytes(length) as usize)
        }
        short => (2, usize::from(*short)),
    };
    if received.len() < header + length {
        return None;
    }
    let first = received[0];
    received.advance(header);
    Some((first, received.split_to(length)))
}
