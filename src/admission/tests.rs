//! Limits on a manual clock, with a store on disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::broker::Error;
use crate::broker::embedded::{self, Options};

fn limits() -> Limits {
    Limits {
        connections: 5,
        connections_per_user: 2,
        connections_per_address: 3,
        accepts_per_second: 4,
        sign_in_per_minute: 10,
        requests_per_second: 50,
        commands_per_second: 0,
        dry_run: false,
        message_bytes: 0,
        event_bytes: 0,
        body_bytes: 0,
        channels_per_connection: 0,
        channel_key_bytes: 0,
        queue_bytes: 0,
        queue_age: Duration::from_secs(30),
        header_timeout: Duration::ZERO,
        body_timeout: Duration::ZERO,
        notifications_per_user: 0,
        store_bytes: 0,
        history_bytes: 0,
    }
}

/// With the store that keeps its budgets.
struct House {
    admission: Admission,
    _folder: TempDir,
}

impl std::ops::Deref for House {
    type Target = Admission;

    fn deref(&self) -> &Admission {
        &self.admission
    }
}

fn admission(limits: &Limits, clock: Clock) -> House {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        path: folder.path().join("fanfare.redb"),
        store_bytes: u64::MAX,
        history_bytes: u64::MAX,
        notifications_per_user: 10,
    };
    let store = embedded::open(options, clock.clone()).unwrap();
    House {
        admission: Admission::new(limits, clock, Arc::new(Counters::new(1)), store),
        _folder: folder,
    }
}

fn too_many<T>(seconds: u64) -> Result<T, NotNow> {
    Err(NotNow::TooMany(RetryAfter(seconds)))
}

