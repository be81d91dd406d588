//! `fanfare token revoke`: takes tokens back on the running server, and so on all nodes.

use std::io::{self, Write};

use clap::Args;
use fanfare::config::Sources;
use serde_json::json;

use super::super::Failure;
use super::super::operator::Operator;

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false)]
pub struct What {
    /// One token, by its claim `jti`
    #[arg(long, value_name = "ID")]
    jti: Option<String>,

    /// All tokens of a user
    #[arg(long, value_name = "ID")]
    user: Option<String>,

    /// All tokens of one sign-in and its refreshes, by their claim `family`
    #[arg(long, value_name = "ID")]
    family: Option<String>,
}

#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    what: What,

    /// Only those of the user that were issued before this time (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["jti", "family"])]
    before: Option<String>,
}

impl Revoke {
    pub fn run(&self, sources: &Sources) -> Result<(), Failure> {
        let What { jti, user, family } = &self.what;
        let mut body = json!({});
        let members = [
            ("jti", jti),
            ("userId", user),
            ("family", family),
            ("before", &self.before),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        Operator::connect(sources)?.post("/api/auth/revoke", &body, &[])?;
        writeln!(io::stdout().lock(), "revoked")?;
        Ok(())
    }
}
