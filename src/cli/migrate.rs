//! `fanfare migrate`: everything that is kept, from one backend to the other.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Args, ValueEnum};
use fanfare::broker::embedded::{self, FILE_NAME};
use fanfare::broker::migration::{
    self, Finished, Kind, MigrationError, Report, Source, Step, Target,
};
use fanfare::broker::redis;
use fanfare::clock::{Clock, rfc3339};
use fanfare::config::{self, Config, Secret, Sources};
use fanfare::progress::Progress;
use serde_json::json;

use super::Failure;
use super::operator::table;

#[derive(Debug, Args)]
#[command(after_help = "\
Users, notifications, histories with their positions, revocations, sign-ins (refresh tokens),
idempotency keys and open challenges are taken over, with the times at which they end. Both
sides are in the same configuration file: data_dir, and broker.redis.

  systemctl stop fanfare                 every node
  fanfare migrate --to redis
  .. then broker.backend = \"redis\" in config.toml, and
  systemctl start fanfare

Clients that come back get exactly what they missed, as after any restart. The source stays as
it is, but for its epochs, which go on at the target: whoever starts it again begins new ones.
Interrupted, it is continued by running it again; until it is finished, no server starts on the
target. At the end both sides are read once more and compared.

Exit codes: 0 done; 3 the two sides differ, and the target stays unfinished; 4 refused, nothing
was changed (a server runs, the target is not empty, there is no source); 69 Redis cannot be
reached; 78 the configuration is wrong; 2 the command line is wrong; 1 it broke off: run it again.")]
pub struct Migrate {
    /// The backend that gets everything; the other one is where it comes from
    #[arg(long, value_name = "BACKEND")]
    to: Side,

    /// With --to embedded: put the database that is there aside (it gets another name)
    #[arg(long)]
    replace: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Embedded,
    Redis,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// What came of it.
struct Done {
    finished: Finished,
    /// What the database that was there is called now.
    aside: Option<String>,
    warnings: Vec<String>,
}

impl Migrate {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        if self.replace && self.to == Side::Redis {
            let text = "--replace is for --to embedded; what is in Redis is yours to delete";
            return Err(Failure::Refused(text.into()));
        }
        let config = config::load(sources)?;
        let mut progress = Progress::new();
        progress.begin("opening both sides");
        let outcome = self.migrate(&config, &mut progress);
        drop(progress);
        match outcome {
            Ok(done) => Ok(self.tell(&done)?),
            Err(MigrationError::Differs(report)) => {
                self.tell_differences(&report)?;
                Err(Failure::Unsound)
            }
            Err(MigrationError::Refused(why)) => Err(Failure::Refused(why)),
            Err(MigrationError::Unreachable(why)) => Err(Failure::Unreachable(why)),
            Err(error) => {
                let text = format!("{error}; what was copied stays, run this again to go on");
                Err(Failure::Other(text.into()))
            }
        }
    }

    fn migrate(&self, config: &Config, progress: &mut Progress) -> Result<Done, MigrationError> {
        let clock = Clock::system();
        let path = config.data_dir.join(FILE_NAME);
        let (mut aside, mut warnings) = (None, Vec::new());
        let go = |source: &mut dyn Source, target: &mut dyn Target, progress: &mut Progress| {
            let mut shown = Shown::Opening;
            migration::run(source, target, &clock, &mut |step| {
                show(progress, &mut shown, step, &clock);
            })
        };
        let finished = match self.to {
            Side::Redis => {
                let options =
                    embedded::migration::Options::new(&path, &config.limits, clock.clone());
                let mut source = embedded::migration::Origin::open(options)?;
                let mut target = redis::migration::Destination::open(redis_of(config, &clock))?;
                warnings = target.warnings()?;
                for warning in &warnings {
                    progress.leave(format_args!("warning: {warning}"));
                }
                go(&mut source, &mut target, progress)?
            }
            Side::Embedded => {
                let mut source = redis::migration::Origin::open(redis_of(config, &clock))?;
                if self.replace {
                    aside = put_aside(&path, &clock)?;
                }
                let options =
                    embedded::migration::Options::new(&path, &config.limits, clock.clone());
                let mut target = embedded::migration::Destination::open(options)?;
                go(&mut source, &mut target, progress)?
            }
        };
        Ok(Done {
            finished,
            aside,
            warnings,
        })
    }

