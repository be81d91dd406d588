//! Publishes over a connection that it keeps, as a backend does, and takes down the answers.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::account::{Account, CHANNELS, Mark, key};
use crate::subscriber::Stage;
use crate::support::{Dice, Server};

/// After a publication that failed.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Publisher {
    by: usize,
    to: SocketAddr,
    api_key: String,
    account: Rc<RefCell<Account>>,
    dice: Dice,
    connection: Option<TcpStream>,
}

impl Publisher {
    pub fn new(by: usize, server: &Server, account: &Rc<RefCell<Account>>, dice: Dice) -> Self {
        Self {
            by,
            to: server.addr(),
            api_key: server.api_key().to_string(),
            account: account.clone(),
            dice,
            connection: None,
        }
    }

    /// Publishes one event every `pause`, or as fast as it is answered, until the storm is over.
    pub async fn run(mut self, pause: Duration, stage: watch::Receiver<Stage>) {
        let mut tick = interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut n = 0;
        while *stage.borrow() == Stage::Storm {
            tick.tick().await;
            n += 1;
            let mark = (self.by, n);
            let channel = self.dice.below(CHANNELS as u64) as usize;
            self.account.borrow_mut().send(mark);
            let answer = self.publish(channel, n).await;
            if !self.note(channel, mark, answer) {
                sleep(PAUSE).await;
            }
        }
    }

    /// Takes down what came of a publication; whether it was accepted.
    fn note(&mut self, channel: usize, mark: Mark, answer: std::io::Result<(u16, Value)>) -> bool {
        let mut account = self.account.borrow_mut();
        match answer {
            Ok((200, data)) => {
                account.acknowledged += 1;
                let (epoch, offset) = (&data["epoch"], &data["offset"]);
                let (epoch, offset) = (epoch.as_str().unwrap(), offset.as_u64().unwrap());
                account.learn(channel, epoch, offset, mark);
                return true;
            }
            Ok((503, _)) => account.refused += 1,
            Ok((status, data)) => panic!("{status} {data}"),
            Err(_) => {
                account.unanswered += 1;
                self.connection = None;
            }
        }
        false
    }

    /// One request; status and body of its answer.
    async fn publish(&mut self, channel: usize, n: usize) -> std::io::Result<(u16, Value)> {
        let event = json!({"type": "tick", "by": self.by, "n": n});
        let body = json!({"channel": key(channel), "event": event}).to_string();
        let request = format!(
            "POST /api/publish HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.to,
            self.api_key,
            body.len()
        );
        if self.connection.is_none() {
            let connection = TcpStream::connect(self.to).await?;
            connection.set_nodelay(true)?;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().unwrap();
        connection.write_all(request.as_bytes()).await?;
        let mut received = BytesMut::new();
        loop {
            if connection.read_buf(&mut received).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = answer(&mut received) {
                return Ok(answer);
            }
        }
    }
}

/// A whole answer, if it is there.
fn answer(received: &mut BytesMut) -> Option<(u16, Value)> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end])
        .unwrap()
        .to_ascii_lowercase();
    let length: usize = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if received.len() < end + 4 + length {
        return None;
    }
    received.advance(end + 4);
    let status = head["http/1.1 ".len()..][..3].parse().unwrap();
    Some((status, serde_json::from_slice(&received[..length]).unwrap()))
}
