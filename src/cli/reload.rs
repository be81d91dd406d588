//! `fanfare reload`: has the running server read its configuration again.

use std::io::{self, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::Value;

use super::Failure;
use super::operator::Operator;

#[derive(Debug, Args)]
pub struct Reload {
    /// Answer in JSON, on stdout in both cases
    #[arg(long)]
    json: bool,
}

impl Reload {
    /// What is wrong is found here, too: with the same sources as the server's.
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let answer = Operator::connect(sources)?.post("/control/reload", &Value::Null, &[])?;
        let is_good = answer["ok"] == true;
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{answer:#}")?;
        } else if is_good {
            tell(&mut out, &answer)?;
        } else {
            let error = answer["error"].as_str().unwrap_or("no reason was given");
            writeln!(io::stderr(), "fanfare: nothing was changed: {error}")?;
        }
        if is_good {
            Ok(())
        } else {
            Err(Failure::Reported)
        }
    }
}

fn tell(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let lines = |list: &Value| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let changes: Vec<&Value> = answer["changes"].as_array().into_iter().flatten().collect();
    if changes.is_empty() {
        writeln!(out, "reloaded; nothing is different")?;
    } else {
        writeln!(out, "reloaded:")?;
    }
    for change in changes {
        writeln!(out, "  {}", change["text"].as_str().unwrap_or_default())?;
    }
    for warning in lines(&answer["warnings"]) {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}
