//! `fanfare tail`: what passes between the running server and some of its clients, without what it says.

use std::io::{self, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::Value;
use url::form_urlencoded;

use super::Failure;
use super::operator::Operator;

#[derive(Debug, Args)]
#[command(after_help = "\
Every frame of a WebSocket or event stream, in both directions, from now on: when, whose, how large,
of which type. No value that a client or backend sent is shown: of texts and lists how long they are,
of the others what they are; names, types and channels are. \"out\" was queued for the client.
Frames that come faster than they are shown are dropped and counted; clients never wait for it.
Eight may look at once. Ctrl-C ends it.

Exit codes: 0 ended by Ctrl-C, --count or a closed pipe, 69 the server cannot be reached or has
stopped, 1 it refused.")]
pub struct Tail {
    #[command(flatten)]
    whose: Whose,

    /// End after so many frames
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// One of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// The frames of this user's connections
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// The frames about this channel, of all connections
    #[arg(long, value_name = "KEY")]
    channel: Option<String>,

    /// The frames of this connection, as fanfare connections names it
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
}

impl Tail {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("user", &self.whose.user),
            ("channel", &self.whose.channel),
            ("connection", &self.whose.connection),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let mut operator = Operator::connect(sources)?;
        let (mut begun, mut left) = (Vec::new(), self.count.unwrap_or(u64::MAX));
        let ended = operator.follow(&format!("/control/tail?{}", query.finish()), |bytes| {
            begun.extend_from_slice(bytes);
            let mut out = io::stdout().lock();
            while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = begun.drain(..=end).collect();
                let seen: Value = serde_json::from_slice(&line)?;
                if seen["watching"] == true {
                    let node = seen["node"].as_str().unwrap_or_default();
                    writeln!(
                        io::stderr(),
                        "fanfare: looking at node {node}; Ctrl-C ends it"
                    )?;
                    continue;
                }
                if self.json {
                    writeln!(out, "{seen}")?;
                } else {
                    writeln!(out, "{}", for_people(&seen))?;
                }
                if seen["dropped"].is_null() {
                    left -= 1;
                }
                if left == 0 {
                    break;
                }
            }
            out.flush()?;
            Ok(left > 0)
        });
        match ended {
            Err(Failure::Other(error)) if is_closed_pipe(&*error) => Ok(()),
            other => other,
        }
    }
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `04:05:06.789  in   a1b2c3d4-7  ann  213 B  subscribe  {"type":"subscribe","channel":"post_1"}`
fn for_people(seen: &Value) -> String {
    if let Some(dropped) = seen["dropped"].as_u64() {
        return format!("({dropped} frames came faster than they could be shown)");
    }
    // Users are named by whoever signs tokens: nothing of it is for the terminal.
    let text = |name: &str| {
        let text = seen[name].as_str().unwrap_or("-");
        text.replace(char::is_control, "?")
    };
    let time = text("at");
    let time = time.get(11..23).unwrap_or(&time);
    let kind = seen["type"].as_str().unwrap_or_default();
    let frame = text("frame");
    let what = match (frame.as_str(), kind) {
        ("text", "") => "-",
        ("text", kind) => kind,
        (frame, _) => frame,
    };
    let shape = match &seen["shape"] {
        Value::Null => String::new(),
        shape => shape.to_string(),
    };
    let line = format!(
        "{time}  {:<3}  {:<12}  {:<16}  {:>6} B  {what:<14}  {shape}",
        text("direction"),
        text("connectionId"),
        text("userId"),
        seen["bytes"].as_u64().unwrap_or_default(),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::for_people;

    #[test]
    fn a_frame_is_a_line() {
        let seen = json!({"at": "2026-11-23T04:05:06.789Z", "direction": "in", "connectionId": "n-7",
            "userId": "ann", "bytes": 40, "frame": "text", "type": "ping", "shape": {"type": "ping"}});
        assert_eq!(
            for_people(&seen),
            "04:05:06.789  in   n-7           ann                   40 B  ping            {\"type\":\"ping\"}"
        );
        let pong = json!({"at": "2026-11-23T04:05:06.789Z", "direction": "in", "connectionId": "n-7",
            "userId": null, "bytes": 0, "frame": "pong", "type": null, "shape": null});
        assert!(for_people(&pong).ends_with(" 0 B  pong"));
        assert!(for_people(&json!({"dropped": 3})).starts_with("(3 frames"));
    }
}
