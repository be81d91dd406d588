//! `fanfare check`: what is wrong with the configuration, or what it changes.

use std::io::{self, Write};

use clap::Args;
use fanfare::config::{self, Loaded, MANUAL, Mistakes, Sources};
use serde_json::{Value, json};

use super::Failure;

#[derive(Debug, Args)]
pub struct Check {
    /// Answer in JSON, on stdout in both cases
    #[arg(long)]
    json: bool,

    /// Print the manual, a config.toml with every setting and its default, and check nothing
    #[arg(long, conflicts_with = "json")]
    print_defaults: bool,
}

impl Check {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.print_defaults {
            return Ok(out.write_all(MANUAL.as_bytes())?);
        }
        match (config::inspect(sources), self.json) {
            (Ok(loaded), true) => writeln!(out, "{:#}", good(&loaded))?,
            (Ok(loaded), false) => tell(&mut out, &loaded)?,
            (Err(mistakes), true) => {
                writeln!(out, "{:#}", bad(&mistakes))?;
                return Err(Failure::Reported);
            }
            (Err(mistakes), false) => return Err(mistakes.into()),
        }
        Ok(())
    }
}

fn tell(out: &mut impl Write, loaded: &Loaded) -> io::Result<()> {
    match &loaded.file {
        Some(path) => writeln!(out, "the configuration is good (file: {})", path.display())?,
        None => writeln!(out, "the configuration is good (no file)")?,
    }
    if loaded.changed.is_empty() {
        writeln!(out, "every setting is at its default")?;
    }
    for setting in &loaded.changed {
        let (key, value) = (&setting.key, &setting.value);
        writeln!(out, "{key} = {value}  # {}", setting.origin)?;
    }
    for warning in loaded.config.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn good(loaded: &Loaded) -> Value {
    let changed = loaded.changed.iter().map(|setting| {
        json!({
            "key": setting.key,
            "value": setting.value,
            "origin": setting.origin.to_string(),
        })
    });
    json!({
        "ok": true,
        "file": loaded.file.as_ref().map(|path| path.display().to_string()),
        "settings": changed.collect::<Vec<_>>(),
        "warnings": loaded.config.warnings(),
    })
}

fn bad(mistakes: &Mistakes) -> Value {
    let mistakes = mistakes.0.iter().map(|mistake| {
        json!({
            "key": mistake.key,
            "value": mistake.value,
            "origin": mistake.origin.as_ref().map(ToString::to_string),
            "problem": mistake.problem,
            "accepted": mistake.accepted,
            "suggestion": mistake.suggestion,
        })
    });
    json!({ "ok": false, "mistakes": mistakes.collect::<Vec<_>>() })
}
