//! The configuration, read again while the server runs: everything that can go wrong is done first, then
//! everything is put in force. What is wrong changes nothing.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{App, Failure};
use crate::auth::issuers::Issuers;
use crate::auth::{Authority, keys};
use crate::config::{self, Config, Difference, Loaded, Mistakes, Setting, Sources};
use crate::descriptors::Room;
use crate::event_log::{Data, Kind};
use crate::logging;
use crate::metrics::console;
use crate::session::Terms;
use crate::worker::mailbox::Control;

/// For the next worker to go by what is new.
const WORKERS_PATIENCE: Duration = Duration::from_millis(500);

/// What this start adds to every configuration.
pub(super) struct Surroundings {
    /// File descriptors that there may be.
    pub descriptors: usize,
    /// The fingerprint of the key that `--dev` printed.
    pub dev_api_key: Option<[u8; 32]>,
}

impl Surroundings {
    /// What is possible here of what was asked for.
    pub fn fit(&self, config: &mut Config) {
        let asked = config.limits.connections;
        let Room { connections, .. } = Room::of(self.descriptors, asked);
        if connections < asked {
            tracing::warn!(
                asked,
                connections,
                "limits.connections: there are too few file descriptors"
            );
        }
        config.limits.connections = connections;
        config.auth.api_keys.extend(self.dev_api_key);
    }
}

/// Reads the configuration again.
pub(super) struct Reload {
    sources: Sources,
    /// Those that are in force.
    settings: Vec<Setting>,
    surroundings: Surroundings,
    console: Option<console::Console>,
}

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    #[error(transparent)]
    Part(#[from] Failure),
}

impl Reload {
    /// Starts what a reload may start anew.
    pub fn new(
        sources: Sources,
        settings: Vec<Setting>,
        surroundings: Surroundings,
        app: &App,
    ) -> io::Result<Self> {
        Ok(Self {
            sources,
            settings,
            surroundings,
            console: start_console(app, &app.services.config())?,
        })
    }

    /// File descriptors that there may be.
    pub fn descriptors(&self) -> usize {
        self.surroundings.descriptors
    }

    /// Reads it, puts it in force if it is good, and says in the logs what came of it.
    pub fn now(&mut self, app: &App) -> Result<Difference, Refusal> {
        app.supervisor.reloading();
        let outcome = self.attempt(app);
        app.supervisor.ready(&app.status());
        let (outcome_name, message) = match &outcome {
            Ok(difference) => {
                tell(difference);
                ("applied", "reloaded")
            }
            Err(refusal) => {
                let refusal = super::with_causes(refusal);
                tracing::error!("reload: nothing was changed: {refusal}");
                ("refused", "reload refused")
            }
        };
        app.services.counters.reloads.increment(outcome_name);
        app.event_log.record(
            Kind::Server,
            &Data {
                message: Some(message),
                ..Data::default()
            },
        );
        outcome
    }

    /// The same, as a command is answered.
    pub fn answer(&mut self, app: &App) -> Value {
        match self.now(app) {
            Ok(Difference(changes)) => {
                let changes = changes.iter().map(|change| {
                    json!({
                        "key": change.key,
                        "before": change.before,
                        "after": change.after,
                        "needsRestart": change.needs_restart,
                        "text": change.to_string(),
                    })
                });
                json!({
                    "ok": true,
                    "changes": changes.collect::<Vec<_>>(),
                    "warnings": app.services.config().warnings(),
                })
            }
            Err(refusal) => json!({"ok": false, "error": super::with_causes(&refusal)}),
        }
    }

    fn attempt(&mut self, app: &App) -> Result<Difference, Refusal> {
        let services = &app.services;
        let before = services.config();
        let loaded = config::inspect(&self.sources)?;
        let (loaded, difference) = loaded.over(&before, &self.settings);
        let Loaded {
            mut config,
            changed: settings,
            ..
        } = loaded;
        self.surroundings.fit(&mut config);

        let secret = keys::secret(&config.auth, &config.data_dir).map_err(Failure::from)?;
        let issuers = Issuers::start(
            &config.auth.issuers,
            services.authority().issuers(),
            &services.clock,
            &services.counters,
            &Handle::current(),
        )
        .map_err(Failure::Issuers)?;
        let authority = Authority::new(&secret, &config.auth)
            .believing(issuers)
            .counting(services.counters.clone());
        let certificates = app.certificates.prepare(&config)?;
        let asks_another = config.access_backend != before.access_backend;
        let access_backend = asks_another
            .then(|| {
                let (clock, counters) = (&services.clock, &services.counters);
                super::access_backend(&config, clock, counters, &Handle::current())
            })
            .transpose()?;
        let console = (config.console_interval != before.console_interval)
            .then(|| start_console(app, &config))
            .transpose()
            .map_err(Failure::Thread)?;
        if config.logs != before.logs {
            // The last that can fail: from here on everything is in force.
            let path = config.logs.dir.clone();
            app.event_log
                .renew(&config.logs)
                .map_err(|source| Failure::EventLog { path, source })?;
        }

        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        logging::renew(&config.logs.level);
        app.backend.rebound(&config.limits);
        app.certificates.renew(certificates);
        if let Some(console) = console {
            self.console = console;
        }
        if let Some(access_backend) = access_backend {
            services.ask_access_backend(access_backend);
        }
        let terms = Arc::new(Terms::of(&config, services.node.clone()));
        services.renew(Arc::new(config), authority);
        let (heard, hearing) = mpsc::sync_channel(app.router.mailboxes().len());
        for mailbox in app.router.mailboxes() {
            // A worker that has ended has nobody to go by them.
            let _ = mailbox.control(Control::Terms(terms.clone()));
            let _ = mailbox.control(Control::Probe(heard.clone()));
        }
        drop(heard);
        // Whoever is told that it is in force finds it so. A worker that has much to do comes to it later.
        while hearing.recv_timeout(WORKERS_PATIENCE).is_ok() {}
        self.settings = config::in_force(&self.settings, settings);
        Ok(difference)
    }
}

fn start_console(app: &App, config: &Config) -> io::Result<Option<console::Console>> {
    let observed = app.observed.clone();
    config
        .console_interval
        .map(|interval| console::start(observed, interval, io::stdout()))
        .transpose()
}

fn tell(Difference(changes): &Difference) {
    for change in changes {
        tracing::info!("reload: {change}");
    }
    let waiting = changes.iter().filter(|change| change.needs_restart).count();
    let changes = changes.len();
    tracing::info!(changes, waiting, "the configuration was read again");
}
