//! A blocking WebSocket client that remembers its story and tells it when something is not as expected.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::Wire;

/// How long [`Client::next`] and its relatives wait unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of the story that are kept.
const STORY_LINES: usize = 200;

/// One open socket. Pings are answered while it reads, and only then.
pub struct Client {
    socket: WebSocket<Wire>,
    /// The `connected` message, once [`Client::greeted`] has read it.
    pub greeting: Value,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// Arrived, and passed over by [`Client::next_of`] or [`Client::expect_close`].
    unread: VecDeque<Value>,
    /// The message that arrived last, as it was sent.
    pub last_text: String,
    /// How the other side ended it, once it has: code and reason.
    closed: Option<(u16, String)>,
    story: VecDeque<String>,
    start: Instant,
    patience: Duration,
}

/// What one look at the socket gave.
enum Seen {
    Message(Value),
    Closed,
    Nothing,
}

impl Client {
    /// Opens a socket; an error is the HTTP status that refused the upgrade, 0 for a connection that
    /// was closed without one.
    pub fn open(
        to: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{to}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let Ok(stream) = Wire::connect(to, tls, PATIENCE) else {
            return Err(0);
        };
        stream
            .set_write_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => Ok(Self {
                socket,
                greeting: Value::Null,
                subprotocol: response
                    .headers()
                    .get("sec-websocket-protocol")
                    .map(|name| name.to_str().unwrap().to_string()),
                unread: VecDeque::new(),
                last_text: String::new(),
                closed: None,
                story: VecDeque::new(),
                start: Instant::now(),
                patience: PATIENCE,
            }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(HandshakeError::Failure(Error::Io(_) | Error::Protocol(_))) => Err(0),
            Err(other) => panic!("the handshake with {to}{path} went wrong: {other}"),
        }
    }

    /// Reads the greeting into `greeting`.
    #[track_caller]
    pub fn greeted(mut self) -> Self {
        let greeting = self.next();
        assert_eq!(greeting["type"], "connected", "{}", self.tell());
        self.greeting = greeting;
        self
    }

