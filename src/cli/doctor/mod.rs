//! `fanfare doctor`: what is wrong with this installation, and how to mend it.

mod machine;
mod redis;
mod round_trip;

use std::io::{self, Write};

use clap::Args;
use fanfare::clock::Clock;
use fanfare::config::{self, Config, Sources};
use fanfare::progress::Progress;
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;
use super::operator::{Operator, socket};

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at the configuration, the machine, Redis where it is the backend, the running server, and makes a
real round trip: a token, a WebSocket through server.public_url, a publication, and its arrival.

Exit codes: 0 nothing is bad (there may be warnings), 3 something is, 78 the configuration is wrong.")]
pub struct Doctor {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// It works, and may not for long.
    Warning,
    Bad,
    /// It does not apply here, or could not be looked at.
    Skipped,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self::new(what, Verdict::Good, found, None)
    }

    fn skipped(what: &'static str, found: impl Into<String>) -> Self {
        Self::new(what, Verdict::Skipped, found, None)
    }

    fn warning(what: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(what, Verdict::Warning, found, Some(cure.into()))
    }

    fn bad(what: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(what, Verdict::Bad, found, Some(cure.into()))
    }

    fn new(
        what: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        cure: Option<String>,
    ) -> Self {
        Self {
            what,
            verdict,
            found: found.into(),
            cure,
        }
    }
}

impl Doctor {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = config::load(sources)?;
        let mut progress = Progress::new();
        let findings = examine(&config, &mut progress);
        drop(progress);
        let is_bad = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Bad);
        let mut out = io::stdout().lock();
        if self.json {
            let answer = json!({ "ok": !is_bad, "findings": findings });
            writeln!(out, "{answer:#}")?;
        } else {
            tell(&mut out, &findings)?;
        }
        if is_bad {
            Err(Failure::Unsound)
        } else {
            Ok(())
        }
    }
}

fn examine(config: &Config, progress: &mut Progress) -> Vec<Finding> {
    let clock = Clock::system();
    let mut findings = vec![Finding::good("configuration", "no mistakes")];
    for warning in config.warnings() {
        let cure = "see what config.toml says about it";
        findings.push(Finding::warning("configuration", warning.clone(), cure));
    }
    progress.begin("looking at the machine");
    findings.push(machine::descriptors(config));
    findings.push(machine::clock(clock.unix_ms()));
    findings.extend(machine::disks(config));
    findings.extend(machine::certificates(config, clock.unix_ms()));

    progress.begin("asking Redis");
    findings.extend(redis::look(config));

    progress.begin("asking the server");
    let asked = socket(config).and_then(|path| Operator::to(&path));
    match asked {
        Err(failure) => {
            findings.push(Finding::bad(
                "server",
                failure.to_text(),
                "start it: systemctl start fanfare, or fanfare serve",
            ));
            findings.extend(machine::ports(config));
            progress.begin("checking the database");
            findings.push(machine::database(config));
            findings.push(Finding::skipped("round trip", "there is no server"));
        }
        Ok(mut server) => {
            findings.extend(running(&mut server));
            progress.begin("making a round trip");
            findings.push(round_trip::make(config, &clock, &mut server));
        }
    }
    findings
}

/// What the running server says of itself.
fn running(server: &mut Operator) -> Vec<Finding> {
    let stats = match server.get("/control/stats") {
        Ok(stats) => stats,
        Err(failure) => {
            return vec![Finding::bad(
                "server",
                failure.to_text(),
                "see the log: journalctl -u fanfare",
            )];
        }
    };
    let about = &stats["server"];
    let version = about["version"].as_str().unwrap_or("unknown");
    let own = env!("CARGO_PKG_VERSION");
    let mut findings = vec![if version == own {
        let up = stats["uptime"].as_str().unwrap_or("?");
        Finding::good("server", format!("{version}, up {up}"))
    } else {
        let found = format!("{version} runs, and this program is {own}");
        Finding::warning("server", found, "restart it: systemctl restart fanfare")
    }];
    for what in ["broker", "store"] {
        findings.push(state(what, &about[what]));
    }
    let alerts: Vec<&str> = about["alerts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    findings.push(if alerts.is_empty() {
        Finding::good("alerts", "none fires")
    } else {
        let cure = "see [alerts] in config.toml for what each means";
        Finding::bad("alerts", alerts.join(", "), cure)
    });
    findings
}

fn state(what: &'static str, health: &Value) -> Finding {
    let reason = health["reason"].as_str().unwrap_or("no reason given");
    match health["state"].as_str() {
        Some("up") => Finding::good(what, "up"),
        Some("degraded") => {
            let cure = "make room: raise limits.store_bytes, or free the disk";
            Finding::warning(what, reason, cure)
        }
        _ => Finding::bad(what, reason, "see the log: journalctl -u fanfare"),
    }
}

fn tell(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD",
            Verdict::Skipped => "-",
        };
        writeln!(out, "{verdict:<9}{:<15}{}", finding.what, finding.found)?;
        if let Some(cure) = &finding.cure {
            writeln!(out, "{:<24}{cure}", "")?;
        }
    }
    Ok(())
}
