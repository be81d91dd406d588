//! The parts of the server, built in order: what a later one needs is there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;

use super::backend::Backend;
use super::certificates::Certificates;
use super::{App, Failure, roster};
use crate::access_backend::AccessBackend;
use crate::auth::issuers::Issuers;
use crate::auth::keys;
use crate::clock::Clock;
use crate::config::{Config, Live};
use crate::event_log::EventLog;
use crate::http::{Parts, Services};
use crate::metrics::hour::{self, Hour};
use crate::metrics::server::{self, Door};
use crate::metrics::{Bounds, Counters, Observed};
use crate::peers::Peers;
use crate::presence::Presence;
use crate::router::Router;
use crate::router::notices::keep_revocations;
use crate::session::Terms;
use crate::stopwatch;
use crate::supervisor::Supervisor;
use crate::trace::{Exporter, Tracer};
use crate::worker::mailbox::{Control, Inbound, Mailbox, mailbox};
use crate::worker::{self, Outfit};

/// How long a worker may take to say that it lives, before that is the figure.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Builds them all.
pub(super) fn build(
    config: Config,
    address: SocketAddr,
    metrics: TcpListener,
    clock: Clock,
    runtime: &tokio::runtime::Runtime,
) -> Result<App, Failure> {
    let started = clock.now();
    let certificates = Certificates::new(&config)?;
    let live = Live::new(config);
    let config = live.current();
    create_data_dir(&config.data_dir)?;
    let secret = keys::secret(&config.auth, &config.data_dir)?;
    let (event_log, event_log_guard) =
        EventLog::open(&config.logs, clock.clone()).map_err(|source| Failure::EventLog {
            path: config.logs.dir.clone(),
            source,
        })?;
    let counters = Arc::new(Counters::new(config.server.workers));
    let node: Arc<str> = uuid::Uuid::new_v4().simple().to_string()[..8].into();
    let backend = Backend::open(&config, &live, &node, clock.clone())?;
    let (broker, store) = (backend.broker(), backend.store());
    let (mailboxes, inbounds) = (0..config.server.workers).map(|_| mailbox()).unzip();
    let mailboxes: Vec<_> = mailboxes;
    let router = Arc::new(Router::new(mailboxes, counters.clone()));
    let _ = router.node.set(node.clone());
    let presence = Presence::new(
        broker.clone(),
        live.clone(),
        counters.clone(),
        clock.clone(),
        runtime.handle().clone(),
    );
    let access_backend = access_backend(&config, &clock, &counters, runtime.handle())?;
    let issuers = Issuers::start(
        &config.auth.issuers,
        &Issuers::default(),
        &clock,
        &counters,
        runtime.handle(),
    );
    let issuers = issuers.map_err(Failure::Issuers)?;
    let peers = Peers::new(
        router.clone(),
        node.clone(),
        broker.clone(),
        store.clone(),
        backend.is_shared(),
    );
    let (tracer, spans) = Tracer::new(counters.spans.clone());
    let services = Arc::new(Services::new(Parts {
        live,
        tls: certificates.server.clone(),
        secret,
        issuers,
        clock: clock.clone(),
        broker: broker.clone(),
        store: store.clone(),
        counters: counters.clone(),
        event_log: event_log.clone(),
        node: node.clone(),
        router: router.clone(),
        presence,
        peers: peers.clone(),
        tracer: Arc::new(tracer),
        access_backend,
    }));
    let exporter = {
        let _entered = runtime.enter();
        let live = services.live.clone();
        let target = move || Some(live.current().traces.as_ref()?.target.clone());
        Exporter::start(spans, &node, target)
    };

    runtime
        .block_on(broker.start(router.clone()))
        .map_err(Failure::Broker)?;
    let known = runtime
        .block_on(router.revocations.load(&*store))
        .map_err(Failure::Revocations)?;
    if known > 0 {
        tracing::info!(known, "revocations are in force");
    }
    runtime.spawn(keep_revocations(
        router.clone(),
        store.clone(),
        clock.clone(),
    ));
    if peers.is_shared() {
        runtime.spawn(peers.clone().keep());
        runtime.spawn(peers.answer());
    }
    let workers = spawn_workers(inbounds, &services, &router).map_err(Failure::Thread)?;

    let (of_channels, of_queues, of_services) = (router.clone(), router.clone(), services.clone());
    let of_limits = services.clone();
    let observed = Arc::new(Observed {
        counters,
        clock: clock.clone(),
        started,
        node,
        version: env!("CARGO_PKG_VERSION"),
        store,
        broker,
        redis: backend.redis_figures(),
        event_log: event_log.clone(),
        channels: Box::new(move || of_channels.interest.counts()),
        queues: Box::new(move || {
            of_queues
                .mailboxes()
                .iter()
                .map(|one| one.depth())
                .collect()
        }),
        certificates: {
            let certificates = certificates.clone();
            Box::new(move || certificates.ends())
        },
        draining: Box::new(move || of_services.is_draining()),
        bounds: Box::new(move || {
            let limits = &of_limits.config().limits;
            Bounds {
                connections: limits.connections,
                store_bytes: limits.store_bytes,
            }
        }),
    });
    let hour = Arc::<Hour>::default();
    let of_probes = router.clone();
    let probe = Box::new(move || probe(&of_probes));
    let sampler = hour::start(hour.clone(), observed.clone(), probe).map_err(Failure::Thread)?;
    let door = Door {
        tls: certificates.metrics.clone(),
        config: services.live.clone(),
    };
    let roster = roster::of(router.clone(), observed.node.clone());
    let metrics = server::start(metrics, door, observed.clone(), hour, roster);
    let metrics = metrics.map_err(Failure::Thread)?;
    Ok(App {
        clock,
        backend,
        services,
        router,
        workers,
        supervisor: Supervisor::of_process(),
        address,
        metrics,
        sampler,
        certificates,
        observed,
        event_log,
        exporter,
        _event_log_guard: event_log_guard,
    })
}

