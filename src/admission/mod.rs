//! Who may come in, and how often: budgets per address, counts per address, user and node.
//!
//! Every table is bounded. Keys are kept as keyed hashes only: 16 bytes an entry whatever a user id
//! looks like, and nobody outside can aim for a collision, which would merely share a limit.

mod address;
mod budget;
mod census;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use address::{AddressGroup, client_address, is_trusted};
pub use census::Permit;

use crate::clock::Clock;
use crate::config::Limits;
use budget::{Budgets, Rate};
use census::Census;

/// How many seconds' worth of requests an address may make at once.
const REQUEST_BURST_SECONDS: u32 = 2;

/// The limits of contract section 6 that concern who comes in.
pub struct Admission {
    clock: Clock,
    hasher: RandomState,
    bounds: ArcSwap<Bounds>,
    sign_ins: Budgets,
    requests: Budgets,
    accepts: Budgets,
    on_node: Arc<Census>,
    plain_by_address: Arc<Census>,
    by_address: Arc<Census>,
    by_user: Arc<Census>,
}

/// What is allowed at the moment.
struct Bounds {
    sign_ins: Option<Rate>,
    requests: Option<Rate>,
    accepts: Option<Rate>,
    on_node: usize,
    by_address: usize,
    by_user: usize,
}

/// How long to wait, in whole seconds, at least 1: the value of `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(pub u64);

