//! `fanfare bench`: what this server does on this machine, beside what the machine can do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use fanfare::bench::attack::Attack;
use fanfare::bench::connect::Connect;
use fanfare::bench::fanout::{Fanout, Load};
use fanfare::bench::idle::Idle;
use fanfare::bench::nodes::Nodes;
use fanfare::bench::publish::Publish;
use fanfare::bench::recover::Recover;
use fanfare::bench::slow::Slow;
use fanfare::bench::{self, Progress, Report, Setup, Target, leash, raw_server};
use fanfare::config::{self, Secret, Sources};

use super::Failure;

const AFTER_HELP: &str = "\
Without --target, each measurement starts a server of its own (this binary, on loopback, in a
folder that is removed afterwards, with limits that do not stand in the way); settings such as
--workers 2 or --set limits.queue_bytes=2MiB are passed on to it. Beside it, in the same session,
runs a baseline: one write(2) per delivery from one thread, and nothing else. Compare ratios:
they travel between machines, times do not.

Exit codes: 0 measured; 3 measured, but events were lost, repeated or out of order, or
connections failed; 1 nothing could be measured; 2 the command line is wrong; 78 the
configuration is wrong; 130 interrupted.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Memory per idle connection with a token and two subscriptions, and CPU at rest
    Idle {
        /// Sockets [default: 10000; quick: 500]
        #[arg(short, value_name = "SOCKETS")]
        n: Option<usize>,
        /// Seconds before memory is read [default: 5; quick: 1]
        #[arg(long, value_name = "SECONDS")]
        settle: Option<f64>,
    },
    /// CPU per accepted connection, and a storm of clients that all come back at once
    Connect {
        /// Clients [default: 10000; quick: 500]
        #[arg(short, value_name = "CLIENTS")]
        n: Option<usize>,
        /// Storms; the median counts [default: 3; quick: 1]
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// CPU per delivery, deliveries a second, latency [default load: -r 10, then --saturate]
    Fanout {
        /// Subscribers [default: 1000; quick: 100]
        #[arg(short, value_name = "SUBSCRIBERS")]
        n: Option<usize>,
        #[command(flatten)]
        loads: Loads,
        /// Channels that the subscribers are spread over
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        channels: u16,
        /// Connections that publish; of several, the server decides the order
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=500))]
        publishers: u16,
        /// Measurements of each kind; the median counts [default: 3; quick: 1]
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// Publishes a second into history, beside this disk's own flush
    Publish {
        /// Publishers at once; each number is measured by itself
        #[arg(short, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u16).range(1..))]
        p: Vec<u16>,
    },
    /// Time and CPU until subscribers that were away have what they missed, exactly
    Recover {
        /// Subscribers [default: 500; quick: 50]
        #[arg(short, value_name = "SUBSCRIBERS")]
        n: Option<usize>,
        /// Events of each channel that they miss [default: 500; quick: 50]
        #[arg(short, value_name = "EVENTS")]
        m: Option<usize>,
        /// Channels that the subscribers are spread over
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        channels: u16,
    },
    /// What the others notice of subscribers that read no more, for each policy of channels.*.slow
    Slow {
        /// Subscribers that read [default: 100; quick: 20]
        #[arg(short, value_name = "SUBSCRIBERS")]
        n: Option<usize>,
        /// Subscribers that do not
        #[arg(long, value_name = "SUBSCRIBERS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
        stalled: u16,
        /// Events a second
        #[arg(short, value_name = "RATE", default_value_t = 500.0)]
        r: f64,
        /// Measurements of each kind; the median counts [default: 3; quick: 1]
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// What others notice of bad sign-ins that come from one address as fast as can be
    Attack {
        /// Subscribers from other addresses [default: 100; quick: 20]
        #[arg(short, value_name = "SUBSCRIBERS")]
        n: Option<usize>,
        /// Events a second
        #[arg(short, value_name = "RATE", default_value_t = 200.0)]
        r: f64,
        /// Bad sign-ins a second
        #[arg(long, value_name = "RATE", default_value_t = 10_000.0)]
        sign_ins: f64,
        /// Measurements of each kind; the median counts [default: 5; quick: 1]
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// Several nodes on one Redis beside one node: deliveries a second, CPU of nodes and of Redis, latency
    /// [default load: -r 100, then --saturate]
    Nodes {
        /// Nodes that are compared with one
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=16))]
        nodes: u8,
        /// Subscribers, in all [default: 1000; quick: 100]
        #[arg(short, value_name = "SUBSCRIBERS")]
        n: Option<usize>,
        /// A Redis that runs already, in which keys of its own are left for an hour [default: a
        /// redis-server from PATH, for the time of the measurement]
        #[arg(long, value_name = "URL")]
        redis: Option<String>,
        #[command(flatten)]
        loads: Loads,
        /// Measurements of each kind; the median counts [default: 3; quick: 1]
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// The baseline
    #[command(hide = true)]
    RawServer,
    /// A server that ends with the one who started it
    #[command(hide = true)]
    Leash {
        #[arg(long)]
        cpu: Option<usize>,
        #[arg(long)]
        program: Option<OsString>,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

/// How much is published.
#[derive(Debug, Args)]
struct Loads {
    /// As much as is taken, with so many publications under way as -w says
    #[arg(long)]
    saturate: bool,
    /// Publications under way with --saturate; may be repeated
    #[arg(
        short,
        value_name = "WINDOW",
        value_delimiter = ',',
        default_value = "4"
    )]
    w: Vec<usize>,
    /// Events a second; may be repeated
    #[arg(short, value_name = "RATE", value_delimiter = ',')]
    r: Vec<f64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
