//! Who may come in, and how often: budgets per address, counts per address, user and node.
//!
//! Every table is bounded. Keys are kept as keyed hashes only: 16 bytes an entry whatever a user id
//! looks like, and nobody outside can aim for a collision, which would merely share a limit.

mod address;
mod census;
mod limit;
mod sign_in;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use address::{AddressGroup, client_address, is_trusted};
pub use census::Permit;
pub use limit::RetryAfter;
pub use sign_in::NotNow;

use crate::broker::Store;
use crate::budget::{Budgets, Pauses};
use crate::clock::Clock;
use crate::config::Limits;
use crate::metrics::Counters;
use crate::sparing::Sparing;
use census::Census;
use limit::{Bounds, Limit};

/// The limits of contract section 6 that concern who comes in.
pub struct Admission {
    clock: Clock,
    hasher: RandomState,
    counters: Arc<Counters>,
    bounds: ArcSwap<Bounds>,
    /// Of dry runs.
    notes: [Sparing; 5],
    /// Has the budgets of signing in.
    store: Arc<dyn Store>,
    /// Addresses that may not sign in, as the store has said.
    pauses: Pauses,
    requests: Budgets,
    accepts: Budgets,
    on_node: Arc<Census>,
    plain_by_address: Arc<Census>,
    by_address: Arc<Census>,
    by_user: Arc<Census>,
}

impl Admission {
    /// An empty house with these limits.
    pub fn new(
        limits: &Limits,
        clock: Clock,
        counters: Arc<Counters>,
        store: Arc<dyn Store>,
    ) -> Self {
        Self {
            clock,
            hasher: RandomState::new(),
            counters,
            notes: Default::default(),
            bounds: ArcSwap::from_pointee(Bounds::of(limits)),
            store,
            pauses: Pauses::none(),
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
        // Perhaps there is one already, at the new rate.
        self.pauses.clear();
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
