//! The configuration as the server uses it: validated, typed, with every default filled in.
//!
//! [`load`] makes it in two passes from [`Sources`]: `raw` takes down what is written where, `load`
//! finds out what it means. The manual, `config.toml`, is built in and is the layer of defaults.

mod alerts;
mod difference;
mod keys;
mod layers;
mod live;
mod load;
mod mistake;
mod raw;
mod reader;
mod redis;
mod secret;
mod signing;
mod sources;
mod suggest;
mod traces;
mod urls;
mod values;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::tls;

use crate::key_pair::{Algorithm, KeyPair};
use crate::trace::{Sampling, Target};
pub use difference::{Change, Difference, in_force};
pub use keys::MANUAL;
pub use live::Live;
pub use load::{Loaded, inspect, load};
pub use mistake::{Mistake, Mistakes};
pub use raw::Origin;
pub use reader::Setting;
pub use secret::Secret;
pub use sources::{Flag, Sources};

/// Everything that can be configured. Contract section 1; `config.toml` is the manual.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--dev`: a laptop, loopback only, wallets are believed.
    pub dev: bool,
    /// `server.*`
    pub server: Server,
    /// `data_dir`: the database and the generated secret.
    pub data_dir: PathBuf,
    /// `auth.*`
    pub auth: Auth,
    /// `broker.*`
    pub broker: Broker,
    /// `control.socket`; `None` is off.
    pub control_socket: Option<PathBuf>,
    /// `alerts.*`
    pub alerts: Alerts,
    /// `alerts.canary_interval`; `None` is off.
    pub canary: Option<Duration>,
    /// `traces.*`; `None`: no receiver is given.
    pub traces: Option<Traces>,
    /// `metrics.*`
    pub metrics: Metrics,
    /// `logs.*`
    pub logs: Logs,
    /// `stats.console_interval`; `None` is off.
    pub console_interval: Option<Duration>,
    /// `channels.*`
    pub channels: ChannelRules,
    /// `channels.backend.*`; `None`: no URL is given.
    pub access_backend: Option<AccessBackend>,
    /// `limits.*`
    pub limits: Limits,
}

/// `server.*`
#[derive(Debug, Clone)]
pub struct Server {
    /// Where HTTP and WebSockets are served.
    pub listen: SocketAddr,
    /// Connection threads, at least 1 (0 in the file became the number of cores).
    pub workers: usize,
    /// What browsers use, without a trailing slash; empty if not told.
    pub public_url: String,
    /// Which origins browsers may come from.
    pub allowed_origins: AllowedOrigins,
    /// Whose `X-Forwarded-For` and `X-Real-IP` count.
    pub trusted_proxies: Vec<IpNet>,
    /// Over how long a stop spreads its disconnects.
    pub shutdown_grace: Duration,
    /// Whether `/test/jwt-websocket` is served.
    pub test_page: bool,
    /// `server.tls.*`; `None`: plain.
    pub tls: Option<tls::Files>,
}

/// `server.allowed_origins`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Any.
    Any,
    /// The host that the request names, and these (`scheme://host[:port]`, lower case); requests
    /// without `Origin` always pass.
    SameHostAnd(Vec<String>),
}

/// `auth.*`
#[derive(Debug, Clone)]
pub struct Auth {
    /// The HS256 key, 32 bytes at least; `None`: one is generated and kept in `data_dir`.
    pub secret: Option<Secret>,
    /// The secret before this one, and until when it still counts.
    pub previous_secret: Option<(Secret, u64)>,
    /// Keys beside the secret.
    pub keys: Vec<NamedKey>,
    /// Which of `keys` signs; `None`: the secret.
    pub signing_key: Option<String>,
    /// Whose tokens are believed, too.
    pub issuers: Vec<Issuer>,
    /// `iss` of every token.
    pub issuer: String,
    /// `aud` of every token.
    pub audience: String,
    /// Life of an access token.
    pub token_ttl: TokenTtl,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
    /// How long it is remembered that tokens were revoked of which nobody says when they end.
    pub revocation_ttl: Duration,
    /// How long a sign-in can be refreshed at most.
    pub refresh_ttl_max: Duration,
    /// How long a refresh token whose reply was lost gives the same successor again.
    pub refresh_grace: Duration,
    /// What a wallet has to show.
    pub wallet_proof: WalletProof,
    /// What a wallet shows its owner before they sign: one line.
    pub statement: String,
    /// The chain that wallets of Solana are asked for.
    pub solana_chain: &'static str,
    /// The chain that wallets of Ethereum are asked for.
    pub ethereum_chain: u64,
    /// Whether a wallet seen first creates its user.
    pub auto_provision: bool,
    /// Whether `x-user-wallet` and `?wallet=` count as identity.
    pub legacy_wallet_identity: bool,
    /// What backends may present, as SHA-256.
    pub api_keys: Vec<[u8; 32]>,
}