struct How {
    /// Smaller and shorter: a first impression
    #[arg(long, global = true)]
    quick: bool,

    /// One JSON object on stdout instead of the table
    #[arg(long, global = true)]
    json: bool,

    /// Seconds of each measurement [default: 5; quick: 1]
    #[arg(short = 't', long, value_name = "SECONDS", global = true)]
    duration: Option<f64>,

    /// Bytes of an event, 64 at least [default: 128; slow: 1024]
    #[arg(long, value_name = "BYTES", global = true)]
    size: Option<usize>,

    /// Run servers on this CPU
    #[arg(long, value_name = "CPU", global = true, conflicts_with = "target")]
    server_cpu: Option<usize>,

    /// Run the client on this CPU
    #[arg(long, value_name = "CPU", global = true)]
    client_cpu: Option<usize>,

    /// Folder in which the server's folder is made [default: that for temporary files]
    #[arg(long, value_name = "DIR", global = true)]
    scratch: Option<PathBuf>,

    /// Measure this running server; takes its secret from --secret-file, else from the configuration
    #[arg(long, value_name = "IP:PORT", global = true, requires = "api_key_file")]
    target: Option<SocketAddr>,

    /// Holds the secret that the running server verifies tokens with
    #[arg(long, value_name = "FILE", global = true, requires = "target")]
    secret_file: Option<PathBuf>,

    /// Holds one of its API keys
    #[arg(long, value_name = "FILE", global = true, requires = "target")]
    api_key_file: Option<PathBuf>,

    /// Its process, for CPU and memory
    #[arg(long, value_name = "PID", global = true, requires = "target")]
    server_pid: Option<u32>,

    /// The type of its channels that are used; anybody must be allowed to subscribe
    #[arg(long, value_name = "TYPE", default_value = "post", global = true)]
    channel_type: String,

    /// Measure a server that is not on this machine
    #[arg(long, global = true)]
    allow_remote: bool,
}

impl Bench {
    pub fn run(self, sources: Sources) -> Result<(), Failure> {
        let how = self.how;
        match self.what {
            What::RawServer => return Ok(raw_server::serve()?),
            What::Leash {
                cpu,
                program,
                arguments,
            } => return Ok(leash::become_server(cpu, program.as_deref(), &arguments)?),
            _ => {}
        }
        let (quick, json) = (how.quick, how.json);
        let duration = seconds(how.duration, if quick { 1.0 } else { 5.0 })?;
        let usual_bytes = match self.what {
            What::Slow { .. } => 1_024,
            _ => 128,
        };
        let setup = how.setup(sources, usual_bytes)?;
        if let Some(cpu) = setup.client_cpu {
            if setup.target.is_none() && setup.server_cpu.is_none() {
                // It would inherit the client's.
                return Err(refuse(
                    "--client-cpu needs --server-cpu, for a server of our own",
                ));
            }
            leash::pin(cpu)?;
        }
        setup
            .check()
            .map_err(|failure| Failure::Other(failure.into()))?;
        let report = measure(self.what, &setup, quick, duration)?;
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", report.json())?;
        } else {
            write!(out, "{report}")?;
        }
        match report.is_sound() {
            true => Ok(()),
            false => Err(Failure::Unsound),
        }
    }
}

