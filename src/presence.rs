//! Who of this node is in which channel: counts sockets, tells the broker of users, and the channel of
//! those who come and go.
//!
//! A user is in a channel from the first of their sockets that subscribes to the last that leaves.
//! What workers say changes a count at once and never waits; a task per user and channel then makes
//! what the broker knows equal to it, one step after the other, and again after a failure. So the
//! broker is told in the right order, and who comes and goes faster than it answers costs one step.
//!
//! Not for: who may ask (`session::access`), or keeping the lists (`broker::Broker`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::broker::{Broker, Error, Present, Publication};
use crate::clock::Clock;
use crate::config::Live;
use crate::event_log::without_token;
use crate::limits::PRESENCE_USERS_MAX;
use crate::metrics::Counters;
use crate::patience::{ANSWER_TIMEOUT, EVENT_TIMEOUT, within};
use crate::protocol::{ChannelKey, Event};
use crate::sparing::Sparing;

/// After a failed step.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The presence of a node's users. Cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<Shared>);

struct Shared {
    broker: Arc<dyn Broker>,
    config: Live,
    counters: Arc<Counters>,
    /// Where the steps are taken.
    runtime: Handle,
    clock: Clock,
    warnings: Sparing,
    /// An entry per user and channel for as long as there are sockets or the broker has to be told;
    /// so bounded by the subscriptions.
    seats: Mutex<HashMap<Seated, Seat>>,
}

type Seated = (ChannelKey, Arc<str>);

/// A user in a channel.
#[derive(Default)]
struct Seat {
    /// Of this node, subscribed or about to be.
    sockets: usize,
    /// Whether this node hears the channel since the first of them came: who joins before would miss it.
    is_heard: bool,
    told: Told,
    /// Whether a task is at it.
    is_busy: bool,
    /// Who wants to know when the broker was asked.
    waiting: Vec<oneshot::Sender<()>>,
}

/// What the broker knows of a seat.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    /// It was asked, and nobody knows with what success.
    Perhaps,
    Entered,
}

/// What the broker is to be told.
#[derive(Clone, Copy)]
enum Step {
    Enter,
    Leave,
}

impl Presence {
    /// Nobody is anywhere. Steps are taken on `runtime`.
    pub fn new(
        broker: Arc<dyn Broker>,
        config: Live,
        counters: Arc<Counters>,
        clock: Clock,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Shared {
            broker,
            config,
            counters,
            runtime,
            clock,
            warnings: Sparing::default(),
            seats: Mutex::default(),
        }))
    }

    /// One more socket of a user subscribes, in a channel that has presence. Nobody is told before
    /// [`Presence::heard`].
    pub fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) {
        self.change(channel, user_id, |seat| seat.sockets += 1);
    }

    /// A socket that entered is gone. Exactly one for each [`Presence::enter`].
    pub fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) {
        self.change(channel, user_id, |seat| {
            debug_assert!(seat.sockets > 0, "left more often than entered");
            seat.sockets = seat.sockets.saturating_sub(1);
            seat.is_heard &= seat.sockets > 0;
        });
    }

    /// This node hears the channel now, so that a user who has entered hears of it, too.
    pub fn heard(&self, channel: &ChannelKey, user_id: &Arc<str>) {
        let is_news = |seat: &Seat| seat.sockets > 0 && !seat.is_heard;
        let seated = (channel.clone(), user_id.clone());
        if self.0.seats().get(&seated).is_some_and(is_news) {
            self.change(channel, user_id, |seat| seat.is_heard = seat.sockets > 0);
        }
    }

    /// Waits until the broker was told of what this user has done in this channel, or could not be.
    pub async fn settled(&self, channel: &ChannelKey, user_id: &Arc<str>) {
        let (tx, rx) = oneshot::channel();
        match self.0.seats().get_mut(&(channel.clone(), user_id.clone())) {
            Some(seat) if seat.is_busy => seat.waiting.push(tx),
            _ => return,
        }
        // Nobody answers only when the node stops.
        let _ = rx.await;
    }

    /// Who is in a channel, on all nodes.
    ///
    /// # Errors
    /// The broker's.
    pub async fn list(&self, channel: &ChannelKey) -> Result<Present, Error> {
        let present = self.0.broker.present(channel, PRESENCE_USERS_MAX);
        within(ANSWER_TIMEOUT, present).await
    }

    fn change(&self, channel: &ChannelKey, user_id: &Arc<str>, change: impl FnOnce(&mut Seat)) {
        let seated = (channel.clone(), user_id.clone());
        let mut seats = self.0.seats();
        let seat = seats.entry(seated.clone()).or_default();
        change(seat);
        if !std::mem::replace(&mut seat.is_busy, true) {
            let shared = Arc::clone(&self.0);
            self.0
                .runtime
                .spawn(async move { shared.tell(&seated).await });
        }
    }
}

