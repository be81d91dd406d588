//! What a client asks: one text message, read into a [`Request`].

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Epoch, Position};

/// A client's message.
#[derive(Debug)]
pub struct Request {
    /// What the reply repeats.
    pub id: Option<RequestId>,
    /// What is asked, or why that is not known.
    pub command: Result<Command, CommandError>,
}

/// The `id` of a request: the text of a JSON number or string, at most [`RequestId::LONGEST`] bytes.
#[derive(Debug, Clone)]
pub struct RequestId(Box<RawValue>);

/// What a client may ask.
#[derive(Debug)]
pub enum Command {
    /// Follow a channel, from a position on if there is one.
    Subscribe {
        /// In the client's own form, which the reply repeats.
        channel: Box<RawValue>,
        /// Where the client was when it last heard of the channel.
        recover: Option<Position>,
    },
    /// Stop following a channel.
    Unsubscribe {
        /// In the client's own form.
        channel: Box<RawValue>,
    },
    /// Is anybody there?
    Ping,
    /// Publish an event.
    Publish {
        /// In the client's own form.
        channel: Box<RawValue>,
        /// Not yet checked.
        event: Box<RawValue>,
    },
    /// Go on with a newer token.
    Refresh {
        /// Not yet checked.
        token: String,
    },
    /// Look back.
    History {
        /// In the client's own form.
        channel: Box<RawValue>,
        /// Events at most.
        limit: Option<usize>,
        /// Only events before this offset.
        before: Option<u64>,
    },
    /// Who is there?
    Presence {
        /// In the client's own form.
        channel: Box<RawValue>,
    },
}

/// The longest `type` of a client's own that is counted and logged.
const MAX_NAME_BYTES: usize = 32;

/// Why a message is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not JSON, no object, no `type`, a member of the wrong kind, or a binary message.
    #[error("Invalid message format")]
    Format,
    /// A `type` that is not known: this one, if it is short and plain enough to be counted and logged.
    #[error("Unknown message type")]
    UnknownType(Option<Box<str>>),
}

impl CommandError {
    /// The error's code on the wire.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Format => "invalid_format",
            Self::UnknownType(_) => "unknown_type",
        }
    }

    /// Its name in counters and logs: the `type`, as that of every message, or the code.
    pub fn name(&self) -> &str {
        match self {
            Self::UnknownType(Some(kind)) => kind,
            other => other.code(),
        }
    }

    /// A `type` of a client's own.
    fn unknown(kind: String) -> Self {
        // Nothing that could be a token or a key.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
        let is_name = (1..=MAX_NAME_BYTES).contains(&kind.len()) && kind.bytes().all(is_plain);
        Self::UnknownType(is_name.then(|| kind.into()))
    }
}

impl RequestId {
    /// Bytes of JSON text that are repeated; a command with a longer one is refused.
    pub const LONGEST: usize = 1_024;

    /// `None`: it is something else than a number or a string, and is passed over.
    fn parse(raw: &RawValue) -> Result<Option<Self>, CommandError> {
        let text = raw.get();
        let is_id = matches!(text.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9'));
        if is_id && text.len() > Self::LONGEST {
            return Err(CommandError::Format);
        }
        Ok(is_id.then(|| Self(raw.to_owned())))
    }

    /// As JSON.
    pub fn as_json(&self) -> &RawValue {
        &self.0
    }
}

impl Command {
    /// The command's `type`, which is also its name in counters and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Ping => "ping",
            Self::Publish { .. } => "publish",
            Self::Refresh { .. } => "refresh",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
        }
    }
}

/// The members of all commands; which of them a command needs is decided after its `type` is known.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    recover: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WirePosition {
    epoch: String,
    offset: u64,
}

impl Request {
    /// Reads a text message. Never fails: what cannot be read is a request with an error in it.
    pub fn parse(text: &str) -> Self {
        // serde would also read a struct from an array.
        let wire = text
            .trim_start()
            .starts_with('{')
            .then(|| serde_json::from_str::<Wire<'_>>(text).ok())
            .flatten();
        match wire {
            Some(wire) => match wire.id.map(RequestId::parse).transpose() {
                Ok(id) => Self {
                    id: id.flatten(),
                    command: wire.command(),
                },
                Err(error) => Self {
                    id: None,
                    command: Err(error),
                },
            },
            None => Self {
                id: None,
                command: Err(CommandError::Format),
            },
        }
    }

    /// What a binary message is.
    pub const fn binary() -> Self {
        Self {
            id: None,
            command: Err(CommandError::Format),
        }
    }
}

impl Wire<'_> {
    fn command(&self) -> Result<Command, CommandError> {
        let kind: String = self.kind.and_then(read).ok_or(CommandError::Format)?;
        Ok(match kind.as_str() {
            "subscribe" => Command::Subscribe {
                channel: self.channel()?,
                recover: match self.recover {
                    Some(recover) => Some(position(recover)?),
                    None => None,
                },
            },
            "unsubscribe" => Command::Unsubscribe {
                channel: self.channel()?,
            },
            "ping" => Command::Ping,
            "publish" => Command::Publish {
                channel: self.channel()?,
                event: self.event.ok_or(CommandError::Format)?.to_owned(),
            },
            "refresh" => Command::Refresh {
                token: self.token.and_then(read).ok_or(CommandError::Format)?,
            },
            "history" => Command::History {
                channel: self.channel()?,
                limit: optional(self.limit)?,
                before: optional(self.before)?,
            },
            "presence" => Command::Presence {
                channel: self.channel()?,
            },
            _ => return Err(CommandError::unknown(kind)),
        })
    }

