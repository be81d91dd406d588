//! A client of server-sent events that takes the stream apart as the standard says and knows no more.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{Reply, find, parse};
use super::server::Server;
use super::wire::Wire;

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One open stream.
pub struct EventStream {
    stream: Wire,
    /// The head, without a body.
    pub reply: Reply,
    /// What arrived and is not taken apart yet.
    unread: Vec<u8>,
    /// As a browser would send it back.
    pub last_event_id: String,
    /// What `retry` said last.
    pub retry_ms: Option<u64>,
    /// The data of the last message, to the byte.
    pub last_text: String,
    /// Comments so far.
    pub comments: usize,
}

/// What came next.
enum Block {
    Message(Value),
    Silent,
    End,
}

impl EventStream {
    /// Asks for a stream; an answer that is none is an error.
    pub fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Result<Self, Reply> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", server.addr());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        let mut stream = Wire::connect(server.addr(), server.trust(), PATIENCE).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = find(&received, b"\r\n\r\n") {
                break end + 4;
            }
            let mut buffer = [0; 4_096];
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
                other => panic!("{other:?} after {received:?}"),
            }
        };
        let unread = received.split_off(end);
        let read = unread.len();
        let mut reply = parse(&received).unwrap();
        if reply.status != 200 {
            let length = reply.header("content-length").unwrap().parse().unwrap();
            reply.body = unread;
            reply.body.resize(length, 0);
            stream.read_exact(&mut reply.body[read..]).unwrap();
            return Err(reply);
        }
        Ok(Self {
            stream,
            reply,
            unread,
            last_event_id: String::new(),
            retry_ms: None,
            last_text: String::new(),
            comments: 0,
        })
    }

    /// A stream of these channels, as this user; the greeting is read.
    #[track_caller]
    pub fn follow(server: &Server, user: &str, channels: &str, last_event_id: &str) -> Self {
        let token = server.token(user);
        let path = format!("/sse?channels={channels}&token={token}");
        let headers = [("Last-Event-ID", last_event_id)];
        let headers = if last_event_id.is_empty() {
            &headers[..0]
        } else {
            &headers[..]
        };
        let mut stream = Self::open(server, &path, headers).expect("a stream");
        assert_eq!(stream.next()["type"], "connected");
        stream
    }

    /// The next message.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        match self.look(deadline) {
            Block::Message(message) => message,
            Block::Silent => panic!("no message"),
            Block::End => panic!("the end instead of a message"),
        }
    }

    /// The stream ends, and nothing comes before.
    #[track_caller]
    pub fn expect_end(&mut self) {
        match self.look(Instant::now() + PATIENCE) {
            Block::End => (),
            Block::Message(message) => panic!("not the end: {message}"),
            Block::Silent => panic!("it does not end"),
        }
        assert!(self.unread.is_empty(), "half a message");
    }

    /// Nothing comes for so long.
    #[track_caller]
    pub fn quiet(&mut self, ms: u64) {
        match self.look(Instant::now() + Duration::from_millis(ms)) {
            Block::Silent => (),
            Block::Message(message) => panic!("not quiet: {message}"),
            Block::End => panic!("it ends"),
        }
    }

    fn look(&mut self, deadline: Instant) -> Block {
        loop {
            while let Some(end) = find(&self.unread, b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                if let Some(message) = self.block(std::str::from_utf8(&block).unwrap()) {
                    return Block::Message(message);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Block::End,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Block::Silent;
                    }
                }
                Err(_) => return Block::End,
            }
        }
    }

    /// A message, if these lines are one. A blank line alone is none.
    fn block(&mut self, block: &str) -> Option<Value> {
        let mut data: Vec<&str> = Vec::new();
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.starts_with(':') => self.comments += 1,
                "data" => data.push(value),
                "event" => assert_eq!(value, "message"),
                "id" => self.last_event_id = value.to_owned(),
                "retry" => self.retry_ms = Some(value.parse().unwrap()),
                "" => (),
                other => panic!("what is {other:?}?"),
            }
        }
        self.last_text = data.join("\n");
        (!data.is_empty()).then(|| serde_json::from_str(&self.last_text).unwrap())
    }
}
