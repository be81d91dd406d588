//! Budgets of all nodes together: when each bucket is full again, by the clock of Redis, for as long as
//! it is not.

use std::time::Duration;

use super::Redis;
use super::call::Call;
use super::history::decode;
use super::scripts::Script;
use crate::broker::{Draw, Error};

impl Redis {
    /// See [`crate::broker::Store::spend`]. A budget that a failover forgets is a full one: no replica is
    /// waited for.
    pub(super) async fn take_from(
        &self,
        owner: &str,
        draws: &[Draw],
    ) -> Result<Option<Duration>, Error> {
        let keys = draws
            .iter()
            .map(|draw| self.keys.budget(owner, draw.bucket));
        let mut call = Call::script(Script::Spend, keys.collect());
        for draw in draws {
            call = call
                .number(micros_up(draw.rate.interval_ns()))
                .number(micros_up(draw.rate.burst_ns()))
                .number(draw.is_taken.into());
        }
        let wait_us: u64 = decode(self.write(&call, false).await?)?;
        Ok((wait_us > 0).then(|| Duration::from_micros(wait_us)))
    }
}

/// Redis' clock tells microseconds.
fn micros_up(nanos: u64) -> u64 {
    nanos.div_ceil(1_000)
}