fn counted(names: &crate::metrics::Names) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    names.add_to(&mut sums);
    sums.into_iter().collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn ten_sign_ins_a_minute_then_one_every_six_seconds() {
    let clock = Clock::manual(0);
    let admission = admission(&limits(), clock.clone());
    let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    for _ in 0..10 {
        assert_eq!(admission.sign_in(one).await, Ok(()));
    }
    assert_eq!(admission.sign_in(one).await, too_many(6));
    assert_eq!(admission.sign_in(other).await, Ok(()));
    clock.advance(Duration::from_millis(5_999));
    assert_eq!(admission.sign_in(one).await, too_many(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(admission.sign_in(one).await, Ok(()));
    assert_eq!(admission.sign_in(one).await, too_many(6));
}

#[tokio::test]
async fn neighbours_in_one_64_share_and_others_do_not() {
    let admission = admission(&limits(), Clock::manual(0));
    for n in 0..10 {
        assert_eq!(
            admission.sign_in(ip(&format!("2001:db8::{n}"))).await,
            Ok(())
        );
    }
    assert!(admission.sign_in(ip("2001:db8::ffff:1")).await.is_err());
    assert_eq!(admission.sign_in(ip("2001:db8:0:1::1")).await, Ok(()));
    // An address that came through a dual-stack socket is the same one.
    for _ in 0..10 {
        assert_eq!(admission.sign_in(ip("::ffff:192.0.2.1")).await, Ok(()));
    }
    assert!(admission.sign_in(ip("192.0.2.1")).await.is_err());
}

#[test]
fn accepts_are_the_nodes_and_come_back_with_time() {
    let clock = Clock::manual(0);
    let admission = admission(&limits(), clock.clone());
    for _ in 0..4 {
        assert_eq!(admission.accept(ip("192.0.2.1")), Ok(()));
    }
    assert_eq!(admission.accept(ip("192.0.2.1")), Err(RetryAfter(1)));
    clock.advance(Duration::from_millis(500));
    assert_eq!(admission.accept(ip("192.0.2.1")), Ok(()));
    assert_eq!(admission.accept(ip("192.0.2.1")), Ok(()));
    assert!(admission.accept(ip("192.0.2.1")).is_err());
}

#[test]
fn a_permit_is_small_and_gives_back_what_it_took() {
    assert!(size_of::<Permit>() <= 16);
    let admission = admission(&limits(), Clock::manual(0));
    let from = ip("192.0.2.1");
    let held: Vec<Permit> = (0..3).map_while(|_| admission.connect(from)).collect();
    assert_eq!(held.len(), 3);
    assert!(admission.connect(from).is_none());
    assert!(admission.connect(ip("192.0.2.2")).is_some());
    // Sockets before the upgrade are counted apart.
    let plain: Vec<Permit> = (0..9).map_while(|_| admission.accept_plain(from)).collect();
    assert_eq!(plain.len(), 3);
    drop(plain);
    assert!(admission.accept_plain(from).is_some());
    drop(held);
    assert!(admission.connect(from).is_some());

    let _two = (
        admission.connect_user(from, "u1"),
        admission.connect_user(from, "u1"),
    );
    assert!(admission.connect_user(from, "u1").is_none());
    assert!(admission.connect_user(from, "u2").is_some());

    let node: Vec<Permit> = (0..9).map_while(|_| admission.connect_node()).collect();
    assert_eq!((node.len(), admission.connections()), (5, 5));
    drop(node);
    assert_eq!(admission.connections(), 0);
}

#[test]
fn other_limits_count_from_the_next_one_who_comes() {
    let admission = admission(&limits(), Clock::manual(0));
    let held: Vec<Permit> = (0..9).map_while(|_| admission.connect_node()).collect();
    assert_eq!(held.len(), 5);
    let mut fewer = limits();
    fewer.connections = 2;
    admission.rebound(&fewer);
    assert_eq!(admission.connections(), 5);
    assert!(admission.connect_node().is_none());
    drop(held);
    let held: Vec<Permit> = (0..9).map_while(|_| admission.connect_node()).collect();
    assert_eq!(held.len(), 2);
    admission.rebound(&limits());
    assert!(admission.connect_node().is_some());
}

#[tokio::test]
async fn no_limit_is_no_limit() {
    let mut limits = limits();
    limits.sign_in_per_minute = u32::MAX;
    limits.requests_per_second = 0;
    limits.connections = usize::MAX;
    let admission = admission(&limits, Clock::manual(0));
    let from = ip("192.0.2.1");
    for _ in 0..100_000 {
        assert_eq!(admission.sign_in(from).await, Ok(()));
        assert_eq!(admission.request(from), Ok(()));
    }
    let held: Vec<Permit> = (0..1_000).map_while(|_| admission.connect_node()).collect();
    assert_eq!(held.len(), 1_000);
}

#[tokio::test]
async fn failed_sign_ins_slow_their_address_down_and_nobody_else() {
    let clock = Clock::manual(0);
    let admission = admission(&limits(), clock.clone());
    let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    for _ in 0..10 {
        assert_eq!(admission.sign_in(one).await, Ok(()));
        assert_eq!(admission.sign_in_failed(one, None).await, Ok(()));
    }
    // Both budgets are spent; the one of failures comes back a quarter as fast.
    assert_eq!(admission.sign_in(one).await, too_many(24));
    clock.advance(Duration::from_secs(23));
    assert_eq!(admission.sign_in(one).await, too_many(1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(admission.sign_in(one).await, Ok(()));
    assert_eq!(admission.sign_in_failed(one, None).await, Ok(()));
    assert_eq!(admission.sign_in(one).await, too_many(24));
    assert_eq!(admission.sign_in(other).await, Ok(()));
    // What was right costs nothing of it.
    clock.advance(Duration::from_secs(24));
    for _ in 0..4 {
        assert_eq!(admission.sign_in(one).await, Ok(()));
    }
}

#[tokio::test]
async fn failures_for_one_wallet_are_slowed_down_wherever_they_come_from() {
    let clock = Clock::manual(0);
    let admission = admission(&limits(), clock.clone());
    let from = |n: u32| ip(&format!("198.51.100.{n}"));
    for n in 0..10 {
        assert_eq!(admission.sign_in_failed(from(n), Some("w1")).await, Ok(()));
    }
    assert_eq!(
        admission.sign_in_failed(from(10), Some("w1")).await,
        too_many(24)
    );
    assert_eq!(admission.sign_in_failed(from(11), Some("w2")).await, Ok(()));
    // Whoever comes to prove it is let in to do so.
    assert_eq!(admission.sign_in(from(12)).await, Ok(()));
    clock.advance(Duration::from_secs(24));
    assert_eq!(admission.sign_in_failed(from(13), Some("w1")).await, Ok(()));
}

#[test]
fn whoever_knocks_takes_nothing() {
    let admission = admission(&limits(), Clock::manual(0));
    let from = ip("192.0.2.1");
    for _ in 0..1_000 {
        assert_eq!(admission.knock(from), Ok(()));
    }
    for _ in 0..50 {
        assert_eq!(admission.request(from), Ok(()));
    }
    assert_eq!(admission.knock(from), Err(RetryAfter(1)));
}

#[tokio::test]
async fn a_dry_run_counts_what_it_lets_past() {
    let mut limits = limits();
    limits.dry_run = true;
    let admission = admission(&limits, Clock::manual(0));
    let from = ip("192.0.2.1");
    for _ in 0..15 {
        assert_eq!(admission.sign_in(from).await, Ok(()));
    }
    for _ in 0..55 {
        assert_eq!(admission.request(from), Ok(()));
    }
    for _ in 0..6 {
        assert_eq!(admission.accept(from), Ok(()));
    }
    let held: Vec<_> = (0..5).map(|_| admission.connect(from)).collect();
    let users: Vec<_> = (0..5).map(|_| admission.connect_user(from, "u1")).collect();
    assert!(held.iter().chain(&users).all(Option::is_some));
    let expected = [
        ("accepts_per_second", 2),
        ("connections_per_address", 2),
        ("connections_per_user", 3),
        ("requests_per_second", 5),
        ("sign_in_per_minute", 5),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(counted(&admission.counters.would_limit), expected);
    assert_eq!(counted(&admission.counters.limited), []);
    // Descriptors are not let past.
    let node: Vec<_> = (0..9).map_while(|_| admission.connect_node()).collect();
    assert_eq!(node.len(), 5);
    assert_eq!(
        counted(&admission.counters.limited),
        [("connections".to_owned(), 1)]
    );
    // Who was let past is counted like the others, and gives back what it took.
    drop((held, users));
    assert_eq!(admission.by_address.count(admission.address_key(from)), 0);
}

#[tokio::test]
async fn a_flood_that_was_refused_does_not_ask_the_store() {
    let clock = Clock::manual(0);
    let admission = admission(&limits(), clock.clone());
    let from = ip("192.0.2.1");
    for _ in 0..10 {
        assert_eq!(admission.sign_in(from).await, Ok(()));
    }
    assert_eq!(admission.sign_in(from).await, too_many(6));
    admission.store.close().await.unwrap();
    for _ in 0..1_000 {
        assert_eq!(admission.sign_in(from).await, too_many(6));
    }
    // Then it is asked again, and without it nobody is let in.
    clock.advance(Duration::from_secs(6));
    let unknown = || Err(NotNow::Unknown(Error::Closed));
    assert_eq!(admission.sign_in(from).await, unknown());
    assert_eq!(admission.sign_in(ip("192.0.2.2")).await, unknown());
    assert_eq!(admission.sign_in_failed(from, Some("w1")).await, unknown());
}

#[tokio::test]
async fn a_larger_limit_counts_at_once() {
    let clock = Clock::manual(0);
    let house = admission(&limits(), clock.clone());
    let from = ip("192.0.2.1");
    for _ in 0..10 {
        assert_eq!(house.sign_in(from).await, Ok(()));
    }
    assert_eq!(house.sign_in(from).await, too_many(6));
    let mut more = limits();
    more.sign_in_per_minute = 600;
    house.rebound(&more);
    clock.advance(Duration::from_millis(100));
    assert_eq!(house.sign_in(from).await, Ok(()));
}
