//! The way to a Redis, whatever its topology: finds the servers that take writes, connects to them,
//! and says at once when there is none.
//!
//! The `redis` crate's own cluster and sentinel connections repeat commands by themselves after a
//! connection was lost, which would publish events twice, and do not tell which process answered,
//! which is what epochs are bound to (history.rs). So finding and routing are done here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::{Cmd, RedisError, Value};
use tokio::sync::{Notify, watch};

use super::address::{Address, Finding, Target};
use super::figures::Figures;
use super::scripts::Script;
use super::server::{OnPush, Refusal, Server};
use super::slot::{SLOTS, slot};
use super::{cluster, sentinel};
use crate::broker::figures::ServerFigures;
use crate::broker::{Error, Health};

/// The first pause before connecting again; doubled until [`PAUSE_MAX`], and jittered.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Commands that may be under way; one more is [`Error::Overloaded`].
const COMMANDS_MAX: usize = 16_384;
/// Bytes of commands that may be under way.
const BYTES_MAX: usize = 64 << 20;
/// How often a command is sent to where a cluster has moved its slot.
const REDIRECTIONS_MAX: u32 = 8;

/// What is done with one key or with keys of one slot.
pub(super) struct Call {
    script: Option<Script>,
    /// Of a command: its name and what stands before the key.
    name: &'static str,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn script(script: Script, keys: Vec<String>) -> Self {
        Self {
            script: Some(script),
            name: script.name(),
            keys,
            arguments: Vec::new(),
        }
    }

    /// `NAME KEY ARGUMENTS..`
    pub(super) fn command(name: &'static str, key: String) -> Self {
        Self {
            script: None,
            name,
            keys: vec![key],
            arguments: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn number(self, argument: u64) -> Self {
        self.arg(argument.to_string())
    }

    pub(super) fn slot(&self) -> u16 {
        slot(self.keys.first().map_or(&[], |key| key.as_bytes()))
    }

    /// What it is called in the metrics.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(String::len).sum();
        keys + self.arguments.iter().map(Vec::len).sum::<usize>() + 100
    }

    /// As `server` understands it.
    pub(super) fn cmd(&self, server: &Server) -> Cmd {
        match self.script {
            Some(script) => server.script(script, &self.keys, &self.arguments),
            None => {
                let mut cmd = redis::cmd(self.name);
                cmd.arg(&self.keys).arg(&self.arguments);
                cmd
            }
        }
    }
}

/// What a write waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// How many replicas must have it.
    pub(super) replicas: u32,
    /// How long they may take.
    pub(super) timeout: Duration,
}

/// The servers that take writes.
#[derive(Clone)]
pub(super) enum Routes {
    /// None: why, and whether it is useless to wait.
    Down(Arc<str>, bool),
    /// One for everything.
    One(Arc<Server>),
    /// By slot.
    Many(Arc<Cluster>),
}

/// The primaries of a cluster that are connected.
pub(super) struct Cluster {
    pub(super) servers: Vec<Arc<Server>>,
    /// Slot -> index of its server; [`NOBODY`] where there is none.
    pub(super) table: Box<[u16; SLOTS]>,
    /// What is missing, if something is.
    pub(super) lacks: Option<Arc<str>>,
}

pub(super) const NOBODY: u16 = u16::MAX;

/// A Redis. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

pub(super) struct Shared {
    pub(super) target: Target,
    on_push: OnPush,
    routes: RwLock<Routes>,
    /// Changes with the routes.
    changes: watch::Sender<u64>,
    /// Asks for another look at where the servers are.
    pub(super) nudge: Notify,
    in_flight: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    figures: Arc<Figures>,
    /// Whether writes wait for replicas.
    waits: bool,
}

impl Link {
    /// Begins to connect. Must be called on the runtime that is to look after the connections.
    pub(super) fn begin(
        target: Target,
        on_push: OnPush,
        figures: Arc<Figures>,
        waits: bool,
    ) -> Self {
        let link = Self(Arc::new(Shared {
            target,
            on_push,
            routes: RwLock::new(Routes::Down("not connected yet".into(), false)),
            changes: watch::channel(0).0,
            nudge: Notify::new(),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            figures,
            waits,
        }));
        tokio::spawn(keep_connected(Arc::clone(&link.0)));
        link
    }

