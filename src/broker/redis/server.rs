//! One connection to one server: commands on one socket, pub/sub on another, both looked after.
//!
//! Never used again after it broke: the link makes a new one. So whoever holds a [`Server`] knows
//! which process it talks to, and what was asked of it was asked of nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, PushInfo, RedisError, RedisResult, Value};
use tokio::sync::Notify;

use super::address::{Address, Target};
use super::call::Wait;
use super::scripts::{SCRIPTS, Script};
use crate::broker::figures::ServerFigures;
use crate::clock::millis;

/// The oldest Redis that has what the scripts use.
pub(super) const VERSION_MIN: (u32, u32) = (6, 2);
/// Redis and Valkey have sharded pub/sub since their common 7.0.
const VERSION_SHARDED: (u32, u32) = (7, 0);
/// For the socket, TLS and the greeting together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one answer. Also what a cut-off server is noticed by.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often each connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Commands that wait to be written to a socket; more wait for them.
const PIPELINE_COMMANDS: usize = 1_024;

/// Sockets for writes that wait for replicas.
const WAITING_SOCKETS: usize = 4;

/// What is told of every pub/sub message: the server's number, and the message.
pub(super) type OnPush = Arc<dyn Fn(u64, PushInfo) + Send + Sync>;

/// A connected server.
pub(super) struct Server {
    /// Of this connection; no other one ever has it.
    pub(super) id: u64,
    pub(super) address: Address,
    /// Of the server's process. Another one means that it may have lost what the last one knew.
    pub(super) run_id: String,
    /// Whether it is part of a cluster.
    pub(super) is_cluster: bool,
    /// Whether its pub/sub can be sharded.
    pub(super) can_shard: bool,
    /// `redis` or `valkey`, and its version.
    pub(super) version: String,
    commands: MultiplexedConnection,
    pub(super) pubsub: MultiplexedConnection,
    /// For writes that wait for replicas: who waits holds up the socket's other commands.
    waiting: Vec<MultiplexedConnection>,
    next_waiting: AtomicUsize,
    /// Of each script, by its number.
    digests: Vec<String>,
    is_broken: AtomicBool,
    broke: Notify,
}

/// Why a server could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It may be better later.
    Unreachable(String),
    /// It will not get better by itself: another password, another version.
    Unfit(String),
    /// It holds what a migration has not finished.
    Unfinished,
}

impl Refusal {
    pub(super) fn cause(&self) -> &str {
        match self {
            Self::Unreachable(cause) | Self::Unfit(cause) => cause,
            Self::Unfinished => "it holds an unfinished migration",
        }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Server {
    /// Connects, and begins to look after it. What pub/sub brings goes to `on_push`.
    pub(super) async fn connect(
        target: &Target,
        address: &Address,
        on_push: OnPush,
        waits: bool,
    ) -> Result<Arc<Self>, Refusal> {
        let unreachable = || Refusal::Unreachable(format!("{address} does not answer"));
        let connecting = Self::greet(target, address, on_push, waits);
        let server = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| unreachable())??;
        let server = Arc::new(server);
        tokio::spawn(look_after(Arc::clone(&server)));
        Ok(server)
    }

    async fn greet(
        target: &Target,
        address: &Address,
        on_push: OnPush,
        waits: bool,
    ) -> Result<Self, Refusal> {
        let refusal = |error: RedisError| refusal(address, &error);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let client = target.client(address).map_err(refusal)?;
        let config = || {
            AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None)
                .set_pipeline_buffer_size(PIPELINE_COMMANDS)
        };
        let mut commands = client
            .get_multiplexed_async_connection_with_config(&config())
            .await
            .map_err(refusal)?;
        let about = info(&mut commands, "server").await.map_err(refusal)?;
        let version = field(&about, "redis_version").unwrap_or_default();
        let numbers = numbers(version);
        if numbers < VERSION_MIN {
            let (major, minor) = VERSION_MIN;
            return Err(Refusal::Unfit(format!(
                "{address} is Redis {version}; {major}.{minor} or later is needed"
            )));
        }
        let replication = info(&mut commands, "replication").await.map_err(refusal)?;
        if field(&replication, "role") != Some("master") {
            return Err(Refusal::Unreachable(format!("{address} is a replica")));
        }
        let mut digests = Vec::with_capacity(SCRIPTS.len());
        for (_, text) in SCRIPTS {
            digests.push(load(&mut commands, text).await.map_err(refusal)?);
        }
        let push = move |push: PushInfo| {
            on_push(id, push);
            Ok::<(), ()>(())
        };
        let pubsub = client
            .get_multiplexed_async_connection_with_config(&config().set_push_sender(push))
            .await
            .map_err(refusal)?;
        let mut waiting = Vec::new();
        for _ in 0..if waits { WAITING_SOCKETS } else { 0 } {
            let config = config();
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            waiting.push(connecting.await.map_err(refusal)?);
        }
        let version = match field(&about, "valkey_version") {
            Some(version) => format!("valkey {version}"),
            None => format!("redis {version}"),
        };
        Ok(Self {
            id,
            address: address.clone(),
            run_id: field(&about, "run_id").unwrap_or_default().to_owned(),
            is_cluster: is_cluster(&about),
            can_shard: numbers >= VERSION_SHARDED,
            version,
            commands,
            pubsub,
            waiting,
            next_waiting: AtomicUsize::new(0),
            digests,
            is_broken: AtomicBool::new(false),
            broke: Notify::new(),
        })
    }

