//! The life of the server: builds the parts in order, owns them, drains them in reverse.

mod backend;
mod certificates;
mod reload;
mod roster;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::access_backend::AccessBackend;
use crate::auth::issuers::Issuers;
use crate::auth::{api_key, keys};
use crate::broker::{embedded, redis};
use crate::clock::{Clock, millis};
use crate::config::{Config, Live, Loaded, Sources};
use crate::control::{self, Asked};
use crate::event_log::{self, Data, EventLog, Kind};
use crate::http::{Parts, Services};
use crate::limits::CLOSE_TIMEOUT_MS;
use crate::metrics::hour::{self, Hour, Sampler};
use crate::metrics::server::{self, Door};
use crate::metrics::{Bounds, Counters, Observed};
use crate::peers::Peers;
use crate::presence::Presence;
use crate::router::Router;
use crate::router::notices::keep_revocations;
use crate::session::Terms;
use crate::shutdown::{Signals, Wish};
use crate::supervisor::{Inherited, NotASocket, Supervisor};
use crate::tls;
use crate::trace::{Exporter, Tracer};
use crate::worker::mailbox::{Control, Inbound, Mailbox, mailbox};
use crate::worker::{self, Outfit};
use crate::{acceptor, alerts, descriptors, stopwatch, welcome};
use backend::Backend;
use certificates::Certificates;
use reload::{Reload, Surroundings};

