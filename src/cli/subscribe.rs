//! `fanfare subscribe`: follows a channel in the terminal, as one of its clients.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use fanfare::auth::{Authority, TokenSubject, keys};
use fanfare::clock::Clock;
use fanfare::config::{self, Access, Config, Sources};
use fanfare::probe::{Problem, Socket, Target};
use fanfare::protocol::ChannelKey;
use fanfare::tls::Endpoint;
use serde_json::{Value, json};

use super::Failure;

/// For opening the socket and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The server pings more often than this.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);
const USER: &str = "fanfare-subscribe";

#[derive(Debug, Args)]
#[command(after_help = "\
Every event is a line of JSON on stdout, as clients get it; everything else is on stderr. The token
is signed with the server's secret, for the owner where a channel has one. When the connection ends,
the command comes back for what it missed. Ctrl-C ends it.")]
pub struct Subscribe {
    /// The channel's key, such as post_42
    channel: String,

    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Subscribe {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let config = config::load(sources)?;
        let channel = ChannelKey::parse(&self.channel, config.limits.channel_key_bytes)
            .map_err(|error| Failure::Other(format!("{:?}: {error}", self.channel).into()))?;
        let secret = keys::secret(&config.auth, &config.data_dir)
            .map_err(|error| Failure::Other(error.into()))?;
        let authority = Authority::new(&secret, &config.auth);
        let subject = TokenSubject {
            user_id: user(&config, &channel)?,
            channels: vec![channel.to_string()],
            ..TokenSubject::default()
        };
        let target = target(&config)?;
        let mut position = Value::Null;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut was_in = false;
        while left > 0 {
            let token = authority.issue(&subject, Clock::system().unix_ms()).token;
            let followed = follow(
                &target,
                &token,
                &channel,
                &mut position,
                &mut left,
                &mut was_in,
            );
            match followed {
                Ok(()) => {}
                // The first time, what is wrong is most likely here to stay.
                Err(Ended::Socket(problem)) if !was_in => {
                    return Err(Failure::Unreachable(problem.to_string()));
                }
                Err(Ended::Socket(problem)) => {
                    writeln!(io::stderr(), "fanfare: {problem}; coming back")?;
                    std::thread::sleep(PAUSE);
                }
                Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(Ended::Output(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Why a connection is no longer followed.
enum Ended {
    Socket(Problem),
    Output(io::Error),
}

fn follow(
    target: &Target,
    token: &str,
    channel: &ChannelKey,
    position: &mut Value,
    left: &mut u64,
    was_in: &mut bool,
) -> Result<(), Ended> {
    let mut socket = Socket::open(target, token, PATIENCE).map_err(Ended::Socket)?;
    let answer = socket
        .subscribe_from(channel.as_str(), position)
        .map_err(Ended::Socket)?;
    *was_in = true;
    let data = &answer["data"];
    if data["recovered"] == false {
        let reason = data["reason"].as_str().unwrap_or("unknown");
        let text = format!("fanfare: events were missed for good ({reason})");
        writeln!(io::stderr(), "{text}").map_err(Ended::Output)?;
    }
    if data["epoch"].is_string() {
        *position = json!({ "epoch": data["epoch"], "offset": data["offset"] });
    }
    while *left > 0 {
        let message = socket.next(SILENCE_MAX).map_err(Ended::Socket)?;
        let meta = &message["_meta"];
        if meta["channel"] != channel.as_str() {
            continue;
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{message}")
            .and_then(|()| out.flush())
            .map_err(Ended::Output)?;
        *left -= 1;
        if meta["offset"].is_u64() {
            *position = json!({ "epoch": meta["epoch"], "offset": meta["offset"] });
        }
    }
    socket.close();
    Ok(())
}

/// Who may follow it.
fn user(config: &Config, channel: &ChannelKey) -> Result<String, Failure> {
    let refused = |why: String| Err(Failure::Other(why.into()));
    let kind = channel.kind();
    match config.channels.rule(kind).map(|rule| rule.subscribe) {
        Some(Access::Own) => Ok(channel.id().to_owned()),
        Some(Access::Any | Access::Token | Access::Backend) => Ok(USER.to_owned()),
        Some(Access::None) => refused(format!("channels.{kind}.subscribe lets nobody in")),
        None => refused(format!("{kind:?} is no type of channel that is configured")),
    }
}

fn target(config: &Config) -> Result<Target, Failure> {
    let tls = match &config.server.tls {
        Some(files) => Endpoint::new(Some(files))
            .map_err(|fault| Failure::Other(fault.into()))?
            .own_client(),
        None => None,
    };
    Ok(Target::of_listener(config.server.listen, tls))
}
