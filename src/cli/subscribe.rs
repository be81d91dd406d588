//! `fanfare subscribe`: follows a channel in the terminal, as one of its clients.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use fanfare::config::{self, Sources};
use fanfare::probe::{Problem, Socket, Target};
use fanfare::tls::own_client;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Failure;
use super::operator::{self, Operator, Refused};

/// For opening the socket and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The server pings more often than this.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "\
Every event is a line of JSON on stdout, as clients get it; everything else is on stderr. The server
is asked for a token over its control socket: the owner's, where a channel has one. When the
connection ends, the command comes back for what it missed. Ctrl-C ends it.")]
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
        let socket = operator::socket(&config)?;
        let mut position = Value::Null;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut was_in = false;
        while left > 0 {
            let followed = self
                .come_in(&socket, config.server.listen)
                .map_err(Ended::Server)
                .and_then(|way| follow(&way, &mut position, &mut left, &mut was_in));
            match followed {
                Ok(()) => {}
                // The first time, what is wrong is most likely here to stay.
                Err(Ended::Server(failure)) if !was_in => return Err(failure),
                Err(Ended::Socket(problem)) if !was_in => {
                    return Err(Failure::Unreachable(problem.to_string()));
                }
                // It answers, and would say the same again.
                Err(Ended::Server(Failure::Other(error))) if error.is::<Refused>() => {
                    return Err(Failure::Other(error));
                }
                Err(Ended::Server(_)) => std::thread::sleep(PAUSE),
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

    /// Asks the server for a token, and how to speak with its listener.
    fn come_in(&self, socket: &Path, listening: SocketAddr) -> Result<Way, Failure> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("channel", &self.channel)
            .finish();
        let path = format!("/control/follow?{query}");
        let told = Operator::to(socket)?.post(&path, &Value::Null, &[])?;
        let unlike = || Failure::Other("the server's answer is not understood".into());
        let word = |key: &str| told[key].as_str().map(str::to_owned);
        let certificate = word("certificate").map(|text| BASE64_STANDARD.decode(text));
        let certificate = certificate.transpose().map_err(|_| unlike())?;
        let tls = certificate.map(|der| own_client(der.into()).ok_or_else(unlike));
        Ok(Way {
            target: Target::of_listener(listening, tls.transpose()?),
            token: word("token").ok_or_else(unlike)?,
            channel: word("channel").ok_or_else(unlike)?,
        })
    }
}

/// How to get in, once.
struct Way {
    target: Target,
    token: String,
    channel: String,
}

/// Why a connection is no longer followed.
enum Ended {
    Server(Failure),
    Socket(Problem),
    Output(io::Error),
}

fn follow(way: &Way, position: &mut Value, left: &mut u64, was_in: &mut bool) -> Result<(), Ended> {
    let mut socket = Socket::open(&way.target, &way.token, PATIENCE).map_err(Ended::Socket)?;
    let answer = socket
        .subscribe_from(&way.channel, position)
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
        if meta["channel"] != way.channel.as_str() {
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
