//! `fanfare connections`: who is connected to the running server, and to the other nodes on its Redis.

use std::collections::BTreeSet;
use std::io::{self, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::Value;
use url::form_urlencoded;

use super::Failure;
use super::operator::{Operator, table};

const PAGE: usize = 1_000;

#[derive(Debug, Args)]
pub struct Connections {
    /// Only those of this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Connections {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut operator = Operator::connect(sources)?;
        let mut all: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        let mut silent: BTreeSet<String> = BTreeSet::new();
        loop {
            let limit = PAGE.min(self.limit.saturating_sub(all.len()));
            if limit == 0 {
                break;
            }
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string());
            let named = [("user", &self.user), ("cursor", &cursor)];
            for (name, value) in named {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            let page = operator.get(&format!("/api/connections?{}", query.finish()))?;
            all.extend(
                page["connections"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
            let nodes = page["silentNodes"].as_array().into_iter().flatten();
            silent.extend(nodes.filter_map(|node| node.as_str().map(str::to_owned)));
            cursor = page["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        for node in silent {
            eprintln!("the node {node} did not answer: its connections are not listed");
        }
        let mut out = io::stdout().lock();
        if self.json {
            for connection in &all {
                writeln!(out, "{connection}")?;
            }
            return Ok(());
        }
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rows: Vec<_> = all
            .iter()
            .map(|one| {
                [
                    "connectionId",
                    "userId",
                    "address",
                    "connectedAt",
                    "channels",
                ]
                .map(|key| text(&one[key]))
            })
            .collect();
        let head = ["CONNECTION", "USER", "ADDRESS", "SINCE", "CHANNELS"];
        table::write(&mut out, head, &rows)?;
        if cursor.is_some() {
            writeln!(
                out,
                "there are more: --limit {}",
                self.limit.saturating_mul(10)
            )?;
        }
        Ok(())
    }
}