/// `auth.token_ttl`: one life for all tokens, or a trial of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenTtl {
    /// All live so long.
    One(Duration),
    /// Two at least, no ttl twice.
    Variants(Vec<TtlVariant>),
}

/// Of a trial, what a part of the users gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtlVariant {
    /// `30m`: the claim, and the label of metrics.
    pub name: String,
    /// The life of its tokens.
    pub ttl: Duration,
    /// Its part, of the sum of all; at least 1.
    pub weight: u32,
}

impl TokenTtl {
    /// The longest that a token lives.
    pub fn longest(&self) -> Duration {
        match self {
            Self::One(ttl) => *ttl,
            Self::Variants(variants) => {
                let ttls = variants.iter().map(|variant| variant.ttl);
                ttls.max().unwrap_or_default()
            }
        }
    }
}

/// `auth.keys.KID.*`
#[derive(Debug, Clone)]
pub struct NamedKey {
    /// Its name in tokens.
    pub kid: String,
    /// The key.
    pub pair: KeyPair,
    /// Until when it counts, in milliseconds since 1970; `None`: for good.
    pub until_unix_ms: Option<u64>,
}

/// `auth.issuers.NAME.*`: somebody else who signs tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// For logs and metrics.
    pub name: String,
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens.
    pub audience: String,
    /// Where its keys are published: `https`, or this machine.
    pub jwks_url: String,
    /// What it may sign with; at least one.
    pub algorithms: Vec<Algorithm>,
    /// Who is believed to sign its certificate, beside whom this machine believes: PEM.
    pub authorities: Option<Vec<u8>>,
}

/// `auth.wallet_proof`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalletProof {
    /// A signed challenge.
    Signature,
    /// None: whoever names an address is its owner.
    None,
}

/// `alerts.*`: thresholds; zero switches an alert off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Refusals within a minute.
    pub auth_failures_per_minute: u32,
    /// Percent of a mailbox.
    pub queue_percent: u8,
    /// Percent of `limits.store_bytes`.
    pub store_percent: u8,
    /// How long broker or store may be down.
    pub broker_down: Duration,
    /// How long before its end a certificate is to be renewed.
    pub certificate: Duration,
    /// What a round trip may take.
    pub canary_latency: Duration,
    /// How long all has to be well.
    pub clear_after: Duration,
    /// Who is told.
    pub webhook: Option<AlertWebhook>,
}

/// `alerts.webhook_*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertWebhook {
    /// `http` or `https`, without credentials.
    pub url: String,
    /// What is signed with, 32 bytes at least.
    pub secret: Option<Secret>,
    /// Who is believed to sign its certificate, beside whom this machine believes: PEM.
    pub authorities: Option<Vec<u8>>,
}

/// `traces.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Where they go.
    pub target: Target,
    /// What is recorded.
    pub sampling: Sampling,
}

/// `broker.*`
#[derive(Debug, Clone)]
pub struct Broker {
    /// What connects the nodes and keeps the data.
    pub backend: Backend,
    /// `broker.redis.*`
    pub redis: Redis,
}

/// `broker.backend`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// This process, with one file.
    Embedded,
    /// A Redis that several nodes share.
    Redis,
}

/// `broker.redis.*`
#[derive(Debug, Clone)]
pub struct Redis {
    /// One server, nodes of a cluster, or sentinels; may hold a password.
    pub url: Secret,
    /// A Redis of its own for pub/sub, if it is another.
    pub pubsub_url: Option<Secret>,
    /// What every key and pub/sub channel starts with.
    pub prefix: String,
    /// Certificates in PEM that are trusted instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Replicas that must have a write before it is answered; 0: none.
    pub wait_replicas: u32,
    /// How long is waited for them.
    pub wait_timeout: Duration,
}

/// `metrics.*`
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where `/stats` and `/metrics` are served.
    pub listen: SocketAddr,
    /// `metrics.tls.*`; `None`: plain.
    pub tls: Option<tls::Files>,
    /// What a scraper may present, as SHA-256; empty: it need not.
    pub tokens: Vec<[u8; 32]>,
}

/// `logs.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Folder of the daily event logs.
    pub dir: PathBuf,
    /// Days that are kept, today included; at least 1.
    pub keep_days: u32,
    /// How large the log of a day may become.
    pub day_bytes: u64,
    /// What its file system must have left; 0: nothing.
    pub free_bytes: u64,
    /// What diagnostics on stderr show, as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
}

/// `channels.*`: a rule per channel type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRules(pub BTreeMap<String, ChannelRule>);

