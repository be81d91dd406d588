//! The statistics that the console shows once a minute. Contract section 7.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::render;
use super::{Observed, Snapshot};
use crate::event_log::without_token;

/// Channels and message types that are shown, the largest ones.
const SHOWN: usize = 10;

/// The lines, each with its newline.
pub fn text(snapshot: &Snapshot) -> String {
    let mut text = format!(
        "stats: up {}, {} active of {} connections, {} messages, {} auth failures, {} errors\n",
        render::uptime(snapshot.uptime_ms),
        snapshot.active_connections(),
        snapshot.connections_opened,
        snapshot.messages,
        snapshot.all_auth_failures(),
        snapshot.errors_and_malformed(),
    );
    list(
        "channels",
        &snapshot.channels,
        snapshot.channel_count,
        &mut text,
    );
    let types = &snapshot.messages_by_type;
    list("message types", types, types.len() as u64, &mut text);
    text
}

fn list(title: &str, counts: &[(String, u64)], all: u64, text: &mut String) {
    if counts.is_empty() {
        return;
    }
    let shown = &counts[..counts.len().min(SHOWN)];
    let _ = write!(text, "  {title}:");
    for (n, (name, count)) in shown.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Clients choose these names: nothing of them may move the cursor, begin a line or be a secret.
        let name = without_token(name).escape_debug();
        let _ = write!(text, "{comma} {name} {count}");
    }
    match all.saturating_sub(shown.len() as u64) {
        0 => text.push('\n'),
        more => {
            let _ = writeln!(text, ", and {more} more");
        }
    }
}

/// Shows the statistics until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the statistics"]
pub struct Console {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Writes the statistics to `out` every `interval`. A broken `out` ends nothing but the lines.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    observed: Arc<Observed>,
    interval: Duration,
    mut out: impl Write + Send + 'static,
) -> io::Result<Console> {
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(String::from("console"))
        .spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let text = text(&observed.snapshot());
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
        })?;
    Ok(Console {
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_server_needs_one_line() {
        assert_eq!(
            text(&Snapshot::default()),
            "stats: up 0h 0m, 0 active of 0 connections, 0 messages, 0 auth failures, 0 errors\n"
        );
    }

    #[test]
    fn the_largest_are_shown_and_nothing_escapes_its_line() {
        let channels = (0..12).map(|n| (format!("post_{n}"), 100 - n)).collect();
        let snapshot = Snapshot {
            uptime_ms: 3_720_000,
            connections_opened: 9,
            connections_closed: 2,
            channels,
            channel_count: 4_000,
            messages: 5,
            messages_by_type: vec![("ping".into(), 4), ("a\u{1b}[2J\nb".into(), 1)],
            ..Snapshot::default()
        };
        let text = text(&snapshot);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "stats: up 1h 2m, 7 active of 9 connections, 5 messages, 0 auth failures, 0 errors"
        );
        assert!(lines[1].starts_with("  channels: post_0 100, post_1 99,"));
        assert!(lines[1].ends_with(", post_9 91, and 3990 more"));
        assert_eq!(lines[2], r"  message types: ping 4, a\u{1b}[2J\nb 1");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_name_ends_where_a_token_begins() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        let snapshot = Snapshot {
            channels: vec![(format!("post_{jwt}"), 2)],
            channel_count: 1,
            messages_by_type: vec![(jwt[..32].into(), 1)],
            ..Snapshot::default()
        };
        let text = text(&snapshot);
        assert!(text.contains("  channels: post_ 2\n"), "{text}");
        assert!(!text.contains("eyJ"), "{text}");
    }
}
