//! The life of the server: builds the parts in order, owns them, drains them in reverse.

mod backend;
mod certificates;
mod end;
mod failure;
mod listeners;
mod parts;
mod reload;
mod roster;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::auth::{api_key, keys};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Sources};
use crate::control::{self, Asked};
use crate::event_log::{self, Data, EventLog, Kind};
use crate::http::Services;
use crate::metrics::Observed;
use crate::metrics::hour::Sampler;
use crate::metrics::server;
use crate::router::Router;
use crate::shutdown::{Signals, Wish};
use crate::supervisor::Supervisor;
use crate::trace::Exporter;
use crate::{acceptor, alerts, descriptors, welcome};
use backend::Backend;
use certificates::Certificates;
use end::one_ends;
pub use failure::Failure;
use failure::with_causes;
use listeners::Listeners;
use parts::{access_backend, build};
use reload::{Reload, Surroundings};

/// Requests of the control socket that wait for this thread.
const COMMANDS_WAITING: usize = 16;

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

/// The signing key, where it is a file of ours.
fn generated_secret(config: &Config) -> Vec<(&'static str, PathBuf)> {
    match config.auth.secret {
        Some(_) => Vec::new(),
        None => vec![(keys::FILE_NAME, config.data_dir.join(keys::FILE_NAME))],
    }
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
        let descriptors = reload.descriptors();
        let mut accepting = Box::pin(acceptor::run(listener, router, services, descriptors));
        let commands = self.commands();
        self.supervisor.ready(&self.status());
        let until = tokio::select! {
            error = &mut accepting => Err(Failure::Thread(error)),
            () = one_ends(&self.workers) => Err(Failure::Worker),
            () = self.backend.ends() => Err(Failure::StoreEnded),
            never = self.watch() => match never {},
            never = self.certificates.watch(&self.clock, &self.event_log) => match never {},
            by = self.heed(&mut signals, commands, &mut reload) => Ok(by),
        };
        let by = match until {
            Ok(by) => by,
            Err(failure) => {
                drop(accepting);
                self.end(reload).await;
                return Err(failure);
            }
        };
        self.services.draining.store(true, Ordering::Relaxed);
        let sockets = self.router.load();
        tracing::info!(by, sockets, "stopping");
        self.supervisor
            .stopping(&format!("stopping: {sockets} sockets are told"));
        tokio::select! {
            () = self.drain(accepting) => {}
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
                    Wish::Reopen => self.reopen_logs(),
                },
                Some(Asked::Reload(reply)) = commands.recv() => {
                    // Whoever asked may have given up.
                    let _ = reply.send(reload.answer(self));
                }
            }
        }
    }

    /// For whoever has moved them away.
    fn reopen_logs(&self) {
        let logs = &self.services.config().logs;
        let path = logs.dir.display();
        match self.event_log.renew(logs) {
            Ok(()) => tracing::info!(%path, "the event log was opened anew"),
            Err(error) => {
                tracing::error!(%path, %error, "the event log cannot be opened anew; it goes on in the old file")
            }
        }
    }
}
