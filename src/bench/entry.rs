//! How a subscriber comes in: upgrade, greeting, subscriptions.

use std::net::TcpStream;

use super::connection::{Connection, Over, Stage};
use super::door::Door;
use super::wire;

const CONNECTED: &[u8] = b"{\"type\":\"connected\"";
const SUBSCRIBED: &[u8] = b"{\"type\":\"subscribed\"";
const RECOVERED: &[u8] = b"\"recovered\":true";
const REFUSALS: [&[u8]; 2] = [b"{\"type\":\"error\"", b"{\"type\":\"disconnect\""];

/// The connection is made, or was refused: asks for the upgrade.
///
/// # Errors
/// Why the socket is over.
pub fn begin_upgrade(
    connection: &mut Connection,
    index: usize,
    refused: bool,
    door: &Door,
) -> Result<(), Over> {
    if refused {
        let error = connection.socket.as_ref().map(TcpStream::take_error);
        let error = error.and_then(|error| error.ok().flatten());
        return Err(error.map_or("the connection was refused".to_owned(), |e| e.to_string()));
    }
    if let Some(socket) = &connection.socket {
        socket
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
    }
    connection.stage = Stage::Upgrading;
    let request = door.upgrade(index, connection.channel);
    connection.send(&request)
}

/// What a message that is no event means for the one who is coming in.
///
/// # Errors
/// What the server refused with.
pub fn settle_in(
    connection: &mut Connection,
    text: &[u8],
    subscribe: &dyn Fn(usize) -> Vec<String>,
) -> Result<(), Over> {
    if REFUSALS.iter().any(|refusal| text.starts_with(refusal)) {
        return Err(String::from_utf8_lossy(text).into_owned());
    }
    match connection.stage {
        Stage::Greeting if text.starts_with(CONNECTED) => {
            let commands = subscribe(connection.channel);
            let mut out = Vec::new();
            for command in &commands {
                wire::put_text(&mut out, command.as_bytes());
            }
            connection.send(&out)?;
            connection.stage = Stage::Subscribing(commands.len());
        }
        Stage::Subscribing(left) if text.starts_with(SUBSCRIBED) => {
            connection.stage = match left {
                0 | 1 => Stage::Ready,
                _ => Stage::Subscribing(left - 1),
            };
        }
        _ => {}
    }
    Ok(())
}

/// Whether this answers a subscription that got everything it missed.
pub fn is_recovery(text: &[u8]) -> bool {
    text.starts_with(SUBSCRIBED) && has(text, RECOVERED)
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
