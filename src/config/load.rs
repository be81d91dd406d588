//! The second pass: settings become a [`Config`], or every reason why not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::Layers;
use super::mistake::{Fault, Mistakes};
use super::raw::Value;
use super::reader::{Reader, Setting};
use super::sources::Sources;
use super::{
    Access, AccessBackend, Auth, ChannelRule, ChannelRules, Config, Durability, Limits, Logs,
    Metrics, Retention, Server, Slow, WalletProof,
};
use super::{signing, urls, values};
use crate::limits::WORKERS_MAX;
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// For waiting until a question can be asked and for its answer, each: both together and then some
/// are within `limits::CALL_TIMEOUT_MS`.
const ASKING: Duration = Duration::from_secs(4);
const KEEP_DAYS: u64 = 3_650;
/// Hot history lives in memory, so it has a bound of its own.
const HISTORY_ENTRIES: u64 = 100_000;

/// As the wallet standard names them.
const SOLANA_CHAINS: [(&str, &str); 8] = [
    ("mainnet", "mainnet"),
    ("testnet", "testnet"),
    ("devnet", "devnet"),
    ("localnet", "localnet"),
    ("solana:mainnet", "solana:mainnet"),
    ("solana:testnet", "solana:testnet"),
    ("solana:devnet", "solana:devnet"),
    ("solana:localnet", "solana:localnet"),
];
const WALLET_PROOFS: [(&str, WalletProof); 2] = [
    ("signature", WalletProof::Signature),
    ("none", WalletProof::None),
];

const DURABILITIES: [(&str, Durability); 2] = [
    ("commit", Durability::Commit),
    ("relaxed", Durability::Relaxed),
];

const SLOW: [(&str, Slow); 3] = [
    ("close", Slow::Close),
    ("drop_oldest", Slow::DropOldest),
    ("latest_only", Slow::LatestOnly),
];

const ACCESSES: [(&str, Access); 5] = [
    ("any", Access::Any),
    ("own", Access::Own),
    ("token", Access::Token),
    ("backend", Access::Backend),
    ("none", Access::None),
];

/// A configuration and how it came about, for `fanfare check`.
#[derive(Debug)]
pub struct Loaded {
    /// What the server runs with.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What is not at its default, by key.
    pub changed: Vec<Setting>,
}

/// The configuration that `sources` give.
///
/// # Errors
/// All mistakes of all sources, in the order file, environment, flags.
pub fn load(sources: &Sources) -> Result<Config, Mistakes> {
    inspect(sources).map(|loaded| loaded.config)
}

/// As [`load`], with the settings that are not at their defaults.
///
/// # Errors
/// As [`load`].
pub fn inspect(sources: &Sources) -> Result<Loaded, Mistakes> {
    let (layers, mistakes) = Layers::read(sources);
    let mut reader = Reader::new(layers, mistakes);
    let config = config(&mut reader, sources.dev);
    let Reader {
        mut mistakes,
        mut changed,
        ..
    } = reader;
    match config {
        Some(config) if mistakes.is_empty() => {
            changed.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(Loaded {
                config,
                file: sources.chosen_file().map(PathBuf::from),
                changed,
            })
        }
        _ => {
            mistakes.sort_by_key(|mistake| mistake.origin.as_ref().map(super::Origin::order));
            Err(Mistakes(mistakes))
        }
    }
}

/// Every section is read before the first `?`: a mistake in one must not hide those of the next.
pub(super) fn config(reader: &mut Reader, dev: bool) -> Option<Config> {
    let server = server(reader);
    let data_dir = reader.read("data_dir", values::folder);
    // Of all that is asked over https.
    let authorities = reader.read("outgoing.ca_file", values::certificates);
    let trusted = authorities.as_ref().and_then(Option::as_deref);
    let auth = auth(reader, trusted);
    let broker = super::redis::broker(reader);
    let metrics = metrics(reader);
    let control_socket = reader.read("control.socket", values::path_or_off);
    let alerts = super::alerts::alerts(reader, trusted);
    let traces = super::traces::traces(reader, trusted);
    let canary = reader.read("alerts.canary_interval", or_off(SECOND, HOUR));
    let logs = logs(reader);
    let console_interval = reader.read("stats.console_interval", or_off(SECOND, DAY));
    let channels = channels(reader);
    let access_backend = access_backend(reader, trusted);
    if let (Some(channels), Some(None)) = (&channels, &access_backend) {
        somebody_is_asked(reader, channels);
    }
    let limits = limits(reader);
    if let (Some(server), Some(metrics)) = (&server, &metrics) {
        listeners_fit(reader, dev, server.listen, metrics.listen);
    }
    let data_dir = data_dir?;
    authorities?;
    Some(Config {
        dev,
        server: server?,
        control_socket: control_socket?.map(|path| match path.as_os_str().is_empty() {
            true => data_dir.join("control.sock"),
            false => path,
        }),
        data_dir,
        auth: auth?,
        alerts: alerts?,
        canary: canary?,
        traces: traces?,
        broker: broker?,
        metrics: metrics?,
        logs: logs?,
        console_interval: console_interval?,
        channels: channels?,
        access_backend: access_backend?,
        limits: limits?,
    })
}