/// How long each worker takes to come to what is put into its mailbox, in microseconds.
fn probe(router: &Router) -> Vec<u64> {
    let ask = |mailbox: &Mailbox| {
        let (reply, replied) = std::sync::mpsc::sync_channel(1);
        let began = stopwatch::nanos();
        let _ = mailbox.control(Control::Probe(reply));
        let _ = replied.recv_timeout(PROBE_TIMEOUT);
        (stopwatch::nanos() - began) / 1_000
    };
    router.mailboxes().iter().map(ask).collect()
}

fn spawn_workers(
    inbounds: Vec<Inbound>,
    services: &Arc<Services>,
    router: &Arc<Router>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let terms = Arc::new(Terms::of(&services.config(), services.node.clone()));
    let serials = Arc::new(AtomicU64::new(1));
    inbounds
        .into_iter()
        .enumerate()
        .map(|(index, inbound)| {
            let outfit = Outfit {
                index,
                terms: terms.clone(),
                services: services.clone(),
                router: router.clone(),
                counters: services.counters.workers[index].clone(),
                serials: serials.clone(),
            };
            worker::spawn(outfit, inbound)
        })
        .collect()
}

/// Whom the rule `backend` asks, if anybody.
pub(super) fn access_backend(
    config: &Config,
    clock: &Clock,
    counters: &Arc<Counters>,
    runtime: &Handle,
) -> Result<Option<AccessBackend>, Failure> {
    let backend = config.access_backend.as_ref().map(|backend| {
        AccessBackend::new(backend, clock.clone(), counters.clone(), runtime.clone())
    });
    backend.transpose().map_err(Failure::AccessBackend)
}

/// The database and the key are nobody else's business.
fn create_data_dir(path: &PathBuf) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Failure::Folder {
            path: path.clone(),
            source,
        })
}