    fn channel(&self) -> Result<Box<RawValue>, CommandError> {
        self.channel
            .map(RawValue::to_owned)
            .ok_or(CommandError::Format)
    }
}

/// Any JSON value into what is expected of it, with serde_json's limit on depth.
fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn optional<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, CommandError> {
    raw.map(|raw| read(raw).ok_or(CommandError::Format))
        .transpose()
}

/// A position; an epoch that no server ever made is read as one that matches nothing.
fn position(raw: &RawValue) -> Result<Position, CommandError> {
    let wire: WirePosition = read(raw).ok_or(CommandError::Format)?;
    let plain = wire
        .epoch
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let epoch = Epoch::new(if plain && wire.epoch.len() <= 64 {
        &wire.epoch
    } else {
        ""
    });
    Ok(Position {
        epoch,
        offset: wire.offset,
    })
}

/// A channel as the client wrote it, as a value to resolve.
pub fn channel_value(raw: &RawValue) -> Option<Value> {
    read(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> CommandError {
        Request::parse(text).command.unwrap_err()
    }

    #[test]
    fn commands_are_read_with_their_id() {
        let request = Request::parse(r#"{"type":"ping","id":"a-1"}"#);
        assert_eq!(request.command.unwrap().name(), "ping");
        assert_eq!(request.id.unwrap().as_json().get(), "\"a-1\"");

        let request = Request::parse(
            r#" {"id":7,"channel":{"type":"post","postId":"42"},"type":"subscribe","recover":{"epoch":"e","offset":3},"more":[1]}"#,
        );
        let Ok(Command::Subscribe { channel, recover }) = request.command else {
            panic!()
        };
        assert_eq!(channel.get(), r#"{"type":"post","postId":"42"}"#);
        assert_eq!(
            recover,
            Some(Position {
                epoch: Epoch::new("e"),
                offset: 3
            })
        );
    }

    #[test]
    fn what_is_no_command_is_told_apart() {
        for text in [
            "",
            "x",
            "[]",
            "\"ping\"",
            "{}",
            "null",
            r#"["ping"]"#,
            r#"{"type":1}"#,
            r#"{"type":"subscribe"}"#,
            r#"{"type":"subscribe","channel":"feed","recover":7}"#,
            r#"{"type":"refresh","token":7}"#,
            r#"{"type":"history","channel":"post_1","limit":-1}"#,
            r#"{"type":"ping"} x"#,
        ] {
            assert_eq!(error(text), CommandError::Format, "{text}");
        }
        for (kind, name) in [
            ("dance", "dance"),
            ("typing.start", "typing.start"),
            ("", "unknown_type"),
            ("two words", "unknown_type"),
            (
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl",
                "unknown_type",
            ),
        ] {
            let error = error(&format!(r#"{{"type":"{kind}","token":7}}"#));
            assert_eq!((error.code(), error.name()), ("unknown_type", name));
        }
        let request = Request::parse(r#"{"type":"dance","id":5}"#);
        assert_eq!(request.id.unwrap().as_json().get(), "5");
    }

    #[test]
    fn an_id_is_a_number_or_a_short_string() {
        let id = |text: &str| {
            Request::parse(text)
                .id
                .map(|id| id.as_json().get().to_owned())
        };
        assert_eq!(id(r#"{"type":"ping","id":-1.5e3}"#).unwrap(), "-1.5e3");
        assert_eq!(id(r#"{"type":"ping","id":{"a":1}}"#), None);
        assert_eq!(id(r#"{"type":"ping","id":true}"#), None);
        let long = |bytes| format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(bytes));
        assert_eq!(id(&long(1_022)).unwrap().len(), RequestId::LONGEST);
        assert_eq!(error(&long(1_023)), CommandError::Format);
    }

    #[test]
    fn depth_and_strange_epochs_do_no_harm() {
        let deep = "[".repeat(20_000) + &"]".repeat(20_000);
        let text = format!(r#"{{"type":"subscribe","channel":{deep}}}"#);
        let Ok(Command::Subscribe { channel, .. }) = Request::parse(&text).command else {
            panic!()
        };
        assert_eq!(channel_value(&channel), None);
        assert_eq!(error(&deep), CommandError::Format);

        let text =
            r#"{"type":"subscribe","channel":"post_1","recover":{"epoch":"\" x","offset":1}}"#;
        let Ok(Command::Subscribe { recover, .. }) = Request::parse(text).command else {
            panic!()
        };
        assert_eq!(recover.unwrap().epoch.as_str(), "");
    }
}