fn server(reader: &mut Reader) -> Option<Server> {
    let listen = reader.read("server.listen", values::socket_address);
    let workers = reader.read("server.workers", values::count(0, WORKERS_MAX as u64));
    let public_url = reader.read("server.public_url", urls::public);
    let allowed_origins = reader.read("server.allowed_origins", urls::origins);
    let trusted_proxies = reader.read("server.trusted_proxies", values::list(values::network));
    let shutdown_grace = reader.read(
        "server.shutdown_grace",
        values::duration(Duration::ZERO, 10 * MINUTE),
    );
    let test_page = reader.read("server.test_page", values::boolean);
    let tls = tls(reader, "server");
    Some(Server {
        listen: listen?,
        workers: match workers? {
            0 => {
                std::thread::available_parallelism().map_or(1, |cores| cores.get().min(WORKERS_MAX))
            }
            workers => usize::try_from(workers).unwrap_or(1),
        },
        public_url: public_url?,
        allowed_origins: allowed_origins?,
        trusted_proxies: trusted_proxies?,
        shutdown_grace: shutdown_grace?,
        test_page: test_page?,
        tls: tls?,
    })
}

/// The certificate of a listener. Looked into here, so that what is wrong with it is told with all the rest.
fn tls(reader: &mut Reader, listener: &str) -> Option<Option<tls::Files>> {
    let [cert, key] = ["cert", "key"].map(|file| format!("{listener}.tls.{file}"));
    let (cert_file, key_file) = (
        reader.read(&cert, values::path)?,
        reader.read(&key, values::path)?,
    );
    let files = match (cert_file, key_file) {
        (None, None) => return Some(None),
        (Some(cert), Some(key)) => tls::Files { cert, key },
        (alone, _) => {
            let (given, missing) = if alone.is_some() {
                (&cert, &key)
            } else {
                (&key, &cert)
            };
            let fault = Fault::new("is of no use alone", format!("{missing} beside it"));
            reader.reject(given, fault);
            return None;
        }
    };
    let accepted =
        "a certificate in a file of PEM, with those that lead to its root, and its key in another";
    match files.check() {
        Ok(()) => {
            reader.note_content(&cert, files.content());
            Some(Some(files))
        }
        Err(fault) => {
            let (key, problem) = match fault {
                tls::Fault::Cert(problem) => (cert, problem),
                tls::Fault::Key(problem) => (key, problem),
            };
            reader.reject(&key, Fault::new(problem, accepted));
            None
        }
    }
}

fn metrics(reader: &mut Reader) -> Option<Metrics> {
    let listen = reader.read("metrics.listen", values::socket_address);
    let tls = tls(reader, "metrics");
    let tokens = reader.api_keys("metrics.token");
    Some(Metrics {
        listen: listen?,
        tls: tls?,
        tokens: tokens?,
    })
}

fn auth(reader: &mut Reader, authorities: Option<&[u8]>) -> Option<Auth> {
    let secret = reader.secret("auth.secret");
    let previous_secret = signing::previous_secret(reader);
    let (keys, signing_key) = signing::keys(reader);
    let issuer = reader.read("auth.issuer", values::name);
    let audience = reader.read("auth.audience", values::name);
    let issuers = signing::issuers(reader, audience.as_deref(), authorities);
    let token_ttl = reader.read("auth.token_ttl", signing::token_ttl);
    let refresh_ttl = reader.read("auth.refresh_ttl", values::duration(SECOND, 365 * DAY));
    let refresh_ttl_max = reader.read(
        "auth.refresh_ttl_max",
        values::duration(SECOND, 10 * 365 * DAY),
    );
    let refresh_grace = reader.read("auth.refresh_grace", values::duration(Duration::ZERO, HOUR));
    let revocation_ttl = reader.read(
        "auth.revocation_ttl",
        values::duration(SECOND, 10 * 365 * DAY),
    );
    let wallet_proof = reader.read("auth.wallet_proof", values::word(&WALLET_PROOFS));
    let statement = reader.read("auth.statement", values::statement);
    let solana_chain = reader.read("auth.solana_chain", values::word(&SOLANA_CHAINS));
    let ethereum_chain = reader.read("auth.ethereum_chain", values::count(1, u64::MAX / 2 - 36));
    let auto_provision = reader.read("auth.auto_provision", values::boolean);
    let legacy = reader.read("auth.legacy_wallet_identity", values::boolean);
    let api_keys = reader.api_keys("auth.api_keys");
    Some(Auth {
        secret: secret?,
        previous_secret: previous_secret?,
        keys: keys?,
        signing_key: signing_key?,
        issuers: issuers?,
        issuer: issuer?,
        audience: audience?,
        token_ttl: token_ttl?,
        refresh_ttl: refresh_ttl?,
        refresh_ttl_max: refresh_ttl_max?,
        revocation_ttl: revocation_ttl?,
        refresh_grace: refresh_grace?,
        wallet_proof: wallet_proof?,
        statement: statement?,
        solana_chain: solana_chain?,
        ethereum_chain: ethereum_chain?,
        auto_provision: auto_provision?,
        legacy_wallet_identity: legacy?,
        api_keys: api_keys?,
    })
}