    /// A call of a script of this server: `EVALSHA DIGEST COUNT KEYS.. RUN_ID ARGUMENTS..`
    pub(super) fn script(&self, script: Script, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&self.digests[script as usize])
            .arg(keys.len())
            .arg(keys)
            .arg(&self.run_id)
            .arg(arguments);
        cmd
    }

    /// Loads a script that the server has forgotten.
    pub(super) async fn reload(&self, script: Script) -> RedisResult<()> {
        let mut connection = self.commands.clone();
        let (_, text) = SCRIPTS[script as usize];
        load(&mut connection, text).await.map(drop)
    }

    /// Asks one thing.
    pub(super) async fn ask(&self, cmd: &Cmd) -> RedisResult<Value> {
        let mut connection = self.commands.clone();
        answered(cmd.query_async(&mut connection)).await
    }

    /// Asks several things in one round trip; each answer may be an error of its own.
    pub(super) async fn ask_all(&self, cmds: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        let mut connection = self.commands.clone();
        answered(pipeline(cmds).query_async(&mut connection)).await
    }

    /// Asks several things, and then how many replicas have what they changed.
    pub(super) async fn ask_waiting(
        &self,
        mut cmds: Vec<Cmd>,
        wait: Wait,
    ) -> RedisResult<Vec<Value>> {
        let turn = self.next_waiting.fetch_add(1, Ordering::Relaxed);
        let socket = self.waiting.get(turn % self.waiting.len().max(1));
        let mut connection = socket.unwrap_or(&self.commands).clone();
        let mut waiting = redis::cmd("WAIT");
        waiting.arg(wait.replicas).arg(millis(wait.timeout));
        cmds.push(waiting);
        answered(pipeline(cmds).query_async(&mut connection)).await
    }

    /// The same as [`Server::ask_all`] over the pub/sub socket.
    pub(super) async fn ask_pubsub(&self, cmds: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        let mut connection = self.pubsub.clone();
        answered(pipeline(cmds).query_async(&mut connection)).await
    }

    /// What it says of itself, and its `maxmemory-policy`.
    pub(super) async fn figures(&self) -> Option<(ServerFigures, String)> {
        let mut connection = self.commands.clone();
        let memory = answered(info(&mut connection, "memory")).await.ok()?;
        let stats = answered(info(&mut connection, "stats")).await.ok()?;
        let number = |info: &str, name: &str| field(info, name)?.parse().ok();
        let figures = ServerFigures {
            server: self.address.to_string(),
            used_bytes: number(&memory, "used_memory")?,
            max_bytes: number(&memory, "maxmemory")?,
            evicted_keys: number(&stats, "evicted_keys")?,
        };
        Some((figures, field(&memory, "maxmemory_policy")?.to_owned()))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Gives it up.
    pub(super) fn mark_broken(&self) {
        if !self.is_broken.swap(true, Ordering::AcqRel) {
            self.broke.notify_waiters();
        }
    }

    /// Waits until it is given up.
    pub(super) async fn broken(&self) {
        let broke = self.broke.notified();
        if !self.is_broken() {
            broke.await;
        }
    }
}

