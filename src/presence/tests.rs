//! Counting sockets, telling edges, and what a failing broker does to it.

use std::collections::BTreeMap;

use super::*;
use crate::broker::embedded::{self, Embedded};
use crate::broker::faulty::{FailsAfter, Silent};
use crate::broker::{Deliver, Delivery};
use crate::config::{Access, ChannelRule, ChannelRules, Slow};

/// What the channel was told, such as `join u1`.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Deliver for Heard {
    fn deliver(&self, delivery: Delivery) {
        let event: serde_json::Value = serde_json::from_slice(delivery.event.as_bytes()).unwrap();
        assert_eq!(event["data"]["channelKey"], delivery.channel.as_str());
        assert!(delivery.position.is_none());
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let heard = word(&event["type"]) + " " + &word(&event["data"]["userId"]);
        self.0.lock().unwrap().push(heard);
    }

    fn gap(&self, _: Option<&ChannelKey>) {
        panic!("a gap");
    }

    fn notice(&self, _: Bytes) {
        panic!("a notice");
    }
}

fn rules() -> ChannelRules {
    let rule = ChannelRule {
        subscribe: Access::Any,
        publish: Access::None,
        history: None,
        presence: true,
        join_leave: true,
        slow: Slow::Close,
    };
    ChannelRules(BTreeMap::from([("room".to_owned(), rule)]))
}

fn presence(broker: Arc<dyn Broker>) -> Presence {
    let counters = Arc::new(Counters::new(1));
    let mut config = crate::http::tests::config();
    config.channels = rules();
    Presence::new(
        broker,
        Live::new(config),
        counters,
        Clock::manual(0),
        Handle::current(),
    )
}

async fn with_broker() -> (tempfile::TempDir, Arc<Embedded>, Arc<Heard>) {
    let folder = tempfile::tempdir().unwrap();
    let options = embedded::Options {
        path: folder.path().join("fanfare.redb"),
        store_bytes: u64::MAX,
        history_bytes: u64::MAX,
        notifications_per_user: usize::MAX,
    };
    let broker = embedded::open(options, Clock::manual(0)).unwrap();
    let heard = Arc::new(Heard::default());
    broker.start(heard.clone()).await.unwrap();
    (folder, broker, heard)
}

fn channel(key: &str) -> ChannelKey {
    ChannelKey::parse(key, 255).unwrap()
}

#[tokio::test]
async fn a_user_is_there_from_the_first_socket_to_the_last() {
    let (_folder, broker, heard) = with_broker().await;
    let presence = presence(broker);
    let (room, user): (_, Arc<str>) = (channel("room_1"), "u1".into());
    for _ in 0..3 {
        presence.enter(&room, &user);
    }
    presence.settled(&room, &user).await;
    assert_eq!(presence.list(&room).await.unwrap().count, 0, "not heard");
    presence.heard(&room, &user);
    presence.settled(&room, &user).await;
    let there = presence.list(&room).await.unwrap();
    assert_eq!((there.users, there.count), (vec![user.clone()], 1));
    presence.leave(&room, &user);
    presence.leave(&room, &user);
    presence.settled(&room, &user).await;
    assert_eq!(presence.list(&room).await.unwrap().count, 1);
    presence.leave(&room, &user);
    presence.settled(&room, &user).await;
    assert_eq!(presence.list(&room).await.unwrap().count, 0);
    tokio::task::yield_now().await;
    assert_eq!(heard.all(), ["join u1", "leave u1"]);
    assert!(presence.0.seats().is_empty());
}

#[tokio::test]
async fn however_fast_they_come_and_go_the_end_is_right() {
    let (_folder, broker, heard) = with_broker().await;
    let presence = presence(broker);
    let room = channel("room_1");
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (presence, room) = (presence.clone(), room.clone());
            tokio::spawn(async move {
                let user: Arc<str> = format!("u{}", n % 2).into();
                for _ in 0..500 {
                    presence.enter(&room, &user);
                    presence.heard(&room, &user);
                    tokio::task::yield_now().await;
                    presence.leave(&room, &user);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    while !presence.0.seats().is_empty() {
        tokio::task::yield_now().await;
    }
    for user in ["u0", "u1"] {
        let mine: Vec<String> = heard
            .all()
            .into_iter()
            .filter(|it| it.ends_with(user))
            .collect();
        // In turns, beginning with a join and ending with a leave.
        for (nth, told) in mine.iter().enumerate() {
            let expected = if nth % 2 == 0 { "join" } else { "leave" };
            assert!(told.starts_with(expected), "{nth}: {mine:?}");
        }
        assert_eq!(mine.len() % 2, 0, "{mine:?}");
        assert!(!mine.is_empty());
    }
    assert_eq!(presence.list(&room).await.unwrap().count, 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_broker_that_fails_and_it_is_asked_again() {
    let broker = Arc::new(FailsAfter::new(Silent, 0, Error::Unavailable));
    let presence = presence(broker);
    let (room, user): (_, Arc<str>) = (channel("room_1"), "u1".into());
    presence.enter(&room, &user);
    presence.heard(&room, &user);
    // It would hang here, were it waiting for a success.
    presence.settled(&room, &user).await;
    tokio::time::sleep(RETRY_AFTER * 3).await;
    let asked = presence.0.counters.errors.value();
    assert!(asked >= 3, "asked {asked} times");
    presence.leave(&room, &user);
    tokio::time::sleep(RETRY_AFTER * 3).await;
    // Perhaps the user is there: that has to be taken back, some time.
    assert_eq!(presence.0.seats().len(), 1);
}
