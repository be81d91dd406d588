//! `fanfare publish` and `fanfare notify`: what backends do, from a terminal.

use std::io::{self, Read, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::{Value, json};

use super::Failure;
use super::operator::Operator;

#[derive(Debug, Args)]
pub struct Publish {
    /// The channel's key, such as post_42
    channel: String,

    /// The event: a JSON object with a "type"; - reads it from stdin
    event: String,

    /// Publishing again with the same key within a day publishes nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Print the JSON answer
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let event = json_argument("EVENT", &self.event)?;
        let body = json!({ "channel": self.channel, "event": event });
        let answer = send(
            sources,
            "/api/publish",
            &body,
            self.idempotency_key.as_deref(),
        )?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{answer}")?;
        } else {
            let key = answer["channelKey"].as_str().unwrap_or_default();
            match answer["offset"].as_u64() {
                Some(offset) => writeln!(out, "published to {key} as number {offset}")?,
                None => writeln!(out, "published to {key}")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct Notify {
    /// The user's id
    user: String,

    /// One line
    title: String,

    /// The text
    message: String,

    /// The application's kind of notification
    #[arg(long = "type", value_name = "TYPE", default_value = "message")]
    kind: String,

    /// Anything more, as JSON
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// Notifying again with the same key within a day adds nothing
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Print the JSON answer
    #[arg(long)]
    json: bool,
}

impl Notify {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut body = json!({
            "userId": self.user,
            "type": self.kind,
            "title": self.title,
            "message": self.message,
        });
        if let Some(metadata) = &self.metadata {
            body["metadata"] = json_argument("--metadata", metadata)?;
        }
        let path = "/api/user/notifications";
        let answer = send(sources, path, &body, self.idempotency_key.as_deref())?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{answer}")?;
        } else {
            let id = answer["notification"]["id"].as_str().unwrap_or_default();
            writeln!(out, "notified {} ({id})", self.user)?;
        }
        Ok(())
    }
}

fn send(
    sources: &Sources,
    path: &str,
    body: &Value,
    idempotency_key: Option<&str>,
) -> Result<Value, Failure> {
    let key = idempotency_key.map(|key| ("idempotency-key", key));
    Operator::connect(sources)?.post(path, body, key.as_slice())
}

fn json_argument(name: &str, given: &str) -> Result<Value, Failure> {
    let text = match given {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
        given => given.to_owned(),
    };
    serde_json::from_str(&text)
        .map_err(|error| Failure::Other(format!("{name} is not JSON: {error}").into()))
}
