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
use crate::metrics::Counters;
use crate::sparing::Sparing;
use budget::{Budgets, Rate};
use census::Census;

/// How many seconds' worth of requests an address may make at once.
const REQUEST_BURST_SECONDS: u32 = 2;

/// Sign-ins that fail come back so many times slower than others.
const FAILURES_SLOWER: u32 = 4;

/// The limits of contract section 6 that concern who comes in.
pub struct Admission {
    clock: Clock,
    hasher: RandomState,
    counters: Arc<Counters>,
    bounds: ArcSwap<Bounds>,
    /// Of dry runs.
    notes: [Sparing; 5],
    sign_ins: Budgets,
    failures_by_address: Budgets,
    failures_by_wallet: Budgets,
    requests: Budgets,
    accepts: Budgets,
    on_node: Arc<Census>,
    plain_by_address: Arc<Census>,
    by_address: Arc<Census>,
    by_user: Arc<Census>,
}

/// What is allowed at the moment.
struct Bounds {
    /// Nobody is refused but where descriptors run out.
    dry_run: bool,
    sign_ins: Option<Rate>,
    failures: Option<Rate>,
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
    pub fn new(limits: &Limits, clock: Clock, counters: Arc<Counters>) -> Self {
        Self {
            clock,
            hasher: RandomState::new(),
            counters,
            notes: Default::default(),
            failures_by_address: Budgets::per_key(),
            failures_by_wallet: Budgets::per_key(),
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

    /// Spends one of `limits.sign_in_per_minute`; an address that has failed too often gets a fraction
    /// of them.
    pub fn sign_in(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let bounds = self.bounds.load();
        let key = self.address_key(from);
        let failed = self
            .failures_by_address
            .wait(bounds.failures, key, self.now_ns());
        let spent = failed.and_then(|()| self.sign_ins.spend(bounds.sign_ins, key, self.now_ns()));
        self.answer(&bounds, Limit::SignIns, from, spent)
    }

    /// Counts a sign-in that proved nothing: against its address, and against the wallet that it tried
    /// to be. `Err`: this wallet has had so many of them, from wherever, that it has to wait. Who does
    /// prove a wallet never waits for what others did to it.
    pub fn sign_in_failed(&self, from: IpAddr, wallet: Option<&str>) -> Result<(), RetryAfter> {
        let bounds = self.bounds.load();
        let (rate, now_ns) = (bounds.failures, self.now_ns());
        // Whether there was one left is said by the next `sign_in`.
        let _ = self
            .failures_by_address
            .spend(rate, self.address_key(from), now_ns);
        let Some(wallet) = wallet else {
            return Ok(());
        };
        let key = self.hasher.hash_one(wallet);
        let spent = self.failures_by_wallet.spend(rate, key, now_ns);
        self.answer(&bounds, Limit::SignIns, from, spent)
    }

    /// Spends one of `limits.requests_per_second`.
    pub fn request(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let bounds = self.bounds.load();
        let spent = self
            .requests
            .spend(bounds.requests, self.address_key(from), self.now_ns());
        self.answer(&bounds, Limit::Requests, from, spent)
    }

    /// Whether this address has any of `limits.requests_per_second` left: for upgrades, which spend
    /// one only if their token is bad.
    pub fn knock(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let bounds = self.bounds.load();
        let left = self
            .requests
            .wait(bounds.requests, self.address_key(from), self.now_ns());
        self.answer(&bounds, Limit::Requests, from, left)
    }

    /// Spends one of the node's `limits.accepts_per_second`: for every upgrade, good or not.
    pub fn accept(&self, from: IpAddr) -> Result<(), RetryAfter> {
        let bounds = self.bounds.load();
        let spent = self.accepts.spend(bounds.accepts, 0, self.now_ns());
        self.answer(&bounds, Limit::Accepts, from, spent)
    }

    /// Takes one of the node's `limits.connections`; `None`: there is none left (503). In a dry run as
    /// well: what there is no descriptor for cannot be let in.
    pub fn connect_node(&self) -> Option<Permit> {
        let permit = Census::enter(&self.on_node, 0, self.bounds.load().on_node);
        if permit.is_none() {
            self.counters.limited.increment("connections");
        }
        permit
    }

    /// Takes one of this address's `limits.connections_per_address`; `None`: none left (429).
    pub fn connect(&self, from: IpAddr) -> Option<Permit> {
        self.enter_by_address(&self.by_address, from)
    }

    /// Takes one of as many sockets that are no WebSockets (yet), of which this address may have
    /// `limits.connections_per_address`, too; `None`: none left (429).
    pub fn accept_plain(&self, from: IpAddr) -> Option<Permit> {
        self.enter_by_address(&self.plain_by_address, from)
    }

    /// Takes one of this user's `limits.connections_per_user`; `None`: none left (close 4302).
    pub fn connect_user(&self, from: IpAddr, user_id: &str) -> Option<Permit> {
        let bounds = self.bounds.load();
        let key = self.hasher.hash_one(user_id);
        self.enter(
            &bounds,
            Limit::ByUser,
            &self.by_user,
            key,
            bounds.by_user,
            from,
        )
    }

    /// Connections that hold a permit of the node.
    pub fn connections(&self) -> usize {
        self.on_node.count(0)
    }

    fn enter_by_address(&self, census: &Arc<Census>, from: IpAddr) -> Option<Permit> {
        let bounds = self.bounds.load();
        let key = self.address_key(from);
        self.enter(
            &bounds,
            Limit::ByAddress,
            census,
            key,
            bounds.by_address,
            from,
        )
    }

    fn enter(
        &self,
        bounds: &Bounds,
        limit: Limit,
        census: &Arc<Census>,
        key: u64,
        most: usize,
        from: IpAddr,
    ) -> Option<Permit> {
        let permit = Census::enter(census, key, most);
        if permit.is_none() && !self.refuses(bounds, limit, from) {
            return Census::enter(census, key, usize::MAX);
        }
        permit
    }

    fn answer(
        &self,
        bounds: &Bounds,
        limit: Limit,
        from: IpAddr,
        spent: Result<(), u64>,
    ) -> Result<(), RetryAfter> {
        match spent {
            Err(wait_ns) if self.refuses(bounds, limit, from) => {
                Err(RetryAfter::from_nanos(wait_ns))
            }
            _ => Ok(()),
        }
    }

    /// Counts one that is past a limit; whether it is refused.
    fn refuses(&self, bounds: &Bounds, limit: Limit, from: IpAddr) -> bool {
        let key = limit.key();
        if !bounds.dry_run {
            self.counters.limited.increment(key);
            return true;
        }
        self.counters.would_limit.increment(key);
        let now_ms = self.clock.now().mono_ms;
        if let Some(held_back) = self.notes[limit as usize].warn(now_ms) {
            tracing::warn!(
                limit = format_args!("limits.{key}"),
                %from,
                held_back,
                "past a limit, and let in all the same (limits.dry_run)"
            );
        }
        false
    }

    fn address_key(&self, from: IpAddr) -> u64 {
        self.hasher.hash_one(AddressGroup::of(from))
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().mono_ms.saturating_mul(1_000_000)
    }
}

/// A limit that a dry run lets past.
#[derive(Debug, Clone, Copy)]
enum Limit {
    SignIns,
    Requests,
    Accepts,
    ByAddress,
    ByUser,
}

impl Limit {
    /// Its key below `limits`.
    const fn key(self) -> &'static str {
        match self {
            Self::SignIns => "sign_in_per_minute",
            Self::Requests => "requests_per_second",
            Self::Accepts => "accepts_per_second",
            Self::ByAddress => "connections_per_address",
            Self::ByUser => "connections_per_user",
        }
    }
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        let second = Duration::from_secs(1);
        let minute = Duration::from_secs(60);
        let requests = limits.requests_per_second;
        let sign_ins = limits.sign_in_per_minute;
        Self {
            dry_run: limits.dry_run,
            sign_ins: Rate::new(sign_ins, minute, sign_ins),
            failures: Rate::new(sign_ins, minute * FAILURES_SLOWER, sign_ins),
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

    fn admission(limits: &Limits, clock: Clock) -> Admission {
        Admission::new(limits, clock, Arc::new(Counters::new(1)))
    }

    fn counted(names: &crate::metrics::Names) -> Vec<(String, u64)> {
        let mut sums = std::collections::BTreeMap::new();
        names.add_to(&mut sums);
        sums.into_iter().collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ten_sign_ins_a_minute_then_one_every_six_seconds() {
        let clock = Clock::manual(0);
        let admission = admission(&limits(), clock.clone());
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
        let admission = admission(&limits(), Clock::manual(0));
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

    #[test]
    fn no_limit_is_no_limit() {
        let mut limits = limits();
        limits.sign_in_per_minute = u32::MAX;
        limits.requests_per_second = 0;
        limits.connections = usize::MAX;
        let admission = admission(&limits, Clock::manual(0));
        let from = ip("192.0.2.1");
        for _ in 0..100_000 {
            assert_eq!(admission.sign_in(from), Ok(()));
            assert_eq!(admission.request(from), Ok(()));
        }
        let held: Vec<Permit> = (0..1_000).map_while(|_| admission.connect_node()).collect();
        assert_eq!(held.len(), 1_000);
    }

    #[test]
    fn failed_sign_ins_slow_their_address_down_and_nobody_else() {
        let clock = Clock::manual(0);
        let admission = admission(&limits(), clock.clone());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..10 {
            assert_eq!(admission.sign_in(one), Ok(()));
            assert_eq!(admission.sign_in_failed(one, None), Ok(()));
        }
        // Both budgets are spent; the one of failures comes back a quarter as fast.
        assert_eq!(admission.sign_in(one), Err(RetryAfter(24)));
        clock.advance(Duration::from_secs(23));
        assert_eq!(admission.sign_in(one), Err(RetryAfter(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(admission.sign_in(one), Ok(()));
        assert_eq!(admission.sign_in_failed(one, None), Ok(()));
        assert_eq!(admission.sign_in(one), Err(RetryAfter(24)));
        assert_eq!(admission.sign_in(other), Ok(()));
        // What was right costs nothing of it.
        clock.advance(Duration::from_secs(24));
        for _ in 0..4 {
            assert_eq!(admission.sign_in(one), Ok(()));
        }
    }

    #[test]
    fn failures_for_one_wallet_are_slowed_down_wherever_they_come_from() {
        let clock = Clock::manual(0);
        let admission = admission(&limits(), clock.clone());
        let from = |n: u32| ip(&format!("198.51.100.{n}"));
        for n in 0..10 {
            assert_eq!(admission.sign_in_failed(from(n), Some("w1")), Ok(()));
        }
        assert_eq!(
            admission.sign_in_failed(from(10), Some("w1")),
            Err(RetryAfter(24))
        );
        assert_eq!(admission.sign_in_failed(from(11), Some("w2")), Ok(()));
        // Whoever comes to prove it is let in to do so.
        assert_eq!(admission.sign_in(from(12)), Ok(()));
        clock.advance(Duration::from_secs(24));
        assert_eq!(admission.sign_in_failed(from(13), Some("w1")), Ok(()));
    }

    #[test]
    fn whoever_knocks_takes_nothing() {
        let admission = admission(&limits(), Clock::manual(0));
        let from = ip("192.0.2.1");
        for _ in 0..1_000 {
            assert_eq!(admission.knock(from), Ok(()));
        }
        for _ in 0..100 {
            assert_eq!(admission.request(from), Ok(()));
        }
        assert_eq!(admission.knock(from), Err(RetryAfter(1)));
    }

    #[test]
    fn a_dry_run_counts_what_it_lets_past() {
        let mut limits = limits();
        limits.dry_run = true;
        let admission = admission(&limits, Clock::manual(0));
        let from = ip("192.0.2.1");
        for _ in 0..15 {
            assert_eq!(admission.sign_in(from), Ok(()));
        }
        for _ in 0..105 {
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
}
