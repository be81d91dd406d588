//! Server-sent events (HTML Living Standard, section 9.2): the same messages as over a WebSocket, in the
//! lines of `text/event-stream`, and the ids from which a stream is taken up again.
//!
//! An id holds the positions of all channels of its stream, because a browser remembers only the last one:
//! `post_42@8621933fceee85c0:17,feed_u1@:3`. An entry is KEY@EPOCH:OFFSET; in the key everything but
//! letters, digits and `-_.~` is percent-encoded, and an epoch that is left out is that of the entry before.
//! Channels without history are not in it.

use super::{ChannelKey, Epoch, Position};

/// Bytes of an id at most, so that it fits into the head of a request beside the channels and a token.
pub const ID_BYTES_MAX: usize = 6 << 10;
/// What an entry takes beside its key: an epoch of sixteen digits, an offset of eight, what divides them.
const ENTRY_BYTES: usize = 28;
/// Longer ones are none of ours.
const EPOCH_BYTES_MAX: usize = 64;

/// Where a stream stands in each of its channels: what its next id says.
#[derive(Debug, Default)]
pub struct Marks(Vec<Mark>);

#[derive(Debug)]
struct Mark {
    key: ChannelKey,
    /// As in the id.
    encoded: Box<str>,
    at: Position,
}

impl Marks {
    /// Notes where the stream stands in a channel; where it stood before.
    pub fn set(&mut self, key: &ChannelKey, at: Position) -> Option<Position> {
        if let Some(mark) = self.0.iter_mut().find(|mark| mark.key == *key) {
            return Some(std::mem::replace(&mut mark.at, at));
        }
        let mut encoded = String::new();
        encode(key.as_str(), &mut encoded);
        self.0.push(Mark {
            key: key.clone(),
            encoded: encoded.into(),
            at,
        });
        None
    }

    /// Takes [`Marks::set`] back.
    pub fn reset(&mut self, key: &ChannelKey, before: Option<Position>) {
        match (self.0.iter().position(|mark| mark.key == *key), before) {
            (Some(at), Some(before)) => self.0[at].at = before,
            (Some(at), None) => {
                self.0.remove(at);
            }
            (None, _) => {}
        }
    }

    /// The line with the id, unless there is nothing to say in it.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let mut epoch = None;
        for mark in &self.0 {
            out.extend_from_slice(if epoch.is_none() { b"id: " } else { b"," });
            out.extend_from_slice(mark.encoded.as_bytes());
            out.push(b'@');
            if epoch != Some(&mark.at.epoch) {
                out.extend_from_slice(mark.at.epoch.as_str().as_bytes());
            }
            epoch = Some(&mark.at.epoch);
            out.push(b':');
            out.extend_from_slice(mark.at.offset.to_string().as_bytes());
        }
        if epoch.is_some() {
            out.push(b'\n');
        }
    }
}

/// Whether the ids of a stream of these channels are short enough to come back in a request.
pub fn ids_fit<'a>(keys: impl Iterator<Item = &'a ChannelKey>) -> bool {
    let bytes = keys.map(|key| {
        let mut encoded = String::new();
        encode(key.as_str(), &mut encoded);
        encoded.len() + ENTRY_BYTES
    });
    bytes.sum::<usize>() <= ID_BYTES_MAX
}

/// The entries of an id: the keys, decoded, and where the stream stood. `None` if it is none of ours.
pub fn parse_id(id: &str) -> Option<Vec<(String, Position)>> {
    let mut epoch: Option<Epoch> = None;
    let mut entries = Vec::new();
    for entry in id.split(',') {
        let (key, at) = entry.split_once('@')?;
        let (named, offset) = at.split_once(':')?;
        if !named.is_empty() {
            let is_epoch = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            if named.len() > EPOCH_BYTES_MAX || !named.bytes().all(is_epoch) {
                return None;
            }
            epoch = Some(Epoch::new(named));
        }
        if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let position = Position {
            epoch: epoch.clone()?,
            offset: offset.parse().ok()?,
        };
        entries.push((decode(key)?, position));
    }
    Some(entries)
}