fn logs(reader: &mut Reader) -> Option<Logs> {
    let dir = reader.read("logs.dir", values::folder);
    let keep_days = reader.read("logs.keep_days", values::count(1, KEEP_DAYS));
    let day_bytes = reader.read("logs.day_bytes", values::size);
    let free_bytes = reader.read("logs.free_bytes", values::size);
    let level = reader.read("logs.level", values::log_filter);
    Some(Logs {
        dir: dir?,
        keep_days: u32::try_from(keep_days?).unwrap_or(u32::MAX),
        day_bytes: day_bytes?,
        free_bytes: match free_bytes? {
            u64::MAX => 0,
            bytes => bytes,
        },
        level: level?,
    })
}

fn channels(reader: &mut Reader) -> Option<ChannelRules> {
    let kinds = reader.layers.names("channels.");
    let rules: Vec<Option<(String, ChannelRule)>> = kinds
        .into_iter()
        .map(|kind| {
            let rule = channel(reader, &kind)?;
            Some((kind, rule))
        })
        .collect();
    let rules: Option<BTreeMap<_, _>> = rules.into_iter().collect();
    rules.map(ChannelRules)
}

fn channel(reader: &mut Reader, kind: &str) -> Option<ChannelRule> {
    let key = |field| format!("channels.{kind}.{field}");
    let subscribe = reader.read(&key("subscribe"), values::word(&ACCESSES));
    let publish = reader.read(&key("publish"), values::word(&ACCESSES));
    let history = reader.read(&key("history"), values::count(0, HISTORY_ENTRIES));
    let ttl = reader.read(&key("history_ttl"), values::duration(SECOND, 365 * DAY));
    let durability = reader.read(&key("durability"), values::word(&DURABILITIES));
    let presence = reader.read(&key("presence"), values::boolean);
    let join_leave = reader.read(&key("join_leave"), values::boolean);
    let slow = reader.read(&key("slow"), values::word(&SLOW));
    if (presence, join_leave) == (Some(false), Some(true)) {
        let accepted = format!("{} = true beside it", key("presence"));
        let fault = Fault::new("tells who comes and goes, which is not known", accepted);
        reader.reject(&key("join_leave"), fault);
    }
    let (history, ttl, durability) = (history?, ttl?, durability?);
    Some(ChannelRule {
        subscribe: subscribe?,
        publish: publish?,
        history: (history > 0).then(|| Retention {
            entries: usize::try_from(history).unwrap_or(usize::MAX),
            ttl,
            durability,
        }),
        presence: presence?,
        join_leave: join_leave?,
        slow: slow?,
    })
}

fn access_backend(
    reader: &mut Reader,
    authorities: Option<&[u8]>,
) -> Option<Option<AccessBackend>> {
    let url = reader.read("channels.backend.url", urls::callback);
    let secret = reader.secret("channels.backend.secret");
    let timeout = reader.read(
        "channels.backend.timeout",
        values::duration(Duration::from_millis(100), ASKING),
    );
    let cache_ttl = reader.read(
        "channels.backend.cache_ttl",
        values::duration(Duration::ZERO, DAY),
    );
    let (url, secret, timeout, cache_ttl) = (url?, secret?, timeout?, cache_ttl?);
    if url.is_empty() {
        return Some(None);
    }
    let Some(secret) = secret else {
        let problem = "is asked without a signature, and everybody could have asked";
        let accepted = "channels.backend.secret or channels.backend.secret_file beside it";
        reader.reject("channels.backend.url", Fault::new(problem, accepted));
        return None;
    };
    Some(Some(AccessBackend {
        url,
        secret,
        timeout,
        cache_ttl,
        authorities: authorities.map(<[u8]>::to_vec),
    }))
}