/// How often it is looked whether the workers still live.
const WORKER_CHECK: Duration = Duration::from_secs(1);
/// How often a stop looks whether the workers have ended.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// Requests of the control socket that wait for this thread.
const COMMANDS_WAITING: usize = 16;
/// How long a worker may take to say that it lives, before that is the figure.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing the store may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A folder that is needed could not be made.
    #[error("cannot create {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signing key could not be read or made.
    #[error("the signing key")]
    Secret(#[from] keys::SecretError),
    /// The event log could not be opened.
    #[error("the event log in {path}")]
    EventLog {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database could not be opened.
    #[error("the database")]
    Store(#[from] embedded::OpenError),
    /// There is no Redis to work with.
    #[error("broker.redis")]
    Redis(#[from] redis::OpenError),
    /// The certificate of a listener cannot be used.
    #[error("{listener}.tls")]
    Tls {
        /// Whose.
        listener: &'static str,
        /// Why.
        source: tls::Fault,
    },
    /// The service manager handed over what cannot be served.
    #[error("a socket that was handed over")]
    Inherited(#[from] NotASocket),
    /// An address could not be bound.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread, runtime or signal handler could not be set up.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Nobody could be asked by the rule `backend`.
    #[error("channels.backend.url")]
    AccessBackend(#[source] io::Error),
    /// The keys of other issuers could not be asked for.
    #[error("auth.issuers")]
    Issuers(#[source] io::Error),
    /// A worker thread ended by itself: it panicked.
    #[error("a worker thread ended; the server cannot go on without it")]
    Worker,
    /// Which tokens are revoked could not be read.
    #[error("the revocations")]
    Revocations(#[source] crate::broker::Error),
    /// The broker could not start.
    #[error("the broker")]
    Broker(#[source] crate::broker::Error),
}

/// The running parts, in the order in which they were built.
struct App {
    clock: Clock,
    backend: Backend,
    services: Arc<Services>,
    router: Arc<Router>,
    workers: Vec<JoinHandle<()>>,
    supervisor: Supervisor,
    /// Where it is served.
    address: SocketAddr,
    metrics: server::Handle,
    sampler: Sampler,
    certificates: Certificates,
    observed: Arc<Observed>,
    event_log: EventLog,
    exporter: Exporter,
    /// Dropped last: writes out what was recorded.
    _event_log_guard: event_log::Guard,
}

/// Serves until a signal stops it.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn serve(loaded: Loaded, sources: Sources, clock: Clock) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Thread)?;
    // First of all: whoever stops or signals this process from now on is heard.
    let signals = {
        let _entered = runtime.enter();
        Signals::listen().map_err(Failure::Thread)?
    };
    let Loaded {
        mut config,
        changed: settings,
        ..
    } = loaded;
    let dev_key = config.dev.then(welcome::dev_api_key);
    let surroundings = Surroundings {
        descriptors: descriptors::raise_limit(),
        dev_api_key: dev_key
            .as_ref()
            .map(|key| api_key::fingerprint(key.as_bytes())),
    };
    surroundings.fit(&mut config);

    let listeners = Listeners::open(&config)?;
    listeners.compare(&config);
    let Listeners { server, metrics } = listeners;
    let address = server.local_addr().unwrap_or(config.server.listen);
    let (app, _entered) = (
        build(config, address, metrics, clock, &runtime)?,
        runtime.enter(),
    );
    let reload = Reload::new(sources, settings, surroundings, &app).map_err(Failure::Thread)?;
    let said = welcome::Said {
        address: app.address,
        metrics: app.metrics.local_addr(),
        metrics_secure: app.certificates.metrics.is_secure(),
        dev_api_key: dev_key.as_deref(),
    };
    welcome::say(&said, &app.services);
    app.event_log.record(
        Kind::Server,
        &Data {
            message: Some("started"),
            ..Data::default()
        },
    );
    alerts::canary::start(
        app.services.clone(),
        address,
        {
            let endpoint = app.certificates.server.clone();
            move || endpoint.own_client()
        },
        runtime.handle().clone(),
    )
    .map_err(Failure::Thread)?;
    runtime.spawn(alerts::run(alerts::Parts {
        live: app.services.live.clone(),
        clock: app.clock.clone(),
        observed: app.observed.clone(),
        event_log: app.event_log.clone(),
        fullest: {
            let router = app.router.clone();
            Box::new(move || router.fullest())
        },
    }));
    runtime.block_on(app.run(server, signals, reload))
}

/// The sockets that are listened on: handed over by the service manager, or bound here.
struct Listeners {
    server: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self, Failure> {
        let mut inherited = Inherited::of_process()?;
        let cannot = |key, address| {
            move |source| Failure::Listen {
                key,
                address,
                source,
            }
        };
        let (key, address) = ("server.listen", config.server.listen);
        let server = inherited
            .server()
            .map_or_else(|| acceptor::bind(address), Ok);
        let server = server.map_err(cannot(key, address))?;
        let (key, address) = ("metrics.listen", config.metrics.listen);
        let metrics = inherited
            .metrics()
            .map_or_else(|| server::bind(address), Ok);
        Ok(Self {
            server,
            metrics: metrics.map_err(cannot(key, address))?,
        })
    }

    /// Says so if a socket that was handed over is not where the setting says: changing the setting
    /// alone has no effect then.
    fn compare(&self, config: &Config) {
        for (key, wanted, listener) in [
            ("server.listen", config.server.listen, &self.server),
            ("metrics.listen", config.metrics.listen, &self.metrics),
        ] {
            match listener.local_addr() {
                Ok(held) if held != wanted && wanted.port() != 0 => tracing::warn!(
                    %held,
                    %wanted,
                    "{key}: the service manager holds another address; change its socket unit, too"
                ),
                _ => {}
            }
        }
    }
}

fn build(
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
        EventLog::open(&config.logs.dir, config.logs.keep_days, clock.clone()).map_err(
            |source| Failure::EventLog {
                path: config.logs.dir.clone(),
                source,
            },
        )?;
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

/// The signing key, where it is a file of ours.
fn generated_secret(config: &Config) -> Vec<(&'static str, PathBuf)> {
    match config.auth.secret {
        Some(_) => Vec::new(),
        None => vec![(keys::FILE_NAME, config.data_dir.join(keys::FILE_NAME))],
    }
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

impl App {
    /// Accepts until a signal comes, then takes everything down in reverse.
    async fn run(
        self,
        listener: TcpListener,
        mut signals: Signals,
        mut reload: Reload,
    ) -> Result<(), Failure> {
        let (router, services) = (self.router.clone(), self.services.clone());
        let commands = self.commands();
        let descriptors = reload.descriptors();
        self.supervisor.ready(&self.status());
        let until = tokio::select! {
            error = acceptor::run(listener, router, services, descriptors) => {
                Err(Failure::Thread(error))
            }
            () = one_ends(&self.workers) => Err(Failure::Worker),
            never = self.watch() => match never {},
            never = self.certificates.watch(&self.clock, &self.event_log) => match never {},
            by = self.heed(&mut signals, commands, &mut reload) => Ok(by),
        };
        let by = match until {
            Ok(by) => by,
            Err(failure) => {
                self.end(reload).await;
                return Err(failure);
            }
        };
        // The listener was dropped with the select: nobody new comes in.
        self.services.draining.store(true, Ordering::Relaxed);
        let sockets = self.router.load();
        tracing::info!(by, sockets, "stopping");
        self.supervisor
            .stopping(&format!("stopping: {sockets} sockets are told"));
        tokio::select! {
            () = self.drain() => {}
            again = signals.stop() => tracing::warn!(by = again, "stopping at once"),
        }
        self.end(reload).await;
        Ok(())
    }

    /// Serves the control socket; what it wants of this thread. A server without one serves all the same.
    fn commands(&self) -> mpsc::Receiver<Asked> {
        let (ask, asked) = mpsc::channel(COMMANDS_WAITING);
        let config = self.services.config();
        let Some(path) = config.control_socket.as_deref() else {
            return asked;
        };
        match control::bind(path) {
            Ok(socket) => {
                let parts = control::Parts {
                    services: self.services.clone(),
                    observed: self.observed.clone(),
                    embedded: self.backend.embedded(),
                    extras: generated_secret(&config),
                    ask,
                };
                tokio::spawn(control::run(socket, parts));
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%error, %path, "no control socket: commands cannot reach this server");
            }
        }
        asked
    }

    /// Does what signals and commands ask for, until one says to stop; its name.
    async fn heed(
        &self,
        signals: &mut Signals,
        mut commands: mpsc::Receiver<Asked>,
        reload: &mut Reload,
    ) -> &'static str {
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop(by) => return by,
                    // What is wrong has been said.
                    Wish::Reload => drop(reload.now(self)),
                },
                Some(Asked::Reload(reply)) = commands.recv() => {
                    // Whoever asked may have given up.
                    let _ = reply.send(reload.answer(self));
                }
            }
        }
    }

    /// Ends all connections, spread over the grace period.
    async fn drain(&self) {
        let grace_ms = millis(self.services.config().server.shutdown_grace);
        let until_ms = self.clock.now().mono_ms + grace_ms;
        for mailbox in self.router.mailboxes() {
            // A worker that has ended has nothing to drain.
            let _ = mailbox.control(Control::Drain { until_ms });
        }
        while self.workers.iter().any(|worker| !worker.is_finished()) {
            if self.clock.now().mono_ms > until_ms + CLOSE_TIMEOUT_MS {
                tracing::warn!(sockets = self.router.load(), "the grace period is over");
                return;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Stops what still runs: workers, broker and store, console, metrics, event log.
    async fn end(self, reload: Reload) {
        for mailbox in self.router.mailboxes() {
            let _ = mailbox.control(Control::Stop);
        }
        for worker in self.workers {
            // A worker that is stuck is left behind: the process ends all the same.
            for _ in 0..100 {
                if worker.is_finished() {
                    break;
                }
                tokio::time::sleep(DRAIN_POLL).await;
            }
            if worker.is_finished() && worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, async {
            self.services.peers.leave().await;
            self.backend.broker().close().await?;
            self.backend.store().close().await
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store did not close well"),
            Err(_) => tracing::error!("the store did not close in time"),
        }
        self.exporter.finish().await;
        drop(reload);
        self.event_log.record(
            Kind::Server,
            &Data {
                message: Some("stopped"),
                ..Data::default()
            },
        );
        drop(self.sampler);
        self.metrics.stop();
        tracing::info!("stopped");
    }
}

/// Waits until a worker has ended, which none does by itself. Its connections are gone then, and
/// what is left would go on accepting for it: better that the process is started again.
async fn one_ends(workers: &[JoinHandle<()>]) {
    while !workers.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(WORKER_CHECK).await;
    }
}

/// Whom the rule `backend` asks, if anybody.
fn access_backend(
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

/// An error with everything that led to it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_worker_is_noticed() {
        let (lives, dies) = (std::sync::mpsc::channel::<()>(), std::thread::spawn(|| {}));
        let worker = std::thread::spawn(move || {
            // Until the test is over.
            let _ = lives.1.recv();
        });
        let mut workers = vec![worker];
        let patience = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(patience, one_ends(&workers))
                .await
                .is_err()
        );
        while !dies.is_finished() {
            std::thread::yield_now();
        }
        workers.push(dies);
        assert!(
            tokio::time::timeout(patience, one_ends(&workers))
                .await
                .is_ok()
        );
    }
}