/// Appends a message, without an id: `event` says what all of them are without it, for those who look for it.
/// A line break in the JSON, where it means nothing, begins another line of data.
pub fn write_message(json: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: message\n");
    for line in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        // Between \r and \n, and blank lines: white space for JSON.
        if !line.is_empty() {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// A comment, which clients pass over: it shows both sides that the other one is there.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Appends how long a client should wait before it comes back.
pub fn write_retry(ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(ms.to_string().as_bytes());
    out.push(b'\n');
}

fn encode(key: &str, out: &mut String) {
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = encoded.bytes();
    let mut key = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position {
            epoch: Epoch::new(epoch),
            offset,
        }
    }

    fn key(key: &str) -> ChannelKey {
        ChannelKey::parse(key, 255).unwrap()
    }

    fn line(marks: &Marks) -> String {
        let mut line = Vec::new();
        marks.write_line(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn ids_say_where_all_channels_stand_and_are_read_back() {
        let mut marks = Marks::default();
        assert_eq!(line(&marks), "");
        let strange = key("post_a,b@c:d %é\u{1f600}");
        let all = [
            (key("post_42"), at("e1", 17)),
            (strange.clone(), at("e1", 3)),
            (key("feed_u1"), at("e2", u64::MAX)),
        ];
        for (key, at) in &all {
            assert_eq!(marks.set(key, at.clone()), None);
        }
        let id = "post_42@e1:17,post_a%2Cb%40c%3Ad%20%25%C3%A9%F0%9F%98%80@:3,feed_u1@e2:18446744073709551615";
        assert_eq!(line(&marks), format!("id: {id}\n"));
        let read = parse_id(id).unwrap();
        let expected = all.map(|(key, at)| (key.to_string(), at));
        assert_eq!(read, expected);

        let before = marks.set(&strange, at("e3", 9));
        assert_eq!(before, Some(at("e1", 3)));
        assert!(line(&marks).contains("@e3:9,feed_u1@e2:"));
        marks.reset(&strange, before);
        assert_eq!(line(&marks), format!("id: {id}\n"));
        marks.reset(&strange, None);
        assert!(line(&marks).starts_with("id: post_42@e1:17,feed_u1@e2:1844"));
    }

    #[test]
    fn what_is_no_id_of_ours_is_none() {
        for strange in [
            "",
            "7",
            "post_42",
            "post_42@",
            "post_42@e1",
            "post_42@:1",
            "post_42@e1:",
            "post_42@e1:-1",
            "post_42@e1:+1",
            "post_42@e1:1,",
            "post_42@e1:1x",
            "post_42@é:1",
            "post_%4@e1:1",
            "post_%zz@e1:1",
            "post_%ff@e1:1",
            "post_42@e1:18446744073709551616",
        ] {
            assert_eq!(parse_id(strange), None, "{strange}");
        }
        let long = format!("post_42@{}:1", "e".repeat(65));
        assert_eq!(parse_id(&long), None);
    }

    #[test]
    fn ids_have_a_bound() {
        let keys: Vec<ChannelKey> = (0..128).map(|n| key(&format!("post_{n:07}"))).collect();
        assert!(ids_fit(keys.iter()));
        let keys: Vec<ChannelKey> = (0..128).map(|n| key(&format!("post_{n:030}"))).collect();
        assert!(!ids_fit(keys.iter()));
    }

    #[test]
    fn json_of_several_lines_stays_one_message() {
        let message = |json: &str| {
            let mut out = Vec::new();
            write_message(json.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            message(r#"{"type":"x"}"#),
            "event: message\ndata: {\"type\":\"x\"}\n\n"
        );
        assert_eq!(
            message("{\n  \"type\":\r\n\r\n\"x\"\r}"),
            "event: message\ndata: {\ndata:   \"type\":\ndata: \"x\"\ndata: }\n\n"
        );
    }
}
