//! Issuers beside ourselves: their published keys, fetched, kept, and fetched again.
//!
//! Where the keys are is configured; nothing in a token is ever followed (RFC 8725 section 3.10). A set
//! is fetched at start, every `REFRESH_EVERY`, and when a token names a key that it does not hold,
//! but never twice within `REFRESH_PAUSE_MS`, however many such tokens come.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use jsonwebtoken::Algorithm;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::jwks::{KeySet, SET_BYTES_MAX};
use crate::clock::Clock;
use crate::config;
use crate::metrics::Counters;
use crate::outgoing::{self, Outgoing, chain};

/// A key that is published now is known to every node after this, before anybody has used it.
const REFRESH_EVERY: Duration = Duration::from_secs(5 * 60);
/// Between the starts of two fetches for one issuer.
const REFRESH_PAUSE_MS: u64 = 10_000;
/// For a fetch, from the connection to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A set that could not be fetched again for so long does not count any more: a key that was taken back
/// must not live on because somebody keeps us from hearing of it.
const STALE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Issuers(Arc<[Arc<Issuer>]>);

/// One.
pub(super) struct Issuer {
    pub(super) config: config::Issuer,
    uri: Uri,
    outgoing: Outgoing,
    clock: Clock,
    counters: Arc<Counters>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Arc<KeySet>,
    /// When they came, in monotonic milliseconds.
    fetched_ms: Option<u64>,
    /// When the last fetch began.
    asked_ms: Option<u64>,
    /// While one is on its way; the sender goes when it is done.
    under_way: Option<watch::Receiver<()>>,
}

impl Issuers {
    /// Fetches on `runtime`, from now on for as long as these live. Those of `before` that are to be
    /// as they were go on with the keys that they have.
    ///
    /// # Errors
    /// When a URL is `https` and this machine has no certificates to check it with.
    pub fn start(
        issuers: &[config::Issuer],
        before: &Self,
        clock: &Clock,
        counters: &Arc<Counters>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let issuers = issuers.iter().map(|issuer| {
            if let Some(same) = before.0.iter().find(|one| one.config == *issuer) {
                return Ok(same.clone());
            }
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
            let uri: Uri = issuer.jwks_url.parse().map_err(invalid)?;
            let issuer = Arc::new(Issuer {
                config: issuer.clone(),
                outgoing: Outgoing::new(&uri, issuer.authorities.as_deref(), FETCH_TIMEOUT, 1)?,
                uri,
                clock: clock.clone(),
                counters: counters.clone(),
                runtime: runtime.clone(),
                state: Mutex::default(),
            });
            let again = Arc::downgrade(&issuer);
            runtime.spawn(async move {
                while let Some(issuer) = again.upgrade() {
                    issuer.refreshed().await;
                    drop(issuer);
                    tokio::time::sleep(REFRESH_EVERY).await;
                }
            });
            Ok(issuer)
        });
        issuers.collect::<io::Result<_>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one with this `iss`.
    pub(super) fn find(&self, iss: &str) -> Option<&Arc<Issuer>> {
        self.0.iter().find(|issuer| issuer.config.issuer == iss)
    }
}

impl Issuer {
    /// Whether it may sign with this algorithm.
    pub(super) fn signs_with(&self, algorithm: Algorithm) -> bool {
        self.config.algorithms.contains(&algorithm)
    }

    /// The keys that are known.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        let now_ms = self.clock.now().mono_ms;
        let state = self.state();
        let count = |fetched_ms| now_ms.saturating_sub(fetched_ms) < STALE_MS_MAX;
        if state.fetched_ms.is_some_and(count) {
            state.keys.clone()
        } else {
            Arc::default()
        }
    }

    /// Returns when the keys are as new as they may be: at once, or after a fetch.
    pub(super) async fn refreshed(self: &Arc<Self>) {
        let under_way = {
            let now_ms = self.clock.now().mono_ms;
            let mut state = self.state();
            let running = state.under_way.clone();
            match running.filter(|running| running.has_changed().is_ok()) {
                Some(running) => running,
                None => {
                    let too_soon = |asked_ms| now_ms < asked_ms + REFRESH_PAUSE_MS;
                    if state.asked_ms.is_some_and(too_soon) {
                        return;
                    }
                    state.asked_ms = Some(now_ms);
                    let (done, running) = watch::channel(());
                    state.under_way = Some(running.clone());
                    let issuer = Arc::clone(self);
                    self.runtime.spawn(async move {
                        issuer.fetch().await;
                        drop(done);
                    });
                    running
                }
            }
        };
        let mut under_way = under_way;
        // Ends with the sender.
        let _ = under_way.changed().await;
    }

    async fn fetch(&self) {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.ask()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer in {FETCH_TIMEOUT:?}")));
        match fetched {
            Ok(keys) => {
                tracing::debug!(
                    issuer = self.config.name,
                    keys = keys.len(),
                    "keys were fetched"
                );
                if keys.is_empty() {
                    tracing::warn!(
                        issuer = self.config.name,
                        "the issuer publishes no key that can be used"
                    );
                }
                let mut state = self.state();
                state.keys = Arc::new(keys);
                state.fetched_ms = Some(self.clock.now().mono_ms);
                drop(state);
                self.counters.key_fetches.increment("fetched");
            }
            Err(why) => {
                self.counters.key_fetches.increment("failed");
                self.counters.errors.increment();
                tracing::warn!(issuer = self.config.name, host = self.uri.host(), %why, "the keys of an issuer could not be fetched");
            }
        }
    }

    async fn ask(&self) -> Result<KeySet, String> {
        let request = Request::get(self.uri.clone())
            .header(USER_AGENT, outgoing::USER_AGENT)
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let response = self.outgoing.send(request).await;
        let response = response.map_err(|error| chain(&error))?;
        // A redirect leads to an address that nobody configured.
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), SET_BYTES_MAX);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        KeySet::parse(&body.to_bytes(), &self.config.algorithms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