impl RetryAfter {
    fn from_nanos(nanos: u64) -> Self {
        Self(nanos.div_ceil(1_000_000_000).max(1))
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Admission {
    /// An empty house with these limits.
    pub fn new(limits: &Limits, clock: Clock) -> Self {
        Self {
            clock,
            hasher: RandomState::new(),
            bounds: ArcSwap::from_pointee(Bounds::of(limits)),
            sign_ins: Budgets::per_key(),
            requests: Budgets::per_key(),
            accepts: Budgets::single(),
            on_node: Census::new(),
            plain_by_address: Census::new(),
            by_address: Census::new(),
            by_user: Census::new(),
        }
    }

    /// Other limits from now on. Who is in stays, even if there are more than may be now.
    pub fn rebound(&self, limits: &Limits) {
        self.bounds.store(Arc::new(Bounds::of(limits)));
    }

    /// Spends one of `limits.sign_in_per_minute`.
    pub fn sign_in(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let rate = self.bounds.load().sign_ins;
        self.spend(&self.sign_ins, rate, self.address_key(from))
    }

    /// Spends one of `limits.requests_per_second`.
    pub fn request(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let rate = self.bounds.load().requests;
        self.spend(&self.requests, rate, self.address_key(from))
    }

    /// Spends one of the node's `limits.accepts_per_second`: for every upgrade, good or not.
    pub fn accept(&self) -> Result<(), RetryAfter> {
        let rate = self.bounds.load().accepts;
        self.spend(&self.accepts, rate, 0)
    }

    /// Takes one of the node's `limits.connections`; `None`: there is none left (503).
    pub fn connect_node(&self) -> Option<Permit> {
        Census::enter(&self.on_node, 0, self.bounds.load().on_node)
    }

    /// Takes one of this address's `limits.connections_per_address`; `None`: none left (429).
    pub fn connect(&self, from: IpAddr) -> Option<Permit> {
        let most = self.bounds.load().by_address;
        Census::enter(&self.by_address, self.address_key(from), most)
    }

    /// Takes one of as many sockets that are no WebSockets (yet), of which this address may have
    /// `limits.connections_per_address`, too; `None`: none left (429).
    pub fn accept_plain(&self, from: IpAddr) -> Option<Permit> {
        let most = self.bounds.load().by_address;
        Census::enter(&self.plain_by_address, self.address_key(from), most)
    }

    /// Takes one of this user's `limits.connections_per_user`; `None`: none left (close 4302).
    pub fn connect_user(&self, user_id: &str) -> Option<Permit> {
        let most = self.bounds.load().by_user;
        Census::enter(&self.by_user, self.hasher.hash_one(user_id), most)
    }

    /// Connections that hold a permit of the node.
    pub fn connections(&self) -> usize {
        self.on_node.count(0)
    }

    fn address_key(&self, from: IpAddr) -> u64 {
        self.hasher.hash_one(AddressGroup::of(from))
    }

    fn spend(&self, budgets: &Budgets, rate: Option<Rate>, key: u64) -> Result<(), RetryAfter> {
        let now_ns = self.clock.now().mono_ms.saturating_mul(1_000_000);
        let spent = budgets.spend(rate, key, now_ns);
        spent.map_err(RetryAfter::from_nanos)
    }
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        let second = Duration::from_secs(1);
        let minute = Duration::from_secs(60);
        let requests = limits.requests_per_second;
        Self {
            sign_ins: Rate::new(limits.sign_in_per_minute, minute, limits.sign_in_per_minute),
            requests: Rate::new(
                requests,
                second,
                requests.saturating_mul(REQUEST_BURST_SECONDS),
            ),
            accepts: Rate::new(limits.accepts_per_second, second, limits.accepts_per_second),
            on_node: limits.connections,
            by_address: limits.connections_per_address,
            by_user: limits.connections_per_user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 5,
            connections_per_user: 2,
            connections_per_address: 3,
            accepts_per_second: 4,
            sign_in_per_minute: 10,
            requests_per_second: 50,
            commands_per_second: 0,
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ten_sign_ins_a_minute_then_one_every_six_seconds() {
        let clock = Clock::manual(0);
        let admission = Admission::new(&limits(), clock.clone());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..10 {
            assert_eq!(admission.sign_in(one), Ok(()));
        }
        assert_eq!(admission.sign_in(one), Err(RetryAfter(6)));
        assert_eq!(admission.sign_in(other), Ok(()));
        clock.advance(Duration::from_millis(5_999));
        assert_eq!(admission.sign_in(one), Err(RetryAfter(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(admission.sign_in(one), Ok(()));
        assert_eq!(admission.sign_in(one), Err(RetryAfter(6)));
    }

    #[test]
    fn neighbours_in_one_64_share_and_others_do_not() {
        let admission = Admission::new(&limits(), Clock::manual(0));
        for n in 0..10 {
            assert_eq!(admission.sign_in(ip(&format!("2001:db8::{n}"))), Ok(()));
        }
        assert!(admission.sign_in(ip("2001:db8::ffff:1")).is_err());
        assert_eq!(admission.sign_in(ip("2001:db8:0:1::1")), Ok(()));
        // An address that came through a dual-stack socket is the same one.
        for _ in 0..10 {
            assert_eq!(admission.sign_in(ip("::ffff:192.0.2.1")), Ok(()));
        }
        assert!(admission.sign_in(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn accepts_are_the_nodes_and_come_back_with_time() {
        let clock = Clock::manual(0);
        let admission = Admission::new(&limits(), clock.clone());
        for _ in 0..4 {
            assert_eq!(admission.accept(), Ok(()));
        }
        assert_eq!(admission.accept(), Err(RetryAfter(1)));
        clock.advance(Duration::from_millis(500));
        assert_eq!(admission.accept(), Ok(()));
        assert_eq!(admission.accept(), Ok(()));
        assert!(admission.accept().is_err());
    }

    #[test]
    fn a_permit_is_small_and_gives_back_what_it_took() {
        assert!(size_of::<Permit>() <= 16);
        let admission = Admission::new(&limits(), Clock::manual(0));
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

        let _two = (admission.connect_user("u1"), admission.connect_user("u1"));
        assert!(admission.connect_user("u1").is_none());
        assert!(admission.connect_user("u2").is_some());

        let node: Vec<Permit> = (0..9).map_while(|_| admission.connect_node()).collect();
        assert_eq!((node.len(), admission.connections()), (5, 5));
        drop(node);
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn other_limits_count_from_the_next_one_who_comes() {
        let admission = Admission::new(&limits(), Clock::manual(0));
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

    #[test]
    fn no_limit_is_no_limit() {
        let mut limits = limits();
        limits.sign_in_per_minute = u32::MAX;
        limits.requests_per_second = 0;
        limits.connections = usize::MAX;
        let admission = Admission::new(&limits, Clock::manual(0));
        let from = ip("192.0.2.1");
        for _ in 0..100_000 {
            assert_eq!(admission.sign_in(from), Ok(()));
            assert_eq!(admission.request(from), Ok(()));
        }
        let held: Vec<Permit> = (0..1_000).map_while(|_| admission.connect_node()).collect();
        assert_eq!(held.len(), 1_000);
    }
}
