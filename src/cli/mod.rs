//! The command line: one file per command, and the flags that all of them take.

pub mod backup;
pub mod bench;
pub mod check;
pub mod connections;
pub mod doctor;
pub mod documents;
pub mod migrate;
pub mod publish;
pub mod reload;
pub mod serve;
pub mod stats;
pub mod store;
pub mod subscribe;
pub mod tail;
pub mod token;

mod operator;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fanfare::config::{Flag, Mistakes, Sources};

/// `EX_CONFIG` of sysexits.h: a supervisor that sees it need not try again.
const EXIT_CONFIGURATION: u8 = 78;
/// There are figures, and they are not to be relied on.
const EXIT_UNSOUND: u8 = 3;
/// It was not begun: nothing was changed.
const EXIT_REFUSED: u8 = 4;
/// `EX_UNAVAILABLE` of sysexits.h: the running server cannot be reached.
const EXIT_UNREACHABLE: u8 = 69;

const AFTER_HELP: &str = "\
Examples:
  fanfare --dev                              try it on this machine: no file, no secret, a test page
  fanfare --config /etc/fanfare/config.toml  serve
  fanfare --listen 0.0.0.0:3002 --set limits.queue_bytes=2MiB
  fanfare check --config new.toml            what is wrong with it, or what it changes
  fanfare check --print-defaults > config.toml
  TOKEN=$(fanfare token --user u1)           a token for curl
  fanfare bench fanout                       what it does on this machine
  fanfare stats                              what the running server does
  fanfare publish post_42 '{\"type\":\"post_liked\"}'
  fanfare tail --user u1                     what passes to and from one user, values hidden
  fanfare backup /var/backups/fanfare.backup while it runs; `fanfare restore` brings it back

Settings come from the defaults, then the configuration file, then the environment
(FANFARE_SECTION__KEY, such as FANFARE_LIMITS__QUEUE_BYTES), then flags; the later one wins.
Secrets never by flag, where everybody on the machine can read them: use the file, the
environment (FANFARE_AUTH__SECRET) or a file of their own (auth.secret_file).

Exit codes: 0 done, 78 the configuration is wrong, 2 the command line is wrong, 3 a benchmark
lost something or a check found something, 4 a migration was refused, 69 the running server (or
the Redis of a migration) cannot be reached, 1 anything else.";

/// The realtime layer of an application, as one binary: sign-in, WebSockets, channels, notifications.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server. This is what happens without a command, too
    Serve,
    /// Have the running server read its configuration again, and say what that changes
    Reload(reload::Reload),
    /// Say what is wrong with the configuration, or what it changes and where
    Check(check::Check),
    /// Issue an access token for a user, signed with this server's secret
    Token(token::Token),
    /// Show the figures of the running server
    Stats(stats::Stats),
    /// List who is connected to the running server
    Connections(connections::Connections),
    /// Publish an event to a channel
    Publish(publish::Publish),
    /// Follow a channel in the terminal
    Subscribe(subscribe::Subscribe),
    /// Look at the frames of a user, a channel or a connection, without what they say
    Tail(tail::Tail),
    /// Add a notification for a user
    Notify(publish::Notify),
    /// Find what is wrong with this installation, and how to mend it
    Doctor(doctor::Doctor),
    /// Copy everything that is stored, while the server runs or not
    Backup(backup::Backup),
    /// Make a database of a backup
    Restore(backup::Restore),
    /// Take everything that is kept to the other backend, while no server runs
    Migrate(migrate::Migrate),
    /// Check, pack or weigh the database of a server that is not running
    Store(store::Store),
    /// Measure this server on this machine, beside what the machine itself can do
    Bench(bench::Bench),
    /// Write manual pages and shell completions into a folder
    #[command(hide = true)]
    Documents(documents::Documents),
}

/// Flags for settings; all commands take them, because all commands see the same configuration.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// The configuration file [default: ./config.toml, else /etc/fanfare/config.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// For a laptop: loopback only, wallets are believed without proof, the test page is on
    #[arg(long, global = true)]
    dev: bool,

    /// Where HTTP and WebSockets are served (server.listen)
    #[arg(long, value_name = "IP:PORT", global = true)]
    listen: Option<String>,

    /// Where /stats and /metrics are served (metrics.listen)
    #[arg(long, value_name = "IP:PORT", global = true)]
    metrics_listen: Option<String>,

    /// Folder of the database and the generated secret (data_dir)
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<String>,

    /// Connection threads; 0: one per core (server.workers)
    #[arg(long, value_name = "N", global = true)]
    workers: Option<String>,

    /// Folder of the daily event logs (logs.dir)
    #[arg(long, value_name = "DIR", global = true)]
    log_dir: Option<String>,

    /// Any setting but secrets; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

/// Why a command did not do its work.
pub enum Failure {
    /// The configuration is wrong.
    Configuration(Mistakes),
    /// The same, and it has been said already.
    Reported,
    /// It was measured or checked, and is not as it should be; it has been said already.
    Unsound,
    /// It may not be done as things are: why. Nothing was changed.
    Refused(String),
    /// There is no way to the running server: why.
    Unreachable(String),
    /// Anything else.
    Other(Box<dyn Error>),
}

impl Settings {
    /// All that the configuration is made of.
    pub fn sources(self) -> Sources {
        let named = [
            ("--listen", "server.listen", self.listen),
            ("--metrics-listen", "metrics.listen", self.metrics_listen),
            ("--data-dir", "data_dir", self.data_dir),
            ("--workers", "server.workers", self.workers),
            ("--log-dir", "logs.dir", self.log_dir),
        ];
        let set = self.set.iter().map(|setting| {
            let (key, value) = match setting.split_once('=') {
                Some((key, value)) => (key, Some(value.trim().to_owned())),
                None => (setting.as_str(), None),
            };
            Flag {
                name: "--set",
                key: key.trim().to_owned(),
                value,
            }
        });
        let named = named.into_iter().filter_map(|(name, key, value)| {
            Some(Flag {
                name,
                key: key.to_owned(),
                value: Some(value?),
            })
        });
        Sources {
            dev: self.dev,
            file: self.config,
            // A flag of its own is the more deliberate one: it comes last and wins.
            flags: set.chain(named).collect(),
            ..Sources::of_process()
        }
    }
}

impl Failure {
    /// Tells the operator, on stderr.
    pub fn report(&self) {
        // A closed stderr leaves nobody to tell.
        let _ = match self {
            Self::Configuration(mistakes) => writeln!(io::stderr(), "fanfare: {mistakes}"),
            Self::Reported | Self::Unsound => Ok(()),
            Self::Refused(why) | Self::Unreachable(why) => writeln!(io::stderr(), "fanfare: {why}"),
            Self::Other(error) => writeln!(io::stderr(), "fanfare: {}", with_causes(&**error)),
        };
    }

    /// In a sentence.
    pub fn to_text(&self) -> String {
        match self {
            Self::Configuration(mistakes) => mistakes.to_string(),
            Self::Reported | Self::Unsound => String::new(),
            Self::Refused(why) | Self::Unreachable(why) => why.clone(),
            Self::Other(error) => with_causes(&**error),
        }
    }

    /// Documented in `--help`.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) | Self::Reported => ExitCode::from(EXIT_CONFIGURATION),
            Self::Unsound => ExitCode::from(EXIT_UNSOUND),
            Self::Refused(_) => ExitCode::from(EXIT_REFUSED),
            Self::Unreachable(_) => ExitCode::from(EXIT_UNREACHABLE),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::Configuration(mistakes)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// `could not open the store: permission denied`
fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