/// A rule that asks a backend needs one.
fn somebody_is_asked(reader: &mut Reader, channels: &ChannelRules) {
    for (kind, rule) in &channels.0 {
        for (field, access) in [("subscribe", rule.subscribe), ("publish", rule.publish)] {
            if access == Access::Backend {
                let problem = "asks a backend, and there is none to ask";
                let fault = Fault::new(problem, "channels.backend.url and its secret beside it");
                reader.reject(&format!("channels.{kind}.{field}"), fault);
            }
        }
    }
}

fn limits(reader: &mut Reader) -> Option<Limits> {
    // The one whose 0 is not "unlimited": the descriptors are counted at start.
    let connections = reader.read("limits.connections", values::count(0, u64::from(u32::MAX)));
    let per_user = reader.read("limits.connections_per_user", values::limit);
    let per_address = reader.read("limits.connections_per_address", values::limit);
    let accepts = reader.read("limits.accepts_per_second", values::rate);
    let sign_in = reader.read("limits.sign_in_per_minute", values::rate);
    let requests = reader.read("limits.requests_per_second", values::rate);
    let commands = reader.read("limits.commands_per_second", values::rate);
    let dry_run = reader.read("limits.dry_run", values::boolean);
    let message_bytes = reader.read("limits.message_bytes", values::size_in_memory);
    let event_bytes = reader.read("limits.event_bytes", values::size_in_memory);
    let body_bytes = reader.read("limits.body_bytes", values::size_in_memory);
    let channels = reader.read("limits.channels_per_connection", values::limit);
    let channel_key_bytes = reader.read("limits.channel_key_bytes", values::size_in_memory);
    let queue_bytes = reader.read("limits.queue_bytes", values::size_in_memory);
    let queue_age = reader.read("limits.queue_age", values::timeout);
    let header_timeout = reader.read("limits.header_timeout", values::timeout);
    let body_timeout = reader.read("limits.body_timeout", values::timeout);
    let notifications = reader.read("limits.notifications_per_user", values::limit);
    let store_bytes = reader.read("limits.store_bytes", values::size);
    let history_bytes = reader.read("limits.history_bytes", values::size);
    Some(Limits {
        connections: usize::try_from(connections?).unwrap_or(usize::MAX),
        connections_per_user: per_user?,
        connections_per_address: per_address?,
        accepts_per_second: accepts?,
        sign_in_per_minute: sign_in?,
        requests_per_second: requests?,
        commands_per_second: commands?,
        dry_run: dry_run?,
        message_bytes: message_bytes?,
        event_bytes: event_bytes?,
        body_bytes: body_bytes?,
        channels_per_connection: channels?,
        channel_key_bytes: channel_key_bytes?,
        queue_bytes: queue_bytes?,
        queue_age: queue_age?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        notifications_per_user: notifications?,
        store_bytes: store_bytes?,
        history_bytes: history_bytes?,
    })
}

/// What no listener can see alone: `--dev` is for loopback, and two cannot have one port.
fn listeners_fit(reader: &mut Reader, dev: bool, server: SocketAddr, metrics: SocketAddr) {
    for (key, listen) in [("server.listen", server), ("metrics.listen", metrics)] {
        if dev && !listen.ip().is_loopback() {
            let problem = "is not a loopback address, and --dev believes everybody who can connect";
            let loopback = SocketAddr::from(([127, 0, 0, 1], listen.port()));
            let accepted = format!("a loopback address, such as \"{loopback}\", or no --dev");
            reader.reject(key, Fault::new(problem, accepted));
        }
    }
    if server == metrics && server.port() != 0 {
        let fault = Fault::new("is the address of server.listen too", "another port");
        reader.reject("metrics.listen", fault);
    }
}

/// A duration whose 0 is "off".
fn or_off(least: Duration, most: Duration) -> impl Fn(&Value) -> Result<Option<Duration>, Fault> {
    move |value| {
        let off = values::duration(Duration::ZERO, Duration::ZERO)(value).is_ok();
        if off {
            return Ok(None);
        }
        let duration = values::duration(least, most)(value).map(Some);
        duration.map_err(|fault| Fault {
            accepted: format!("{}, or \"0s\" for never", fault.accepted),
            ..fault
        })
    }
}

/// The keys that are asked for, when nothing but the manual is read.
#[cfg(test)]
pub(super) fn asked() -> std::collections::BTreeSet<String> {
    let (layers, mistakes) = Layers::read(&Sources::default());
    let mut reader = Reader::new(layers, mistakes);
    config(&mut reader, false);
    reader.asked
}