    /// Waits until it is connected.
    ///
    /// # Errors
    /// Why it will not be, or is not after `patience`.
    pub(super) async fn connected(&self, patience: Duration) -> Result<(), Refusal> {
        let mut changes = self.changes();
        let up = async {
            loop {
                match self.routes() {
                    Routes::One(_) => return Ok(()),
                    Routes::Many(cluster) if cluster.lacks.is_none() => return Ok(()),
                    Routes::Down(cause, true) => return Err(Refusal::Unfit(cause.to_string())),
                    _ => {}
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(patience, up).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::Unreachable(match self.health() {
                Health::Down(cause) | Health::Degraded(cause) => cause,
                Health::Up => String::new(),
            })),
        }
    }

    pub(super) fn routes(&self) -> Routes {
        self.0.routes()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The server of a slot.
    pub(super) fn server(&self, slot: u16) -> Result<Arc<Server>, Error> {
        let server = match &*self.0.routes.read().unwrap_or_else(PoisonError::into_inner) {
            Routes::Down(..) => None,
            Routes::One(server) => Some(Arc::clone(server)),
            Routes::Many(cluster) => cluster
                .servers
                .get(usize::from(cluster.table[usize::from(slot)]))
                .cloned(),
        };
        server
            .filter(|server| !server.is_broken())
            .ok_or(Error::Unavailable)
    }

    pub(super) fn health(&self) -> Health {
        match &*self.0.routes.read().unwrap_or_else(PoisonError::into_inner) {
            Routes::Down(cause, _) => Health::Down(cause.to_string()),
            Routes::One(server) if server.is_broken() => {
                Health::Down(format!("{} does not answer", server.address))
            }
            Routes::One(_) => Health::Up,
            Routes::Many(cluster) => match &cluster.lacks {
                Some(cause) if cluster.servers.is_empty() => Health::Down(cause.to_string()),
                Some(cause) => Health::Degraded(cause.to_string()),
                None => Health::Up,
            },
        }
    }

    /// Whether pub/sub goes by the slot here.
    pub(super) fn can_shard(&self) -> bool {
        match &*self.0.routes.read().unwrap_or_else(PoisonError::into_inner) {
            Routes::Many(cluster) => cluster.servers.iter().all(|server| server.can_shard),
            _ => false,
        }
    }

    /// Looks where the servers are.
    pub(super) fn look_again(&self) {
        self.0.nudge.notify_one();
    }

    /// What the servers say of themselves; those that are not among the `known` are looked at more closely.
    pub(super) async fn figures(&self, known: &[ServerFigures]) -> Vec<ServerFigures> {
        let servers = match self.routes() {
            Routes::Down(..) => Vec::new(),
            Routes::One(server) => vec![server],
            Routes::Many(cluster) => cluster.servers.clone(),
        };
        let mut figures = Vec::new();
        for server in servers {
            let Some((one, policy)) = server.figures().await else {
                continue;
            };
            let is_new = !known.iter().any(|other| other.server == one.server);
            if is_new && one.max_bytes > 0 && policy != "noeviction" {
                tracing::warn!(
                    server = one.server,
                    policy,
                    "maxmemory-policy lets Redis throw away what is remembered: \
                     set it to noeviction"
                );
            }
            figures.push(one);
        }
        figures
    }

    /// Commands that are under way.
    pub(super) fn depth(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Sends a call to the server of its keys, once: again only where it is certain that the server
    /// has not carried it out.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, Error> {
        self.call_for(call, None).await
    }

    /// The same, answered when replicas have it.
    pub(super) async fn call_for(&self, call: &Call, wait: Option<Wait>) -> Result<Value, Error> {
        let _held = self.hold(call.bytes())?;
        // Only what it took: nothing is decided by it.
        let began = tokio::time::Instant::now();
        let outcome = self.routed(call, wait).await;
        let failed = outcome.is_err();
        self.0
            .figures
            .answered(call.name(), began.elapsed(), failed);
        outcome
    }

    async fn routed(&self, call: &Call, wait: Option<Wait>) -> Result<Value, Error> {
        let slot = call.slot();
        let mut server = self.server(slot)?;
        let mut is_asking = false;
        for attempt in 1..=REDIRECTIONS_MAX {
            let cmd = call.cmd(&server);
            let mut replicas = None;
            let answer = if is_asking {
                let answers = server.ask_all(vec![redis::cmd("ASKING"), cmd]).await;
                answers.and_then(|mut answers| answers.pop().unwrap_or_default().extract_error())
            } else if let Some(wait) = wait {
                let answers = server.ask_waiting(cmd, wait).await;
                answers.and_then(|mut answers| {
                    replicas = answers.pop();
                    answers.pop().unwrap_or_default().extract_error()
                })
            } else {
                server.ask(&cmd).await
            };
            is_asking = false;
            let error = match answer {
                Ok(value) => match (wait, replicas) {
                    (None, _) => return Ok(value),
                    (Some(wait), Some(Value::Int(count))) if count >= wait.replicas.into() => {
                        return Ok(value);
                    }
                    (Some(_), _) => {
                        self.0.figures.unreplicated.increment();
                        return Err(Error::Unavailable);
                    }
                },
                Err(error) => error,
            };
            match error.code() {
                Some("NOSCRIPT") => {
                    let Some(script) = call.script else {
                        return Err(Error::storage(error));
                    };
                    let reloaded = server.reload(script).await;
                    reloaded.map_err(|error| self.judge(&server, &error))?;
                }
                Some("MOVED" | "ASK") => {
                    is_asking = error.code() == Some("ASK");
                    self.0.nudge.notify_one();
                    match error.redirect_node().and_then(|to| self.at(to)) {
                        Some(other) => server = other,
                        None => {
                            tokio::time::sleep(Duration::from_millis(20 * u64::from(attempt)))
                                .await;
                            server = self.server(slot)?;
                        }
                    }
                }
                Some("TRYAGAIN") => {
                    tokio::time::sleep(Duration::from_millis(10 * u64::from(attempt))).await;
                }
                _ => return Err(self.judge(&server, &error)),
            }
        }
        Err(Error::Unavailable)
    }

    /// What an error means to callers, and to the server it came from.
    pub(super) fn judge(&self, server: &Server, error: &RedisError) -> Error {
        match error.code() {
            Some("OOM") => Error::Full,
            // It is no longer the one that takes writes.
            Some("READONLY" | "MASTERDOWN") => {
                server.mark_broken();
                self.0.nudge.notify_one();
                Error::Unavailable
            }
            Some("LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" | "BUSY") => {
                self.0.nudge.notify_one();
                Error::Unavailable
            }
            Some(_) => Error::storage(error),
            None if error.is_timeout() => Error::Unavailable,
            None if error.is_io_error() || error.is_connection_dropped() => {
                server.mark_broken();
                Error::Unavailable
            }
            None => Error::storage(error),
        }
    }

    /// Room for a command, as long as what is returned lives.
    fn hold(&self, bytes: usize) -> Result<Held<'_>, Error> {
        let commands = self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        let all = self.0.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        let held = Held {
            shared: &self.0,
            bytes,
        };
        if commands >= COMMANDS_MAX || all > BYTES_MAX {
            return Err(Error::Overloaded);
        }
        Ok(held)
    }

    /// The connected server at an address.
    fn at(&self, (host, port): (&str, u16)) -> Option<Arc<Server>> {
        let Routes::Many(cluster) = self.routes() else {
            return None;
        };
        let is_it = |server: &&Arc<Server>| {
            server.address.host == host && server.address.port == port && !server.is_broken()
        };
        cluster.servers.iter().find(is_it).cloned()
    }
}

struct Held<'a> {
    shared: &'a Shared,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn routes(&self) -> Routes {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn show(&self, routes: Routes) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = routes;
        self.changes.send_modify(|change| *change += 1);
    }

    pub(super) async fn connect(&self, address: &Address) -> Result<Arc<Server>, Refusal> {
        let server =
            Server::connect(&self.target, address, Arc::clone(&self.on_push), self.waits).await?;
        self.figures.connections.increment();
        let (address, version) = (&server.address, &server.version);
        tracing::info!(server = %address, version, "connected to Redis");
        Ok(server)
    }
}