    fn tell(&self, done: &Done) -> io::Result<()> {
        let Done {
            finished,
            aside,
            warnings,
        } = done;
        let mut out = io::stdout().lock();
        let report = &finished.report;
        let per_second = rate(finished.copied, finished.copying_ms);
        if self.json {
            let answer = json!({
                "ok": true,
                "to": self.to.name(),
                "resumed": finished.resumed,
                "copied": finished.copied,
                "copyingMs": finished.copying_ms,
                "comparingMs": finished.comparing_ms,
                "aside": aside,
                "warnings": warnings,
                "compared": report,
            });
            return writeln!(out, "{answer}");
        }
        tabulate(&mut out, report)?;
        if finished.resumed {
            writeln!(out, "an interrupted migration was continued")?;
        }
        writeln!(
            out,
            "{} records copied in {:.1} s ({per_second} a second), compared in {:.1} s: both sides agree",
            finished.copied,
            finished.copying_ms as f64 / 1e3,
            finished.comparing_ms as f64 / 1e3,
        )?;
        if let Some(aside) = aside {
            writeln!(out, "{aside}: what was there before")?;
        }
        writeln!(
            out,
            "now set broker.backend = \"{}\", and start the server",
            self.to.name()
        )
    }

    fn tell_differences(&self, report: &Report) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            let answer = json!({ "ok": false, "to": self.to.name(), "compared": report });
            return writeln!(out, "{answer}");
        }
        tabulate(&mut out, report)?;
        for difference in &report.differences {
            writeln!(out, "{difference}")?;
        }
        writeln!(
            out,
            "{} records differ: the target stays unfinished, no server starts on it; run this again to \
             begin anew",
            report.differing
        )
    }
}

fn tabulate(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let short = |digest| String::from(digest).chars().take(16).collect::<String>();
    let rows: Vec<_> = report
        .rows
        .iter()
        .map(|(name, row)| {
            let is_same = row.source_digest == row.target_digest && row.source == row.target;
            [
                name.clone(),
                row.source.to_string(),
                row.target.to_string(),
                short(row.source_digest),
                short(row.target_digest),
                if is_same { "same" } else { "DIFFERS" }.to_owned(),
            ]
        })
        .collect();
    let head = ["WHAT", "SOURCE", "TARGET", "DIGEST", "DIGEST THERE", ""];
    table::write(out, head, &rows)
}

/// What the line of progress says.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Opening,
    /// This kind, since then.
    Copying(Kind, u64),
    Comparing,
}

fn show(progress: &mut Progress, shown: &mut Shown, step: Step, clock: &Clock) {
    match step {
        Step::Copying(kind, done, all) => {
            let now_ms = clock.now().mono_ms;
            let began_ms = match *shown {
                Shown::Copying(of, began_ms) if of == kind => began_ms,
                _ => {
                    *shown = Shown::Copying(kind, now_ms);
                    progress.begin(format!("copying {}:", kind.name()));
                    now_ms
                }
            };
            let rate = rate(done, now_ms - began_ms);
            match all {
                Some(all) => progress.say(format_args!("{done} of {all}, {rate} a second")),
                None => progress.say(format_args!("{done}, {rate} a second")),
            }
        }
        Step::Comparing(done) => {
            if *shown != Shown::Comparing {
                *shown = Shown::Comparing;
                progress.begin("comparing both sides:");
            }
            progress.say(format_args!("{done} records"));
        }
        Step::Retiring => progress.begin("ending the source's epochs"),
    }
}

fn rate(records: u64, ms: u64) -> u64 {
    records * 1_000 / ms.max(1)
}

fn redis_of(config: &Config, clock: &Clock) -> redis::migration::Options {
    let settings = &config.broker.redis;
    let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    redis::migration::Options {
        url: text(&settings.url),
        pubsub_url: settings.pubsub_url.as_ref().map(text),
        prefix: settings.prefix.clone(),
        authorities: settings.authorities.clone(),
        wait_replicas: settings.wait_replicas,
        wait_timeout: settings.wait_timeout,
        clock: clock.clone(),
    }
}

/// Puts a database aside that is not itself an unfinished target, which is gone on with.
fn put_aside(path: &Path, clock: &Clock) -> Result<Option<String>, MigrationError> {
    if !path.exists() || embedded::migration::is_unfinished(path)? {
        return Ok(None);
    }
    let stamp = rfc3339(clock.unix_ms()).replace(':', "-");
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".replaced-{stamp}"));
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)
        .map_err(|error| MigrationError::Refused(format!("{}: {error}", path.display())))?;
    Ok(Some(aside.display().to_string()))
}
