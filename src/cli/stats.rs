//! `fanfare stats`: the figures of the running server.

use std::io::{self, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::Value;

use super::Failure;
use super::operator::{Operator, table};

/// Channels and types that are shown; `--json` has all.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct Stats {
    /// Print the JSON object of GET /stats
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let stats = Operator::connect(sources)?.get("/control/stats")?;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{stats}")?;
            return Ok(());
        }
        tell(&mut out, &stats)?;
        Ok(())
    }
}

fn tell(out: &mut impl Write, stats: &Value) -> io::Result<()> {
    let server = &stats["server"];
    let line = |name: &str, value: String| [name.to_owned(), value];
    let number = |value: &Value| value.to_string();
    let state = |value: &Value| {
        let state = value["state"].as_str().unwrap_or("unknown");
        match value["reason"].as_str() {
            Some(reason) => format!("{state}: {reason}"),
            None => state.to_owned(),
        }
    };
    let bytes = |value: &Value| match value.as_u64() {
        Some(bytes) => bytesize::ByteSize(bytes).to_string(),
        None => "unknown".to_owned(),
    };
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let store = &server["store"];
    let process = &server["process"];
    let rows = [
        line("version", text(&server["version"])),
        line("node", text(&server["node"])),
        line("up", text(&stats["uptime"])),
        line(
            "connections",
            format!(
                "{} open, {} in all",
                stats["activeConnections"], stats["totalConnections"]
            ),
        ),
        line("subscriptions", number(&server["subscriptions"])),
        line("channels", number(&server["channels"])),
        line(
            "messages",
            format!(
                "{} in all, {} a minute",
                stats["totalMessages"], stats["averageMessagesPerMinute"]
            ),
        ),
        line("deliveries", number(&server["deliveries"])),
        line("refused sign-ins", number(&stats["authFailures"])),
        line("errors", number(&stats["errors"])),
        line("broker", state(&server["broker"])),
        line(
            "store",
            format!("{}, {}", state(store), bytes(&store["bytes"])),
        ),
        line(
            "history",
            format!(
                "{} events of {} channels",
                store["historyEvents"], store["historyChannels"]
            ),
        ),
        line(
            "event log",
            format!(
                "{}, {} lines, {} lost",
                text(&server["eventLog"]["state"]).replace('_', " "),
                server["eventLog"]["writtenLines"],
                server["eventLog"]["droppedLines"]
            ),
        ),
        line("memory", bytes(&process["residentBytes"])),
        line("descriptors", number(&process["openFds"])),
    ];
    for [name, value] in &rows {
        writeln!(out, "{name:<18}{value}")?;
    }
    for (head, key) in [
        ("CHANNEL", "connectionsByChannel"),
        ("MESSAGE TYPE", "messagesByType"),
    ] {
        let mut counts: Vec<(String, u64)> = stats[key]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)))
            .collect();
        if counts.is_empty() {
            continue;
        }
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rows: Vec<_> = counts
            .into_iter()
            .take(SHOWN)
            .map(|(name, count)| [name, count.to_string()])
            .collect();
        writeln!(out)?;
        table::write(out, [head, "COUNT"], &rows)?;
    }
    Ok(())
}