/// Connects, watches, and connects again, for ever.
async fn keep_connected(shared: Arc<Shared>) {
    let mut pause = Pause::default();
    loop {
        let outcome = match &shared.target.finding {
            Finding::Given(address) => one(&shared, address, &mut pause).await,
            Finding::Sentinels { sentinels, master } => {
                sentinel::follow(&shared, sentinels, master, &mut pause).await
            }
            Finding::Cluster(seeds) => cluster::follow(&shared, seeds, HashMap::new()).await,
        };
        let cause: Arc<str> = outcome.cause().into();
        tracing::debug!(%cause, "no connection to Redis");
        shared.show(Routes::Down(cause, matches!(outcome, Refusal::Unfit(_))));
        pause.wait().await;
    }
}

/// Keeps to one server until it breaks.
async fn one(shared: &Arc<Shared>, address: &Address, pause: &mut Pause) -> Refusal {
    let server = match shared.connect(address).await {
        Ok(server) => server,
        Err(refusal) => return refusal,
    };
    pause.reset();
    if server.is_cluster {
        let seeds = [address.clone()];
        let known = HashMap::from([(address.clone(), server)]);
        return cluster::follow(shared, &seeds, known).await;
    }
    shared.show(Routes::One(Arc::clone(&server)));
    server.broken().await;
    Refusal::Unreachable(format!("the connection to {address} was lost"))
}

/// What is waited before the next attempt.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) async fn wait(&mut self) {
        let longest = (PAUSE_MIN * 2u32.saturating_pow(self.0)).min(PAUSE_MAX);
        self.0 = (self.0 + 1).min(8);
        // Half of it at least: many nodes must not come at the same moment.
        let dice = (uuid::Uuid::new_v4().as_u128() & 0xffff) as u32;
        tokio::time::sleep(longest / 2 + longest / 2 * dice / 0x1_0000).await;
    }
}
