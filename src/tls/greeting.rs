//! What a client says first on a port that speaks TLS: a handshake, or HTTP without it.

use std::io;

use tokio::net::TcpStream;

/// The type of a record that carries a handshake. RFC 8446, section 5.1.
const HANDSHAKE: u8 = 22;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// What looks like TLS.
    Tls,
    /// What looks like HTTP.
    Http,
    /// Nothing that is understood here, or nothing at all: it has gone.
    Other,
}

/// Waits for the first byte and looks at it; it stays unread.
///
/// # Errors
/// Those of the socket.
pub async fn first_words(stream: &TcpStream) -> io::Result<Spoken> {
    let mut first = [0];
    Ok(match stream.peek(&mut first).await? {
        0 => Spoken::Other,
        _ if first[0] == HANDSHAKE => Spoken::Tls,
        _ if first[0].is_ascii_uppercase() => Spoken::Http,
        _ => Spoken::Other,
    })
}

/// The answer to HTTP on a port of HTTPS.
pub const ANSWER: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n",
    "Cache-Control: no-store\r\nContent-Length: 65\r\n\r\n",
    r#"{"error":"This port speaks HTTPS and WSS","code":"tls_required"}"#,
    "\n"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
