//! What the suite needs of an implementation, and a sink that checks the deliveries.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::{
    Broker, Deliver, Delivery, Durability, NewNotification, Publication, Retention, Store,
};
use fanfare::protocol::{ChannelKey, Event};

/// The cap that every backend is opened with.
pub const NOTIFICATIONS_PER_USER: usize = 50;

pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One implementation with data of its own.
pub trait Backend: Send + Sync {
    /// Opens it; a second time, with the data of the first. The one before has been closed.
    fn open(&self) -> Later<'_, Opened>;

    /// Lets time pass for it: a manual clock, or really.
    fn pass(&self, time: Duration) -> Later<'_, ()>;

    /// What time it is for it, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Whether time is free, so that a test may let a day pass.
    fn can_skip_days(&self) -> bool;
}

/// An open implementation.
pub struct Opened {
    pub broker: Arc<dyn Broker>,
    pub store: Arc<dyn Store>,
}

impl Opened {
    /// Starts it with a sink that remembers.
    pub async fn start(&self) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn Deliver> = recorder.clone();
        self.broker.start(sink).await.unwrap();
        recorder
    }

    pub async fn close(self) {
        self.broker.close().await.unwrap();
        self.store.close().await.unwrap();
    }
}

/// Remembers deliveries, and fails when two of one channel overlap.
#[derive(Default)]
pub struct Recorder {
    deliveries: Mutex<Vec<Delivery>>,
    busy: Mutex<HashSet<ChannelKey>>,
    notices: Mutex<Vec<Bytes>>,
}

impl Deliver for Recorder {
    fn deliver(&self, delivery: Delivery) {
        let channel = delivery.channel.clone();
        assert!(
            self.busy.lock().unwrap().insert(channel.clone()),
            "two deliveries at once"
        );
        std::thread::yield_now();
        self.deliveries.lock().unwrap().push(delivery);
        self.busy.lock().unwrap().remove(&channel);
    }

    fn gap(&self, channel: Option<&ChannelKey>) {
        panic!("a gap in {channel:?}");
    }

    fn notice(&self, notice: Bytes) {
        self.notices.lock().unwrap().push(notice);
    }
}

impl Recorder {
    /// What has arrived of a channel, once it is `count` events (or soon after, if fewer come).
    pub async fn received(&self, channel: &ChannelKey, count: usize) -> Vec<Delivery> {
        for _ in 0..200 {
            let received = self.now(channel);
            if received.len() >= count {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.now(channel)
    }

    /// What has been announced, once it is `count` notices (or soon after, if fewer come).
    pub async fn notices(&self, count: usize) -> Vec<Bytes> {
        for _ in 0..200 {
            let notices = self.notices.lock().unwrap().clone();
            if notices.len() >= count {
                return notices;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.notices.lock().unwrap().clone()
    }

    fn now(&self, channel: &ChannelKey) -> Vec<Delivery> {
        let deliveries = self.deliveries.lock().unwrap();
        let of_channel = deliveries.iter().filter(|it| it.channel == *channel);
        of_channel.cloned().collect()
    }
}

pub fn channel(key: &str) -> ChannelKey {
    ChannelKey::parse(key, 255).unwrap()
}

/// `{"type":"x","n":N}`
pub fn event(n: usize) -> Event {
    Event::parse(&format!("{{\"type\":\"x\",\"n\":{n}}}"), 100).unwrap()
}

/// Ten events for an hour.
pub const TEN: Retention = Retention {
    entries: 10,
    ttl: Duration::from_secs(3600),
    durability: Durability::Commit,
};

/// A publication with history.
pub fn kept(channel: &ChannelKey, n: usize, retention: Retention) -> Publication {
    Publication {
        retention: Some(retention),
        ..passing(channel, n)
    }
}

/// A publication without history.
pub fn passing(channel: &ChannelKey, n: usize) -> Publication {
    Publication {
        channel: channel.clone(),
        event: event(n),
        retention: None,
        idempotency_key: None,
        trace: None,
    }
}

pub fn note(user: &str, title: &str) -> NewNotification {
    NewNotification {
        user_id: user.into(),
        kind: "TEST".into(),
        title: title.into(),
        message: "text".into(),
        metadata: None,
    }
}
