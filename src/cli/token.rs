//! `fanfare token`: an access token without a wallet, for scripts and trials; what one says; taking one back.

mod inspect;
mod revoke;

use std::io::{self, Write};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use fanfare::auth::keys::SecretError;
use fanfare::auth::{self, Authority, Issued, TokenSubject};
use fanfare::clock::{self, Clock};
use fanfare::config::{self, Config, Flag, Sources};
use fanfare::protocol::ChannelKey;
use serde_json::json;

use super::Failure;

#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Token {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    issue: Option<Issue>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a token says, and whether it would be believed
    Inspect(inspect::Inspect),
    /// Take tokens back on the running server
    Revoke(revoke::Revoke),
}

#[derive(Debug, Args)]
struct Issue {
    /// The user's id (claims `userId` and `sub`)
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    user: String,

    /// The user's wallet address
    #[arg(long, value_name = "ADDRESS")]
    wallet: Option<String>,

    /// The user's nickname
    #[arg(long, value_name = "NAME")]
    nickname: Option<String>,

    /// How long it is good [default: auth.token_ttl]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// A channel that the token opens where the rule is "token": a key, or its start and a `*`; may be
    /// repeated
    #[arg(long = "channel", value_name = "KEY")]
    channels: Vec<String>,

    /// Print a JSON object with the token and its expiry instead of the bare token
    #[arg(long)]
    json: bool,
}

impl Token {
    pub fn run(self, sources: Sources) -> Result<(), Failure> {
        match (self.action, self.issue) {
            (Some(Action::Inspect(inspect)), _) => inspect.run(&sources),
            (Some(Action::Revoke(revoke)), _) => revoke.run(&sources),
            (None, Some(issue)) => issue.run(sources),
            (None, None) => Err(Failure::Other("--user is required".into())),
        }
    }
}

impl Issue {
    fn run(self, mut sources: Sources) -> Result<(), Failure> {
        // As the setting, so that it is held to the same bounds, and named with the other mistakes.
        sources.flags.extend(self.ttl.map(|ttl| Flag {
            name: "--ttl",
            key: "auth.token_ttl".to_owned(),
            value: Some(ttl),
        }));
        let config = config::load(&sources)?;
        for channel in self.channels.iter().filter(|key| !key.ends_with('*')) {
            ChannelKey::parse(channel, config.limits.channel_key_bytes).map_err(|error| {
                Failure::Other(format!("--channel {channel:?}: {error}").into())
            })?;
        }
        let subject = TokenSubject {
            user_id: self.user,
            wallet: self.wallet,
            nickname: self.nickname,
            channels: self.channels,
            family: None,
            ttl: None,
        };
        let issued = issue(&config, &subject, Clock::system().unix_ms())?;
        let mut out = io::stdout().lock();
        if self.json {
            let expires_at = clock::rfc3339(issued.expires_at_ms);
            let answer = json!({ "token": issued.token, "expiresAt": expires_at });
            writeln!(out, "{answer}")?;
        } else {
            writeln!(out, "{}", issued.token)?;
        }
        Ok(())
    }
}

/// Signs with the key that the server of this configuration uses; made now if there is none yet.
fn issue(config: &Config, subject: &TokenSubject, unix_ms: u64) -> Result<Issued, Failure> {
    let is_new = matches!(
        auth::keys::existing(&config.auth, &config.data_dir),
        Err(SecretError::Missing { .. })
    );
    if is_new {
        let folder = config.data_dir.display();
        eprintln!(
            "fanfare: made a signing key in {folder}: only a server that starts there believes this token"
        );
    }
    let secret = auth::keys::secret(&config.auth, &config.data_dir)
        .map_err(|error| Failure::Other(error.into()))?;
    Ok(Authority::new(&secret, &config.auth).issue(subject, unix_ms))
}
