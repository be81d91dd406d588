//! An HTTP/1.1 client that sends what it is told, valid or not: one request a connection.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::Wire;

/// For connecting, and for every pause in the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Such as 200.
    pub status: u16,
    /// As sent, in order.
    pub headers: Vec<(String, String)>,
    /// Without the transfer coding.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is not UTF-8")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {self:?}"))
    }

    /// Itself, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{:?} {body}", self.headers);
        self
    }
}

/// Sends one request and reads the answer to its end. `Host`, `Connection: close` and, for a body,
/// `Content-Length` are added unless `headers` names them; an error is about the socket.
pub fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    exchange(
        Wire::connect(to, None, PATIENCE)?,
        to,
        method,
        path,
        headers,
        body,
    )
}

/// The same over a connection that is there.
pub fn exchange(
    mut stream: Wire,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !named("host") {
        head += &format!("Host: {to}\r\n");
    }
    if !named("connection") {
        head += "Connection: close\r\n";
    }
    let expects_body = matches!(method, "POST" | "PUT" | "PATCH") || !body.is_empty();
    if expects_body && !named("content-length") && !named("transfer-encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";

    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    let mut received = Vec::new();
    let read = stream.read_to_end(&mut received);
    // A server may answer and close before it has read a large body: then the answer counts.
    if received.is_empty() {
        sent?;
        read?;
    }
    parse(&received)
}

/// Takes one whole answer apart.
pub(super) fn parse(received: &[u8]) -> std::io::Result<Reply> {
    let broken = |what: &str| {
        let shown = String::from_utf8_lossy(&received[..received.len().min(500)]);
        std::io::Error::other(format!("{what}: {shown:?}"))
    };
    let end = find(received, b"\r\n\r\n").ok_or_else(|| broken("no complete head"))?;
    let head = std::str::from_utf8(&received[..end]).map_err(|_| broken("head not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or_else(|| broken("no status line"))?;
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| broken("bad header"))?;
            Ok((name.to_string(), value.trim().to_string()))
        })
        .collect::<std::io::Result<_>>()?;
    let mut reply = Reply {
        status,
        headers,
        body: received[end + 4..].to_vec(),
    };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = unchunk(&reply.body).ok_or_else(|| broken("broken chunks"))?;
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().map_err(|_| broken("bad length"))?;
        // The answer to HEAD has the length and no body.
        if !reply.body.is_empty() && reply.body.len() != length {
            return Err(broken("the body is not as long as announced"));
        }
    }
    Ok(reply)
}

fn unchunk(mut coded: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = find(coded, b"\r\n")?;
        let size = std::str::from_utf8(&coded[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
        coded = &coded[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(coded.get(..size)?);
        coded = coded.get(size + 2..)?;
    }
}

/// Where `what` begins.
pub(super) fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}
