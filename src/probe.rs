//! A client of our own: opens a WebSocket, subscribes, waits for an event, and says what went wrong on
//! the way in terms of what an operator can mend. Blocking; for `canary` and `fanfare doctor`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Request;
use tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::stopwatch;

/// Messages that may come before the one that is waited for.
const MESSAGES_MAX: usize = 1_000;

/// Where the socket is opened.
#[derive(Debug, Clone)]
pub struct Target {
    /// `ws://` or `wss://`, with the path.
    pub url: String,
    /// The address behind it.
    pub address: SocketAddr,
    /// For `wss://`.
    pub tls: Option<Secured>,
}

/// How a `wss://` listener is reached.
pub type Secured = (Arc<ClientConfig>, ServerName<'static>);

impl Target {
    /// A listener of this machine, perhaps on every interface.
    pub fn of_listener(listening: SocketAddr, tls: Option<Secured>) -> Self {
        let ip = match listening.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        Self {
            url: format!("{scheme}://localhost/ws"),
            address: SocketAddr::new(ip, listening.port()),
            tls,
        }
    }
}

/// Why the round trip did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No TCP connection.
    #[error("{address}: {source}")]
    Unreachable {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No TLS on it.
    #[error("TLS: {0}")]
    Tls(String),
    /// It answers HTTP, but does not become a WebSocket.
    #[error("answered HTTP {status} instead of becoming a WebSocket{}", hint(*.status, .body))]
    NotUpgraded {
        /// The status.
        status: u16,
        /// What it says.
        body: String,
    },
    /// The server ended it.
    #[error("closed by the server: {0}")]
    Closed(String),
    /// Nothing came in time.
    #[error("no {0} in time")]
    Silent(&'static str),
    /// Something else.
    #[error("{0}")]
    Broken(String),
}

fn hint(status: u16, body: &str) -> String {
    let cure = match status {
        200 | 400 | 426 => {
            ": a proxy in between does not pass on the headers Upgrade and Connection"
        }
        403 => ": the origin is not allowed",
        404 => ": the proxy does not send /ws here",
        502..=504 => ": the proxy does not reach the server",
        _ => "",
    };
    match serde_json::from_str::<Value>(body) {
        Ok(said) if said["error"].is_string() => format!("{cure} ({})", said["error"]),
        _ => cure.to_owned(),
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An open WebSocket.
pub struct Socket {
    socket: WebSocket<Stream>,
    deadline_ns: u64,
}

impl Socket {
    /// Opens it and waits for the greeting; everything on it has to be done within `patience`.
    ///
    /// # Errors
    /// What is in the way.
    pub fn open(target: &Target, token: &str, patience: Duration) -> Result<Self, Problem> {
        let deadline_ns = stopwatch::nanos() + stopwatch::of(patience);
        let tcp = TcpStream::connect_timeout(&target.address, patience).map_err(|source| {
            Problem::Unreachable {
                address: target.address,
                source,
            }
        })?;
        let broken = |error: io::Error| Problem::Broken(error.to_string());
        tcp.set_nodelay(true).map_err(broken)?;
        tcp.set_read_timeout(Some(patience)).map_err(broken)?;
        tcp.set_write_timeout(Some(patience)).map_err(broken)?;
        let stream = match &target.tls {
            None => Stream::Plain(tcp),
            Some((config, name)) => Stream::Tls(Box::new(secure(config, name, tcp)?)),
        };
        let request = request(&target.url, token)?;
        let (socket, _) = tungstenite::client(request, stream).map_err(not_upgraded)?;
        let mut open = Self {
            socket,
            deadline_ns,
        };
        open.wait("greeting", |message| message["type"] == "connected")?;
        Ok(open)
    }

    /// Subscribes, and waits until that is acknowledged.
    ///
    /// # Errors
    /// What is in the way.
    pub fn subscribe(&mut self, channel: &str) -> Result<(), Problem> {
        self.subscribe_from(channel, &Value::Null).map(drop)
    }

    /// The same, recovering what came after a position unless that is null; the acknowledgement.
    ///
    /// # Errors
    /// What is in the way.
    pub fn subscribe_from(&mut self, channel: &str, position: &Value) -> Result<Value, Problem> {
        let mut command = json!({ "type": "subscribe", "channel": channel });
        if !position.is_null() {
            command["recover"] = position.clone();
        }
        self.send(&command)?;
        let answer = self.wait("answer to a subscription", |message| {
            message["type"] == "subscribed" || message["type"] == "error"
        })?;
        match answer["type"].as_str() {
            Some("subscribed") => Ok(answer),
            _ => Err(Problem::Broken(format!("{channel}: {}", answer["data"]))),
        }
    }

    /// Waits for the event whose member `mark` has this value.
    ///
    /// # Errors
    /// What is in the way.
    pub fn event(&mut self, mark: &str) -> Result<(), Problem> {
        self.wait("event", |message| message["mark"] == mark)
            .map(drop)
    }

    /// The next message, whatever it is, unless nothing at all comes for so long.
    ///
    /// # Errors
    /// What is in the way.
    pub fn next(&mut self, silence_max: Duration) -> Result<Value, Problem> {
        let tcp = match self.socket.get_ref() {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(stream) => &stream.sock,
        };
        tcp.set_read_timeout(Some(silence_max))
            .map_err(|error| Problem::Broken(error.to_string()))?;
        self.deadline_ns = u64::MAX;
        self.wait("message", |_| true)
    }

    /// Says goodbye. Nobody waits for the answer.
    pub fn close(mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }

    fn send(&mut self, command: &Value) -> Result<(), Problem> {
        self.socket
            .send(Message::text(command.to_string()))
            .map_err(|error| failed(&error, "room to write"))
    }

    fn wait(
        &mut self,
        what: &'static str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, Problem> {
        let mut farewell = None;
        for _ in 0..MESSAGES_MAX {
            if stopwatch::nanos() > self.deadline_ns {
                return Err(Problem::Silent(what));
            }
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_default();
                    if is_it(&message) {
                        return Ok(message);
                    }
                    if message["type"] == "disconnect" {
                        farewell = message["data"]["reason"].as_str().map(str::to_owned);
                    }
                }
                Ok(Message::Close(frame)) => {
                    let reason = frame.map(|frame| format!("{} {}", frame.code, frame.reason));
                    let reason = reason.or(farewell).unwrap_or_else(|| "no reason".into());
                    return Err(Problem::Closed(reason));
                }
                Ok(_) => {}
                Err(error) => return Err(failed(&error, what)),
            }
        }
        Err(Problem::Silent(what))
    }
}

fn secure(
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    mut tcp: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, Problem> {
    let tls = |error: &dyn std::fmt::Display| Problem::Tls(error.to_string());
    let mut connection =
        ClientConnection::new(Arc::clone(config), name.clone()).map_err(|error| tls(&error))?;
    while connection.is_handshaking() {
        connection
            .complete_io(&mut tcp)
            .map_err(|error| tls(&error))?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

fn request(url: &str, token: &str) -> Result<Request, Problem> {
    let broken = |error: &dyn std::fmt::Display| Problem::Broken(format!("{url}: {error}"));
    let mut request = url.into_client_request().map_err(|error| broken(&error))?;
    let mut bearer =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| broken(&error))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

fn not_upgraded<R: tungstenite::handshake::HandshakeRole>(error: HandshakeError<R>) -> Problem {
    match error {
        HandshakeError::Failure(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Problem::NotUpgraded {
                status: response.status().as_u16(),
                body: String::from_utf8_lossy(body).into_owned(),
            }
        }
        HandshakeError::Failure(error) => failed(&error, "answer to the upgrade"),
        HandshakeError::Interrupted(_) => Problem::Silent("answer to the upgrade"),
    }
}

fn failed(error: &Error, what: &'static str) -> Problem {
    match error {
        Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            Problem::Silent(what)
        }
        error => Problem::Broken(error.to_string()),
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
