//! The rule `backend`: the application says who may subscribe or publish. Contract section 4.
//!
//! One question per (user, channel, action) is on its way at a time, whoever waits for it; answers are
//! remembered for a while, in a bounded table; so many questions are asked at once and no more; and a
//! backend that does not answer is left alone for some seconds. Whatever goes wrong, the answer is no.
//!
//! Not for: the other rules (`session::access`).

mod answers;
mod asking;
mod breaker;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::clock::{Clock, millis};
use crate::config;
use crate::metrics::Counters;
use crate::protocol::ChannelKey;
use crate::session::Identity;
use crate::session::access::Action;
use crate::sparing::Sparing;
use answers::Answers;
use asking::{Asking, Said};
use breaker::{Admission, Breaker};

/// Questions that are asked at the same moment: as many as a small application serves at once.
const AT_ONCE: usize = 64;
/// Questions that are asked or wait for it. More are denied.
const OUTSTANDING_MAX: usize = 4_096;
/// A no is remembered no longer than this: whoever was just let in should not wait.
const DENIED_MS_MAX: u64 = 5_000;
/// A `ttl` in an answer counts up to a day.
const TTL_SECONDS_MAX: u64 = 24 * 60 * 60;

/// May this user do this with this channel?
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    user_id: Arc<str>,
    wallet: Option<Arc<str>>,
    channel: ChannelKey,
    action: Action,
}

impl Question {
    /// About this client.
    pub fn new(identity: &Identity, channel: ChannelKey, action: Action) -> Self {
        Self {
            user_id: identity.user_id.clone(),
            wallet: identity.wallet.clone(),
            channel,
            action,
        }
    }
}

/// Asks the application. Cheap to clone.
#[derive(Clone)]
pub struct AccessBackend(Arc<Shared>);

struct Shared {
    asking: Asking,
    timeout: Duration,
    cache_ttl_ms: u64,
    clock: Clock,
    counters: Arc<Counters>,
    /// Where questions are asked, so that a client that goes away takes none with it.
    runtime: Handle,
    permits: Semaphore,
    warnings: Sparing,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    answers: Answers,
    breaker: Breaker,
    /// What is being asked; at most [`OUTSTANDING_MAX`].
    outstanding: HashMap<Question, watch::Receiver<Option<bool>>>,
}

/// What became of a question that was asked.
enum Outcome {
    Answered(Said),
    /// Nobody was asked.
    NotAsked(&'static str),
    Failed {
        /// For the metrics.
        outcome: &'static str,
        /// For the log.
        why: String,
    },
}

impl AccessBackend {
    /// Asks at the configured URL. Questions are asked on `runtime`.
    ///
    /// # Errors
    /// When the URL is `https` and this machine has no certificates to check it with.
    pub fn new(
        config: &config::AccessBackend,
        clock: Clock,
        counters: Arc<Counters>,
        runtime: Handle,
    ) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            asking: Asking::new(config)?,
            timeout: config.timeout,
            cache_ttl_ms: millis(config.cache_ttl),
            clock,
            counters,
            runtime,
            permits: Semaphore::new(AT_ONCE),
            warnings: Sparing::default(),
            desk: Mutex::default(),
        })))
    }

    /// The application's answer; no, if there is none in time. `connection_id` is for its log.
    pub async fn allows(&self, question: Question, connection_id: String) -> bool {
        let mut answer = match self.0.begin(question, connection_id) {
            Ok(answer) => answer,
            Err(known) => return known,
        };
        // The sender ends without an answer only if its task does.
        answer
            .wait_for(Option::is_some)
            .await
            .is_ok_and(|answer| *answer == Some(true))
    }
}

impl Shared {
    /// Where the answer will be; or it is known already.
    fn begin(
        self: &Arc<Self>,
        question: Question,
        connection_id: String,
    ) -> Result<watch::Receiver<Option<bool>>, bool> {
        let now_ms = self.clock.now().mono_ms;
        let mut desk = self.desk();
        if let Some(known) = desk.answers.known(&question, now_ms) {
            self.count("cached");
            return Err(known);
        }
        if let Some(asked) = desk.outstanding.get(&question)
            && asked.has_changed().is_ok()
        {
            self.count("shared");
            return Ok(asked.clone());
        }
        if desk.outstanding.len() >= OUTSTANDING_MAX {
            self.count("overloaded");
            return Err(false);
        }
        let Some(admission) = desk.breaker.admit(now_ms) else {
            self.count("open");
            return Err(false);
        };
        let (reply, answer) = watch::channel(None);
        desk.outstanding.insert(question.clone(), answer.clone());
        drop(desk);
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = shared.ask(&question, &connection_id, admission).await;
            let is_allowed = shared.settle(question, outcome, admission);
            reply.send_replace(Some(is_allowed));
        });
        Ok(answer)
    }

    async fn ask(&self, question: &Question, connection_id: &str, admission: Admission) -> Outcome {
        let permit = tokio::time::timeout(self.timeout, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Outcome::NotAsked("overloaded");
        };
        // It may have been found dead while this one waited.
        if admission == Admission::Ordinary && self.desk().breaker.is_open() {
            return Outcome::NotAsked("open");
        }
        let unix_seconds = self.clock.unix_ms() / 1_000;
        let answer = self.asking.ask(question, connection_id, unix_seconds);
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(said)) => Outcome::Answered(said),
            Ok(Err(why)) => Outcome::Failed {
                outcome: "failed",
                why,
            },
            Err(_) => Outcome::Failed {
                outcome: "timeout",
                why: format!("no answer within {:?}", self.timeout),
            },
        }
    }

    /// Remembers what is to be remembered; the answer.
    fn settle(&self, question: Question, outcome: Outcome, admission: Admission) -> bool {
        let now_ms = self.clock.now().mono_ms;
        let mut desk = self.desk();
        desk.outstanding.remove(&question);
        let opened = match &outcome {
            Outcome::Answered(_) => {
                desk.breaker.succeeded();
                false
            }
            // A probe that found no place says nothing good.
            Outcome::NotAsked(_) if admission == Admission::Ordinary => false,
            Outcome::NotAsked(_) | Outcome::Failed { .. } => desk.breaker.failed(now_ms),
        };
        if let Outcome::Answered(said) = &outcome {
            let ttl_ms = self.ttl_ms(*said);
            if ttl_ms > 0 {
                desk.answers.put(question, said.allow, now_ms + ttl_ms);
            }
        }
        drop(desk);
        match outcome {
            Outcome::Answered(said) => {
                self.count(if said.allow { "allowed" } else { "denied" });
                return said.allow;
            }
            Outcome::NotAsked(outcome) => self.count(outcome),
            Outcome::Failed { outcome, why } => {
                self.count(outcome);
                self.counters.errors.increment();
                if let Some(held_back) = self.warnings.warn(now_ms) {
                    let host = self.asking.host();
                    tracing::warn!(host, %why, held_back, "the access backend gave no answer: denied");
                }
            }
        }
        if opened {
            self.count("opened");
            tracing::warn!(
                for_ms = breaker::OPEN_MS,
                "the access backend keeps failing: it is left alone, and everything is denied"
            );
        }
        false
    }

    fn ttl_ms(&self, said: Said) -> u64 {
        let ttl_ms = said.ttl_seconds.map_or(self.cache_ttl_ms, |seconds| {
            seconds.min(TTL_SECONDS_MAX) * 1_000
        });
        if said.allow {
            ttl_ms
        } else {
            ttl_ms.min(DENIED_MS_MAX)
        }
    }

    fn count(&self, outcome: &'static str) {
        self.counters.access_backend.increment(outcome);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