    /// Waits so long, instead of five seconds, from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends a JSON message.
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    /// Sends a text frame.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    /// Sends a binary frame.
    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send_message(Message::binary(bytes.to_vec()));
    }

    /// Writes bytes to the connection as they are, past the framing.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.note(format!("> {} raw bytes", bytes.len()));
        if let Err(error) = self.socket.get_mut().write_all(bytes) {
            panic!("cannot write: {error}{}", self.tell());
        }
    }

    /// Sends a message of any kind; panics if the connection does not take it.
    #[track_caller]
    pub fn send_message(&mut self, message: Message) {
        if let Err(error) = self.try_send(message) {
            panic!("cannot send: {error}{}", self.tell());
        }
    }

    /// Sends a message of any kind; an error means that the connection is over or full.
    pub fn try_send(&mut self, message: Message) -> Result<(), Error> {
        self.note(format!("> {message}"));
        self.socket.send(message)
    }

    /// Subscribes, waits for the answer and returns it; other messages stay unread.
    #[track_caller]
    pub fn subscribe(&mut self, channel: impl Into<Value>) -> Value {
        self.send(&json!({"type": "subscribe", "channel": channel.into()}));
        self.next_of("subscribed")
    }

    /// The next message.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        if let Some(message) = self.unread.pop_front() {
            return message;
        }
        let deadline = Instant::now() + self.patience;
        match self.look(deadline) {
            Seen::Message(message) => message,
            Seen::Closed => panic!("closed instead of a message{}", self.tell()),
            Seen::Nothing => panic!("no message within {:?}{}", self.patience, self.tell()),
        }
    }

    /// The next message; `None` if the connection ends first, or none comes in time.
    pub fn try_next(&mut self) -> Option<Value> {
        if let Some(message) = self.unread.pop_front() {
            return Some(message);
        }
        match self.look(Instant::now() + self.patience) {
            Seen::Message(message) => Some(message),
            Seen::Closed | Seen::Nothing => None,
        }
    }

    /// Whether the other side has ended it.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The next message of this `type`; those before it stay unread.
    #[track_caller]
    pub fn next_of(&mut self, kind: &str) -> Value {
        if let Some(at) = self.unread.iter().position(|m| m["type"] == kind) {
            return self.unread.remove(at).unwrap();
        }
        let deadline = Instant::now() + self.patience;
        loop {
            match self.look(deadline) {
                Seen::Message(message) if message["type"] == kind => return message,
                Seen::Message(message) => self.unread.push_back(message),
                Seen::Closed => panic!("closed instead of \"{kind}\"{}", self.tell()),
                Seen::Nothing => panic!("no \"{kind}\"{}", self.tell()),
            }
        }
    }

    /// Waits until the server closes; close code and reason, 1006 for none. Messages before it stay
    /// unread.
    #[track_caller]
    pub fn expect_close(&mut self) -> (u16, String) {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.look(deadline) {
                Seen::Message(message) => self.unread.push_back(message),
                Seen::Closed => return self.closed.clone().unwrap(),
                Seen::Nothing => panic!("not closed within {:?}{}", self.patience, self.tell()),
            }
        }
    }

    /// The server says why it closes, then does: asserts that both say this code; the announcement.
    #[track_caller]
    pub fn expect_disconnect(&mut self, code: u16, reason: &str) -> Value {
        let announced = self.next_of("disconnect");
        assert_eq!(
            announced["data"]["code"],
            code,
            "{announced}{}",
            self.tell()
        );
        assert_eq!(
            announced["data"]["reason"],
            reason,
            "{announced}{}",
            self.tell()
        );
        let comes_back = matches!(code, 1002 | 1007 | 1009 | 4100..=4199);
        assert_eq!(announced["data"]["reconnect"], comes_back, "{announced}");
        assert!(announced["data"]["retryAfterMs"].is_u64(), "{announced}");
        assert_eq!(
            self.expect_close(),
            (code, reason.to_string()),
            "{}",
            self.tell()
        );
        announced
    }

    /// The messages that are there or arrive within so long.
    #[track_caller]
    pub fn all_within(&mut self, ms: u64) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let mut all: Vec<Value> = self.unread.drain(..).collect();
        while let Seen::Message(message) = self.look(deadline) {
            all.push(message);
        }
        all
    }

    /// Asserts that no message is unread and that none arrives, nor a close, for so long.
    #[track_caller]
    pub fn quiet(&mut self, ms: u64) {
        assert!(self.unread.is_empty(), "unread: {:?}", self.unread);
        match self.look(Instant::now() + Duration::from_millis(ms)) {
            Seen::Nothing => (),
            Seen::Message(message) => panic!("not quiet: {message}{}", self.tell()),
            Seen::Closed => panic!("closed instead of quiet{}", self.tell()),
        }
    }

    /// Closes in good manners and waits for the server's answer.
    #[track_caller]
    pub fn close(mut self) {
        self.note("> close".to_string());
        self.socket.close(None).unwrap();
        self.expect_close();
    }

    /// The connection itself, for what a WebSocket library would not do.
    pub fn stream(&mut self) -> &mut Wire {
        self.socket.get_mut()
    }

    /// What happened on this socket, for the message of a failed assertion.
    pub fn tell(&self) -> String {
        let mut told = String::from("\nthe story so far:");
        for line in &self.story {
            told.push_str("\n  ");
            told.push_str(line);
        }
        told
    }

    /// Reads until there is a message, an end, or nothing until `deadline`.
    #[track_caller]
    fn look(&mut self, deadline: Instant) -> Seen {
        loop {
            if self.closed.is_some() {
                return Seen::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // A time-out of zero would mean none.
            let left = left.max(Duration::from_millis(1));
            self.socket.get_ref().set_read_timeout(Some(left)).unwrap();
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    self.note(format!("< {text}"));
                    self.last_text = text.to_string();
                    match serde_json::from_str(&text) {
                        Ok(message) => return Seen::Message(message),
                        Err(error) => panic!("not JSON ({error}): {text}{}", self.tell()),
                    }
                }
                Ok(Message::Close(frame)) => self.finish(frame),
                Ok(Message::Binary(_)) => panic!("a binary frame{}", self.tell()),
                Ok(control) => self.note(format!("< {control:?}")),
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Seen::Nothing;
                    }
                }
                Err(error) => {
                    self.note(format!("< {error}"));
                    self.closed = Some((1006, String::new()));
                }
            }
        }
    }

    /// Notes the server's close frame, and reads on so that the answer to it leaves.
    fn finish(&mut self, frame: Option<CloseFrame>) {
        let (code, reason) = frame.map_or((1005, String::new()), |frame| {
            (frame.code.into(), frame.reason.to_string())
        });
        self.note(format!("< close {code} {reason:?}"));
        self.closed = Some((code, reason));
        // What comes now is the end of the connection; how it ends is not this client's concern.
        let _ = self.socket.flush();
    }

    fn note(&mut self, mut line: String) {
        if line.len() > 400 {
            let cut = (0..=400).rev().find(|at| line.is_char_boundary(*at));
            line.truncate(cut.unwrap_or(0));
            line.push_str(" ..");
        }
        if self.story.len() == STORY_LINES {
            self.story.pop_front();
        }
        let ms = self.start.elapsed().as_millis();
        self.story.push_back(format!("{ms:>6} ms {line}"));
    }
}