impl Shared {
    /// Tells the broker until it knows how it is.
    async fn tell(&self, seated: &Seated) {
        let (channel, user_id) = seated;
        while let Some(step) = self.next(seated) {
            let told = match step {
                Step::Enter => self.broker.enter(channel, user_id),
                Step::Leave => self.broker.leave(channel, user_id),
            };
            match within(ANSWER_TIMEOUT, told).await {
                Ok(is_edge) => {
                    self.note(seated, step.done());
                    if is_edge {
                        self.announce(seated, step).await;
                    }
                }
                Err(Error::Closed) => {
                    self.seats().remove(seated);
                    return;
                }
                Err(error) => {
                    self.failed(&error, channel);
                    let is_certain = matches!(step, Step::Enter) && error != Error::Unavailable;
                    self.note(
                        seated,
                        if is_certain {
                            Told::Nothing
                        } else {
                            Told::Perhaps
                        },
                    );
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// The next step; `None` when there is none, and then the seat is no longer busy.
    fn next(&self, seated: &Seated) -> Option<Step> {
        let mut seats = self.seats();
        let seat = seats.get_mut(seated)?;
        match (seat.sockets > 0, seat.told) {
            (true, Told::Nothing | Told::Perhaps) if seat.is_heard => return Some(Step::Enter),
            (false, Told::Perhaps | Told::Entered) => return Some(Step::Leave),
            _ => {}
        }
        seat.is_busy = false;
        // Dropping the senders is the answer.
        seat.waiting.clear();
        if seat.sockets == 0 {
            seats.remove(seated);
        }
        None
    }

    /// What the broker knows now. Whoever waits is told, after a failure too: a subscription stands
    /// without presence.
    fn note(&self, seated: &Seated, told: Told) {
        if let Some(seat) = self.seats().get_mut(seated) {
            seat.told = told;
            // Dropping the senders is the answer.
            seat.waiting.clear();
        }
    }

    fn failed(&self, error: &Error, channel: &ChannelKey) {
        self.counters.errors.increment();
        if let Some(held_back) = self.warnings.warn(self.clock.now().mono_ms) {
            let channel = without_token(channel.as_str());
            tracing::warn!(%error, %channel, held_back, "who is there could not be told");
        }
    }

    /// A live event without history, where the channel asks for it.
    async fn announce(&self, (channel, user_id): &Seated, step: Step) {
        let config = self.config.current();
        let rule = config.channels.rule(channel.kind());
        if !rule.is_some_and(|rule| rule.join_leave) {
            return;
        }
        let publication = Publication {
            channel: channel.clone(),
            event: event(channel, user_id, step),
            retention: None,
            idempotency_key: None,
            trace: None,
        };
        match within(EVENT_TIMEOUT, self.broker.publish(publication)).await {
            Ok(_) => self.counters.publications.increment("server"),
            Err(Error::Closed) => {}
            Err(error) => self.failed(&error, channel),
        }
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<Seated, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    const fn done(self) -> Told {
        match self {
            Self::Enter => Told::Entered,
            Self::Leave => Told::Nothing,
        }
    }
}

fn event(channel: &ChannelKey, user_id: &str, step: Step) -> Event {
    #[derive(Serialize)]
    struct Told<'a> {
        r#type: &'static str,
        data: Whom<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Whom<'a> {
        channel_key: &'a str,
        user_id: &'a str,
    }
    let told = Told {
        r#type: match step {
            Step::Enter => "join",
            Step::Leave => "leave",
        },
        data: Whom {
            channel_key: channel.as_str(),
            user_id,
        },
    };
    let json = serde_json::to_vec(&told).expect("strings always serialize");
    Event::trusted(Bytes::from(json))
}

#[cfg(test)]
mod tests;
