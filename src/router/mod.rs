//! Node-wide: places connections on workers, fans events out to the workers that follow them, and hears
//! what nodes tell each other.

pub mod interest;
pub mod nodes;
pub mod notices;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::auth::revocation::Revocations;
use crate::broker::{Deliver, Delivery};
use crate::metrics::Counters;
use crate::protocol::ChannelKey;
use crate::trace::Passage;
use crate::worker::mailbox::{Control, Mailbox, Posted};
use crate::ws::frame::encode_event;
use interest::Interest;
use nodes::Nodes;

/// The workers' mailboxes, and who follows what.
#[derive(Debug)]
pub struct Router {
    mailboxes: Box<[Mailbox]>,
    counters: Arc<Counters>,
    /// Which tokens are not to be believed any more.
    pub revocations: Revocations,
    /// Told when notices may have been lost.
    notices_lost: Notify,
    /// This node's name, once it has one: what it has told others is not for itself.
    pub node: OnceLock<Arc<str>>,
    /// Which workers follow a channel.
    pub interest: Interest,
    /// The others.
    pub nodes: Arc<Nodes>,
}

impl Router {
    /// A router over the workers' mailboxes, in the order of the workers.
    pub fn new(mailboxes: Vec<Mailbox>, counters: Arc<Counters>) -> Self {
        Self {
            mailboxes: mailboxes.into(),
            counters,
            revocations: Revocations::default(),
            notices_lost: Notify::new(),
            node: OnceLock::new(),
            interest: Interest::default(),
            nodes: Arc::default(),
        }
    }

    /// The mailboxes, in the order of the workers.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }

    /// The worker for the next connection: the one with the fewest.
    pub fn place(&self) -> &Mailbox {
        self.mailboxes
            .iter()
            .min_by_key(|mailbox| mailbox.load())
            .expect("a node has at least one worker")
    }

    /// Sends something to all workers that live; their answers, as they come.
    pub fn ask_workers<T>(
        &self,
        mut message: impl FnMut(oneshot::Sender<T>) -> Control,
    ) -> Vec<oneshot::Receiver<T>> {
        let mut answers = Vec::new();
        for mailbox in &self.mailboxes {
            let (tx, rx) = oneshot::channel();
            if mailbox.control(message(tx)).is_ok() {
                answers.push(rx);
            }
        }
        answers
    }

    fn lose_notices(&self) {
        self.notices_lost.notify_one();
        self.nodes.lost.notify_one();
    }

    /// How full the fullest mailbox is, in percent.
    pub fn fullest(&self) -> f64 {
        let percents = self.mailboxes.iter().map(Mailbox::percent_full);
        percents.fold(0.0, f64::max)
    }

    /// Sockets on all workers.
    pub fn load(&self) -> usize {
        self.mailboxes.iter().map(Mailbox::load).sum()
    }
}

impl Deliver for Router {
    fn deliver(&self, delivery: Delivery) {
        let Delivery {
            channel,
            event,
            position,
            trace,
        } = delivery;
        let passage = trace.map(Passage::of);
        let mut encoded = None;
        self.interest.each(&channel, |worker| {
            let frame = encoded
                .get_or_insert_with(|| encode_event(&channel, &event, position.as_ref()))
                .clone();
            let posted = Posted {
                channel: channel.clone(),
                position: position.clone(),
                frame,
                passage: passage.clone(),
            };
            if !self.mailboxes[worker].post(posted) {
                self.counters.workers[worker].gaps.increment();
            }
        });
    }

    fn notice(&self, notice: Bytes) {
        self.hear(&notice);
    }

    fn notices_lost(&self) {
        self.lose_notices();
    }

    fn gap(&self, channel: Option<&ChannelKey>) {
        let channels = match channel {
            Some(channel) => vec![channel.clone()],
            None => {
                self.lose_notices();
                self.interest.keys()
            }
        };
        for channel in channels {
            self.interest.each(&channel, |worker| {
                self.counters.workers[worker].gaps.increment();
                self.mailboxes[worker].gap(channel.clone());
            });
        }
    }
}