/// Whether a server that says this of itself is part of a cluster. Valkey calls it `server_mode`.
fn is_cluster(about: &str) -> bool {
    let mode = field(about, "redis_mode").or_else(|| field(about, "server_mode"));
    mode == Some("cluster")
}

fn pipeline(cmds: Vec<Cmd>) -> redis::Pipeline {
    let mut pipeline = redis::Pipeline::with_capacity(cmds.len());
    pipeline.ignore_errors();
    for cmd in cmds {
        pipeline.add_command(cmd);
    }
    pipeline
}

async fn answered<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| {
            Err(RedisError::from(std::io::Error::from(
                std::io::ErrorKind::TimedOut,
            )))
        })
}

/// Asks both sockets once a second, and gives the server up at the first silence.
async fn look_after(server: Arc<Server>) {
    let ping = redis::cmd("PING");
    while !server.is_broken() {
        tokio::select! {
            () = tokio::time::sleep(PING_INTERVAL) => {}
            () = server.broken() => return,
        }
        let (mut commands, mut pubsub) = (server.commands.clone(), server.pubsub.clone());
        let pings = async {
            tokio::try_join!(
                ping.query_async::<Value>(&mut commands),
                ping.query_async::<Value>(&mut pubsub)
            )
        };
        if let Err(error) = answered(pings).await {
            tracing::debug!(%error, server = %server.address, "no answer to PING");
            server.mark_broken();
        }
    }
}

pub(super) async fn info(
    connection: &mut MultiplexedConnection,
    section: &str,
) -> RedisResult<String> {
    redis::cmd("INFO")
        .arg(section)
        .query_async(connection)
        .await
}

async fn load(connection: &mut MultiplexedConnection, text: &str) -> RedisResult<String> {
    let mut cmd = redis::cmd("SCRIPT");
    cmd.arg("LOAD").arg(text).query_async(connection).await
}

/// Whether a server throws keys away when it is full.
pub(super) fn may_evict(policy: &str, max_bytes: u64) -> bool {
    max_bytes > 0 && policy != "noeviction"
}

/// A field of what `INFO` says.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim_end)
}

pub(super) fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn refusal(address: &Address, error: &RedisError) -> Refusal {
    // The library's texts name commands and causes, never what was sent.
    let cause = format!("{address}: {error}");
    let is_unfit = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::InvalidClientConfig
            | ErrorKind::RESP3NotSupported
    ) || matches!(error.code(), Some("NOPERM" | "NOAUTH" | "WRONGPASS"));
    if is_unfit {
        Refusal::Unfit(cause)
    } else {
        Refusal::Unreachable(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_numbers() {
        assert!(numbers("6.0.20") < VERSION_MIN);
        assert!(numbers("6.2.0") >= VERSION_MIN);
        assert!(numbers("10.0.1") >= VERSION_SHARDED);
        assert_eq!(numbers("nonsense"), (0, 0));
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:ab\r\n";
        assert_eq!(field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(field(info, "run"), None);
    }

    #[test]
    fn a_cluster_of_valkey_is_one_as_well() {
        assert!(is_cluster("redis_version:7.0.15\r\nredis_mode:cluster\r\n"));
        assert!(is_cluster(
            "valkey_version:9.1.2\r\nserver_mode:cluster\r\n"
        ));
        assert!(!is_cluster("redis_mode:standalone\r\n"));
        assert!(!is_cluster("server_mode:standalone\r\n"));
    }
}
