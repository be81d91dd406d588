//! What goes over pub/sub.
//!
//! An event with history is `@OFFSET:EPOCH:JSON`. One without is its bare JSON, so any program can
//! publish one. Before the JSON of what is traced stands `~TRACEPARENT:`, which a program may put there, too.

use bytes::Bytes;

use crate::protocol::{Epoch, Event, Position};
use crate::trace::Context;

/// A message of a channel, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) position: Option<Position>,
    pub(super) event: Event,
    pub(super) trace: Option<Context>,
}

/// What comes before the JSON of an event at `position`.
pub(super) fn head(position: &Position) -> String {
    format!("@{}:{}:", position.offset, position.epoch.as_str())
}

/// What comes before the JSON of an event whose publishing is recorded; else nothing.
pub(super) fn trace(context: Option<Context>) -> String {
    context.map_or_else(String::new, |context| format!("~{context}:"))
}

/// Takes a message apart. `None`: it is malformed, or longer than `bytes_max`.
///
/// Ours are believed; what others publish is checked like everything that comes from outside.
pub(super) fn parse(payload: &[u8], bytes_max: usize) -> Option<Message> {
    let Some(ours) = payload.strip_prefix(b"@") else {
        let (trace, json) = traced(payload)?;
        let text = std::str::from_utf8(json).ok()?;
        return Some(Message {
            position: None,
            event: Event::parse(text, bytes_max).ok()?,
            trace,
        });
    };
    let (offset, rest) = split(ours)?;
    let (epoch, rest) = split(rest)?;
    let (trace, json) = traced(rest)?;
    let offset = std::str::from_utf8(offset).ok()?.parse().ok()?;
    Some(Message {
        position: Some(Position {
            epoch: self::epoch(epoch)?,
            offset,
        }),
        event: event(json)?,
        trace,
    })
}

/// What is said of the span that published it, and the rest. A span that cannot be read is none.
fn traced(bytes: &[u8]) -> Option<(Option<Context>, &[u8])> {
    match bytes.strip_prefix(b"~") {
        None => Some((None, bytes)),
        Some(rest) => {
            let (context, json) = split(rest)?;
            Some((Context::parse(context), json))
        }
    }
}

/// The name of an epoch as it was stored.
pub(super) fn epoch(name: &[u8]) -> Option<Epoch> {
    let fits = (1..=64).contains(&name.len())
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let name = std::str::from_utf8(name).ok().filter(|_| fits)?;
    Some(Epoch::new(name))
}

/// An event as it was stored. Only its ends are looked at: it was checked when it was published.
pub(super) fn event(json: &[u8]) -> Option<Event> {
    let is_object = json.len() > 2 && json.starts_with(b"{") && json.ends_with(b"}");
    let is_text = is_object && std::str::from_utf8(json).is_ok();
    is_text.then(|| Event::trusted(Bytes::copy_from_slice(json)))
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(80).position(|byte| *byte == b':')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_come_back_and_others_are_checked() {
        let position = Position {
            epoch: Epoch::new("00ff-e"),
            offset: 7,
        };
        let text = r#"{"type":"x","s":"a:b"}"#;
        let ours = format!("{}{text}", head(&position));
        let message = parse(ours.as_bytes(), 10).unwrap();
        assert_eq!(message.position, Some(position));
        assert_eq!(message.event.as_bytes(), text);
        let plain = parse(text.as_bytes(), 100).unwrap();
        assert_eq!((plain.position, plain.event), (None, message.event));
        let context = Context::root();
        for head in [
            format!(
                "{}{}",
                head(&Position {
                    epoch: Epoch::new("00ff-e"),
                    offset: 7
                }),
                trace(Some(context))
            ),
            trace(Some(context)),
        ] {
            let traced = parse(format!("{head}{text}").as_bytes(), 100).unwrap();
            assert_eq!(traced.trace, Some(context));
            assert_eq!(traced.event.as_bytes(), text);
        }
        let unreadable = parse(format!("~what:{text}").as_bytes(), 100).unwrap();
        assert_eq!(unreadable.trace, None);
        assert_eq!(unreadable.event.as_bytes(), text);
        for nonsense in [
            "~",
            "~{}",
            "~x:{}",
            "@1:e:~x:{}",
            "",
            "@",
            "@1",
            "@1:e",
            "@x:e:{\"type\":\"x\"}",
            "@1:e\"e:{\"type\":\"x\"}",
            "@1:e:[]",
            "@1:e:{}",
            "hello",
            "{}",
            "{\"type\":1}",
            "{\"type\":\"x\",\"_meta\":1}",
        ] {
            assert_eq!(parse(nonsense.as_bytes(), 100), None, "{nonsense}");
        }
        assert_eq!(parse(b"{\"type\":\"\xff\"}", 100), None);
        assert_eq!(parse(text.as_bytes(), 5), None, "too long");
    }
}