/// What clients may do with the channels of one type, and what these keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRule {
    /// Who may subscribe.
    pub subscribe: Access,
    /// Which clients may publish (backends always may).
    pub publish: Access,
    /// How much history is kept; `None`: none.
    pub history: Option<Retention>,
    /// Whether it is known who is there.
    pub presence: bool,
    /// Whether subscribers are told who comes and goes. Only with `presence`.
    pub join_leave: bool,
    /// What becomes of events that a subscriber does not take.
    pub slow: Slow,
}

/// What becomes of a channel's events when a subscriber's socket takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slow {
    /// They wait, and whoever lets too much wait is closed with 4102.
    #[default]
    Close,
    /// They wait; of what is too much or too old the oldest go, and the client is told of the gap.
    DropOldest,
    /// Only the newest waits, and the client is told of the gap.
    LatestOnly,
}

/// How much history a channel keeps. No `Retention` means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, at least 1.
    pub entries: usize,
    /// Age after which an event is forgotten.
    pub ttl: Duration,
    /// What a publisher waits for.
    pub durability: Durability,
}

/// When an event of a channel with history is answered and delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it is on disk: it survives the loss of the process and of the power.
    #[default]
    Commit,
    /// At once; on disk a tenth of a second later at most. A crash can take the events of that time,
    /// and ends the epoch of every relaxed channel. With an idempotency key it is a commit.
    Relaxed,
}

/// Who may do a thing with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone with a token.
    Any,
    /// The user whose id is the channel's ID.
    Own,
    /// Whose token names the channel in its `channels` claim.
    Token,
    /// Whom the application's backend allows it, asked each time or remembered for a while.
    Backend,
    /// No client.
    None,
}

/// `channels.backend.*`: whom the rule `backend` asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessBackend {
    /// `http` or `https`, without credentials.
    pub url: String,
    /// What questions are signed with, 32 bytes at least.
    pub secret: Secret,
    /// How long an answer may take.
    pub timeout: Duration,
    /// For how long an answer is remembered; zero: not at all.
    pub cache_ttl: Duration,
    /// Who is believed to sign its certificate, beside whom this machine believes: PEM.
    pub authorities: Option<Vec<u8>>,
}

impl ChannelRules {
    /// The rule for channels of this type, if it is built in or configured.
    pub fn rule(&self, kind: &str) -> Option<&ChannelRule> {
        self.0.get(kind)
    }

    /// A channel of this user's own, of the first type that lets it subscribe without asking anybody: for
    /// clients of the server's own. Its token has to name it.
    pub fn open_channel(&self, user: &str) -> Option<String> {
        let lets = |access| matches!(access, Access::Own | Access::Token | Access::Any);
        let (kind, _) = self.0.iter().find(|(_, rule)| lets(rule.subscribe))?;
        Some(format!("{kind}_{user}"))
    }

    /// What becomes of events of the channels of this type that a subscriber does not take.
    pub fn slow(&self, kind: &str) -> Slow {
        self.rule(kind).map_or(Slow::Close, |rule| rule.slow)
    }

    /// Whether it is known who is in the channels of this type.
    pub fn has_presence(&self, kind: &str) -> bool {
        self.rule(kind).is_some_and(|rule| rule.presence)
    }
}

/// `limits.*`; for counts and sizes, 0 in the file is `usize::MAX` or `u64::MAX` here: no limit.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets on this node (0 in the file: nine tenths of the file descriptors, found at start).
    pub connections: usize,
    /// Sockets of one user.
    pub connections_per_user: usize,
    /// Sockets of one address (IPv6: of one /64).
    pub connections_per_address: usize,
    /// Upgrades a second on this node.
    pub accepts_per_second: u32,
    /// Sign-in requests a minute of one address.
    pub sign_in_per_minute: u32,
    /// HTTP requests a second of one address.
    pub requests_per_second: u32,
    /// Commands a second of one socket; five times that in a burst.
    pub commands_per_second: u32,
    /// Whether what is too many or too fast is only counted and logged.
    pub dry_run: bool,
    /// A WebSocket message.
    pub message_bytes: usize,
    /// A published event.
    pub event_bytes: usize,
    /// A request body.
    pub body_bytes: usize,
    /// Subscriptions of one socket.
    pub channels_per_connection: usize,
    /// A channel's key.
    pub channel_key_bytes: usize,
    /// Outgoing bytes that wait for one socket.
    pub queue_bytes: usize,
    /// How long anything may wait for one socket.
    pub queue_age: Duration,
    /// For the head of a request.
    pub header_timeout: Duration,
    /// For its body.
    pub body_timeout: Duration,
    /// Notifications that one user can have.
    pub notifications_per_user: usize,
    /// The database.
    pub store_bytes: u64,
    /// Recent events of all channels, in memory.
    pub history_bytes: u64,
}
