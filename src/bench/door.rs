//! How to get in and how to publish, at the server under test and at the baseline: the requests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::wire;
use crate::auth::{Authority, TokenSubject};
use crate::clock::Clock;

/// Tokens outlive any measurement.
const TOKEN_TTL: Duration = Duration::from_secs(4 * 3600);
/// Sockets that one source address opens. It stays below `limits.connections_per_address` of a server
/// with default limits, and there are ports enough whatever still lies in TIME_WAIT.
const SOCKETS_PER_SOURCE: u64 = 200;

/// A server's address and its ways.
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the same is to be had: other nodes.
    pub others: Vec<SocketAddr>,
    kind: Kind,
    clock: Clock,
}

enum Kind {
    Fanfare {
        authority: Box<Authority>,
        api_key: String,
        /// Distinguishes the channels of this run from those of earlier ones.
        run: String,
    },
    Raw,
}

impl Door {
    /// Of Fanfare; the authority signs what the server will believe.
    pub fn fanfare(address: SocketAddr, authority: Authority, api_key: String) -> Self {
        let run = uuid::Uuid::new_v4().simple().to_string();
        Self {
            address,
            others: Vec::new(),
            kind: Kind::Fanfare {
                authority: Box::new(authority),
                api_key,
                run: run[..8].to_owned(),
            },
            clock: Clock::system(),
        }
    }

    /// Of the baseline, [`super::raw_server`].
    pub fn raw(address: SocketAddr) -> Self {
        Self {
            address,
            others: Vec::new(),
            kind: Kind::Raw,
            clock: Clock::system(),
        }
    }

    /// Where the subscriber with this number connects to: all nodes in turn.
    pub fn of_subscriber(&self, number: usize) -> SocketAddr {
        let nodes = self.others.len() + 1;
        let other = (number % nodes).checked_sub(1);
        other.map_or(self.address, |other| self.others[other])
    }

    /// Whether a greeting comes first and subscriptions are asked for.
    pub fn talks(&self) -> bool {
        matches!(self.kind, Kind::Fanfare { .. })
    }

    /// The key of the channel with this number.
    pub fn channel(&self, kind: &str, number: usize) -> String {
        match &self.kind {
            Kind::Fanfare { run, .. } => format!("{kind}_bench-{run}-{number}"),
            Kind::Raw => number.to_string(),
        }
    }

    /// The request that opens a socket of this user. The baseline has no subscriptions: there the path
    /// says which channel the socket is for.
    pub fn upgrade(&self, user: usize, channel: usize) -> Vec<u8> {
        let path = match &self.kind {
            Kind::Fanfare { authority, .. } => {
                let subject = TokenSubject {
                    user_id: format!("bench-{user}"),
                    ttl: Some(TOKEN_TTL),
                    ..TokenSubject::default()
                };
                format!(
                    "/ws?token={}",
                    authority.issue(&subject, self.clock.unix_ms()).token
                )
            }
            Kind::Raw => format!("/{channel}"),
        };
        wire::upgrade_request(&self.address.to_string(), &path)
    }

    /// Appends the request that publishes the event which `put_event` appends.
    pub fn publish(
        &self,
        out: &mut Vec<u8>,
        channel: &str,
        event_bytes: usize,
        put_event: impl FnOnce(&mut Vec<u8>),
    ) {
        let host = self.address;
        match &self.kind {
            Kind::Fanfare { api_key, .. } => {
                let before = format!("{{\"channel\":\"{channel}\",\"event\":");
                let length = before.len() + event_bytes + 1;
                out.extend_from_slice(
                    format!(
                        "POST /api/publish HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {api_key}\r\n\
                         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{before}"
                    )
                    .as_bytes(),
                );
                put_event(out);
                out.push(b'}');
            }
            Kind::Raw => {
                let head = format!(
                    "POST /{channel} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {event_bytes}\r\n\r\n"
                );
                out.extend_from_slice(head.as_bytes());
                put_event(out);
            }
        }
    }

    /// Where the socket with this number should come from: loopback has 16 million addresses.
    pub fn source(&self, number: u64) -> Option<SocketAddr> {
        if !matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            return None;
        }
        // From 127.64.0.1 on: 127.0.0.1 is a trusted proxy by default.
        let source = (number / SOCKETS_PER_SOURCE) as u32 % (1 << 20);
        let first = u32::from(Ipv4Addr::new(127, 64, 0, 1));
        Some(SocketAddr::new(Ipv4Addr::from(first + source).into(), 0))
    }
}
