//! Budgets for signing in, which all nodes share: they are kept by the store.

use std::net::IpAddr;

use super::limit::{Limit, RetryAfter};
use super::{AddressGroup, Admission};
use crate::broker::{Draw, Error};
use crate::budget::Rate;
use crate::patience::{ANSWER_TIMEOUT, within};

/// The bucket of all sign-ins, and that of those which proved nothing.
const SIGN_INS: &str = "sign_in";
const FAILURES: &str = "failed";

/// Why somebody cannot sign in now.
#[derive(Debug, PartialEq, Eq)]
pub enum NotNow {
    /// After too many. HTTP 429.
    TooMany(RetryAfter),
    /// Nobody knows how many: the store did not say.
    Unknown(Error),
}

impl Admission {
    /// Spends one of `limits.sign_in_per_minute`; an address that has failed too often gets a fraction
    /// of them.
    ///
    /// # Errors
    /// If there is none left, or the store does not answer.
    pub async fn sign_in(&self, from: IpAddr) -> Result<(), NotNow> {
        let bounds = self.bounds.load();
        let key = self.address_key(from);
        // Who was refused costs nothing more until there may be one again: a flood ends here.
        let paused = self.pauses.wait(key, self.now_ns());
        if paused.is_err() {
            let answer = self.answer(&bounds, Limit::SignIns, from, paused);
            return answer.map_err(NotNow::TooMany);
        }
        let draws = [
            draw(FAILURES, bounds.failures, false),
            draw(SIGN_INS, bounds.sign_ins, true),
        ];
        let spent = self.spend(&address(from), &draws).await?;
        if let Err(wait_ns) = spent {
            self.pauses.begin(key, wait_ns, self.now_ns());
        }
        let answer = self.answer(&bounds, Limit::SignIns, from, spent);
        answer.map_err(NotNow::TooMany)
    }

    /// Counts a sign-in that proved nothing: against its address, and against the wallet that it tried
    /// to be.
    ///
    /// # Errors
    /// If this wallet has had so many of them, from wherever, that it has to wait, or the store does
    /// not answer. Who does prove a wallet never waits for what others did to it.
    pub async fn sign_in_failed(&self, from: IpAddr, wallet: Option<&str>) -> Result<(), NotNow> {
        let bounds = self.bounds.load();
        let draws = [draw(FAILURES, bounds.failures, true)];
        let of_address = address(from);
        let by_address = self.spend(&of_address, &draws);
        let Some(wallet) = wallet else {
            // Whether there was one left is said by the next `sign_in`.
            return by_address.await.map(drop);
        };
        let of_wallet = format!("w:{wallet}");
        let (by_address, by_wallet) = tokio::join!(by_address, self.spend(&of_wallet, &draws));
        by_address?.ok();
        let answer = self.answer(&bounds, Limit::SignIns, from, by_wallet?);
        answer.map_err(NotNow::TooMany)
    }

    /// Takes from the buckets that have a bound; the inner `Err`: in how many nanoseconds it could.
    async fn spend(&self, owner: &str, draws: &[Option<Draw>]) -> Result<Result<(), u64>, NotNow> {
        let draws: Vec<Draw> = draws.iter().flatten().copied().collect();
        if draws.is_empty() {
            return Ok(Ok(()));
        }
        let spent = within(ANSWER_TIMEOUT, self.store.spend(owner, &draws)).await;
        Ok(match spent.map_err(NotNow::Unknown)? {
            None => Ok(()),
            Some(wait) => Err(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        })
    }
}

/// `None`: there is no bound.
fn draw(bucket: &'static str, rate: Option<Rate>, is_taken: bool) -> Option<Draw> {
    rate.map(|rate| Draw {
        bucket,
        rate,
        is_taken,
    })
}

/// An address as the owner of a budget.
fn address(from: IpAddr) -> String {
    format!("a:{}", AddressGroup::of(from))
}