fn measure(what: What, setup: &Setup, quick: bool, duration: Duration) -> Result<Report, Failure> {
    let progress = &mut Progress::new();
    let size = |given: Option<usize>, whole: usize, small: usize| {
        given.unwrap_or(if quick { small } else { whole }).max(1)
    };
    let report = match what {
        What::Idle { n, settle } => {
            let plan = Idle {
                sockets: size(n, 10_000, 500),
                settle: seconds(settle, if quick { 1.0 } else { 5.0 })?,
                duration,
            };
            bench::idle::run(setup, &plan, progress)
        }
        What::Connect { n, rounds } => {
            let plan = Connect {
                clients: size(n, 10_000, 500),
                rounds: size(rounds, 3, 1),
            };
            bench::connect::run(setup, &plan, progress)
        }
        What::Fanout {
            n,
            loads,
            channels,
            publishers,
            rounds,
        } => {
            let plan = Fanout {
                subscribers: size(n, 1_000, 100),
                channels: channels.into(),
                publishers: publishers.into(),
                loads: loads.all(10.0)?,
                duration,
                rounds: size(rounds, 3, 1),
            };
            bench::fanout::run(setup, &plan, progress)
        }
        What::Publish { p } => {
            let plan = Publish {
                publishers: p.into_iter().map(usize::from).collect(),
                duration,
            };
            bench::publish::run(setup, &plan, progress)
        }
        What::Recover { n, m, channels } => {
            let plan = Recover {
                subscribers: size(n, 500, 50),
                channels: channels.into(),
                missed: size(m, 500, 50),
            };
            bench::recover::run(setup, &plan, progress)
        }
        What::Slow {
            n,
            stalled,
            r,
            rounds,
        } => {
            if setup.target.is_some() {
                return Err(refuse("slow starts its own servers: without --target"));
            }
            let plan = Slow {
                subscribers: size(n, 100, 20),
                stalled: stalled.into(),
                rate: rate(r)?,
                duration,
                rounds: size(rounds, 3, 1),
            };
            bench::slow::run(setup, &plan, progress)
        }
        What::Attack {
            n,
            r,
            sign_ins,
            rounds,
        } => {
            if setup.target.is_some() {
                return Err(refuse("attack starts its own server: without --target"));
            }
            let plan = Attack {
                subscribers: size(n, 100, 20),
                rate: rate(r)?,
                sign_ins: rate(sign_ins)?,
                duration,
                rounds: size(rounds, 5, 1),
            };
            bench::attack::run(setup, &plan, progress)
        }
        What::Nodes {
            nodes,
            n,
            redis,
            loads,
            rounds,
        } => {
            if setup.target.is_some() {
                return Err(refuse("nodes starts its own servers: without --target"));
            }
            let plan = Nodes {
                nodes: nodes.into(),
                subscribers: size(n, 1_000, 100),
                redis,
                loads: loads.all(100.0)?,
                duration,
                rounds: size(rounds, 3, 1),
            };
            bench::nodes::run(setup, &plan, progress)
        }
        What::RawServer | What::Leash { .. } => return Err(refuse("measures nothing")),
    };
    report.map_err(|failure| Failure::Other(failure.into()))
}

fn rate(given: f64) -> Result<f64, Failure> {
    if (0.01..=1e6).contains(&given) {
        return Ok(given);
    }
    Err(refuse(format!(
        "-r {given}: 0.01 to 1000000 events a second"
    )))
}

impl Loads {
    /// What was asked for, else a rate that is usual and the peak.
    fn all(&self, usual: f64) -> Result<Vec<Load>, Failure> {
        for &given in &self.r {
            rate(given)?;
        }
        let windows = self.w.iter().map(|&window| Load::Window(window.max(1)));
        let rated = self.r.iter().map(|&rate| Load::Rate(rate));
        Ok(match (self.saturate, self.r.is_empty()) {
            (false, false) => rated.collect(),
            (true, _) => rated.chain(windows).collect(),
            (false, true) => std::iter::once(Load::Rate(usual)).chain(windows).collect(),
        })
    }
}

impl How {
    fn setup(self, mut sources: Sources, usual_bytes: usize) -> Result<Setup, Failure> {
        if self.target.is_none() {
            // Our own server sees flags and a file that was asked for, nothing that lies about.
            sources.search.clear();
            sources.environment.clear();
        }
        let config = config::load(&sources)?;
        let target = match (self.target, &self.api_key_file) {
            (Some(address), Some(api_key_file)) => {
                if !address.ip().is_loopback() && !self.allow_remote {
                    return Err(refuse(format!(
                        "{address} is not on this machine: --allow-remote, if it is yours"
                    )));
                }
                let secret = match (&self.secret_file, &config.auth.secret) {
                    (Some(file), _) => Secret::new(read(file)?),
                    (None, Some(secret)) => secret.clone(),
                    (None, None) => return Err(refuse("--target needs --secret-file")),
                };
                Some(Target {
                    address,
                    secret,
                    api_key: String::from_utf8(read(api_key_file)?)
                        .map_err(|_| refuse("--api-key-file: not text"))?,
                    pid: self.server_pid,
                    channel_type: self.channel_type,
                })
            }
            _ => None,
        };
        let settings = sources.flags.into_iter();
        Ok(Setup {
            target,
            auth: config.auth,
            config_file: sources.file,
            settings: settings
                .filter_map(|flag| Some((flag.key, flag.value?)))
                .collect(),
            scratch: self.scratch.unwrap_or_else(std::env::temp_dir),
            server_cpu: self.server_cpu,
            client_cpu: self.client_cpu,
            event_bytes: self.size.unwrap_or(usual_bytes),
        })
    }
}

fn seconds(given: Option<f64>, default: f64) -> Result<Duration, Failure> {
    let seconds = given.unwrap_or(default);
    if !(0.05..=3_600.0).contains(&seconds) {
        return Err(refuse(format!("{seconds} seconds: 0.05 to 3600")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A secret's file; one newline at its end is not part of it.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes =
        std::fs::read(path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

fn refuse(why: impl Into<String>) -> Failure {
    Failure::Other(why.into().into())
}
