//! The way to a Redis, whatever its topology: which servers take writes, or at once that none does.
//! connecting.rs finds them, sending.rs uses them.
//!
//! The `redis` crate's own cluster and sentinel connections repeat commands by themselves after a
//! connection was lost, which would publish events twice, and do not tell which process answered,
//! which is what epochs are bound to (history.rs). So finding and routing are done here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::address::{Address, Target};
use super::connecting::keep_connected;
use super::figures::Figures;
use super::server::{OnPush, Refusal, Server, may_evict};
use super::slot::SLOTS;
use crate::broker::figures::ServerFigures;
use crate::broker::{Error, Health};

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

impl Routes {
    /// Why not everything can be reached.
    fn lack(&self) -> Option<Arc<str>> {
        match self {
            Self::Down(cause, _) => Some(Arc::clone(cause)),
            Self::One(_) => None,
            Self::Many(cluster) => cluster.lacks.clone(),
        }
    }
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
pub(super) struct Link(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) target: Target,
    on_push: OnPush,
    routes: RwLock<Routes>,
    /// Changes with the routes.
    changes: watch::Sender<u64>,
    /// Asks for another look at where the servers are.
    pub(super) nudge: Notify,
    /// Commands and bytes of them that are under way.
    pub(super) in_flight: AtomicUsize,
    pub(super) in_flight_bytes: AtomicUsize,
    pub(super) figures: Arc<Figures>,
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
            if is_new && may_evict(&policy, one.max_bytes) {
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
}

impl Shared {
    pub(super) fn routes(&self) -> Routes {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn show(&self, routes: Routes) {
        let now = routes.lack();
        let mut shown = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        // A start says by itself what it waits for.
        if let (None, Some(cause)) = (shown.lack(), now) {
            tracing::warn!(%cause, "Redis is away, or a part of it: asking again until it is back");
        }
        *shown = routes;
        drop(shown);
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
