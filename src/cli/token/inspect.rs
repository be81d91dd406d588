//! `fanfare token inspect`: what a token says, and whether it would be believed.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use fanfare::auth::{self, Authority};
use fanfare::clock::{self, Clock};
use fanfare::config::{self, Sources};
use serde_json::{Value, json};

use super::super::Failure;
use super::super::operator::Operator;

/// What is longer is no token.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub struct Inspect {
    /// The token; - reads it from stdin, where nobody on the machine can see it
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Ask the running server, which knows what was revoked
    #[arg(long)]
    ask: bool,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let token = match &*self.token {
            "-" => {
                let mut text = String::new();
                io::stdin()
                    .take(INPUT_BYTES_MAX)
                    .read_to_string(&mut text)?;
                text
            }
            given => given.to_owned(),
        };
        let token = token.trim();
        let (header, claims) = (part(token, 0), part(token, 1));
        let verdict = if self.ask {
            asked(sources, token)?
        } else {
            verified(sources, token)?
        };
        let mut out = io::stdout().lock();
        if self.json {
            let told = json!({"verdict": verdict, "header": header, "claims": claims});
            writeln!(out, "{told}")?;
        } else {
            let believed = if self.ask {
                ""
            } else {
                " (revocations are not looked at: --ask)"
            };
            writeln!(out, "verdict  {verdict}{believed}")?;
            writeln!(out, "header   {header}")?;
            for (name, value) in claims.as_object().into_iter().flatten() {
                let seconds = value
                    .as_u64()
                    .filter(|_| ["exp", "iat", "nbf"].contains(&&**name));
                match seconds {
                    Some(seconds) => {
                        let at = clock::rfc3339(seconds.saturating_mul(1000));
                        writeln!(out, "  {name:<10} {value} ({at})")?;
                    }
                    None => writeln!(out, "  {name:<10} {value}")?,
                }
            }
        }
        if verdict == "good" {
            Ok(())
        } else {
            Err(Failure::Other(
                format!("the token is not believed: {verdict}").into(),
            ))
        }
    }
}

/// By the keys of this configuration alone.
fn verified(sources: &Sources, token: &str) -> Result<String, Failure> {
    let config = config::load(sources)?;
    let secret = auth::keys::existing(&config.auth, &config.data_dir)
        .map_err(|error| Failure::Other(error.into()))?;
    let authority = Authority::new(&secret, &config.auth);
    Ok(match authority.verify(token, Clock::system().unix_ms()) {
        Ok(_) => "good".to_owned(),
        Err(refusal) => format!("{refusal} ({})", refusal.check()),
    })
}

/// By the running server.
fn asked(sources: &Sources, token: &str) -> Result<String, Failure> {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    match Operator::connect(sources)?.ask("/api/auth/wallet", &headers)? {
        Ok(_) => Ok("good".to_owned()),
        Err(refused) => Ok(refused.to_string()),
    }
}

/// A part of a token that is JSON, unverified.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
