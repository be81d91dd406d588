//! Channels that had no event where they came from.
//!
//! The embedded store has one epoch, its ground, for all channels without events; clients hold the position
//! 0 of it. Here such a channel begins with an epoch of its own, and whoever comes with (ground, 0) is told
//! what came since its position 0 instead. That is all there ever was, as long as nothing of the channel
//! can have been forgotten: for an hour after the migration (a channel is remembered at least so long
//! after its last event, and longer if it was migrated), and by the same process of Redis.

use super::super::Redis;
use super::super::call::Call;
use super::super::history::decode;
use crate::broker::Error;
use crate::protocol::{ChannelKey, Epoch, Position};

/// For how long after a migration: less than a channel is remembered after its last event.
pub(super) const HOLD_MS: u64 = 60 * 60 * 1000;

/// `EPOCH UNTIL RUN_ID,RUN_ID..`
pub(super) struct Ground {
    pub(super) epoch: Epoch,
    until_ms: u64,
    run_ids: String,
}

impl Ground {
    pub(super) fn new(epoch: Epoch, until_ms: u64, run_ids: String) -> Self {
        Self {
            epoch,
            until_ms,
            run_ids,
        }
    }

    pub(super) fn to_text(&self) -> String {
        format!("{} {} {}", self.epoch.as_str(), self.until_ms, self.run_ids)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            epoch: super::super::wire::epoch(words.next()?.as_bytes())?,
            until_ms: words.next()?.parse().ok()?,
            run_ids: words.next()?.to_owned(),
        })
    }

    fn holds(&self, epoch: &Epoch, run_id: &str, now_ms: u64) -> bool {
        self.epoch == *epoch
            && now_ms < self.until_ms
            && self.run_ids.split(',').any(|known| known == run_id)
    }
}

impl Redis {
    /// Whether nothing but what is there ever happened to a channel since `position`, which is of
    /// another epoch.
    pub(in crate::broker::redis) async fn stands_on_ground(
        &self,
        channel: &ChannelKey,
        position: &Position,
    ) -> Result<bool, Error> {
        if position.offset != 0 || self.ground.get() != Some(&position.epoch) {
            return Ok(false);
        }
        // Read anew: a Redis that was emptied has forgotten it, too.
        let call = Call::command("GET", self.keys.of_all_nodes("migration", "g"));
        let text: Option<String> = decode(self.link.call(&call).await?)?;
        let slot = Call::command("GET", self.keys.channel(channel, "m")).slot();
        let server = self.link.server(slot)?;
        let ground = text.as_deref().and_then(Ground::parse);
        Ok(ground.is_some_and(|ground| {
            ground.holds(&position.epoch, &server.run_id, self.clock.unix_ms())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_its_time_and_its_processes() {
        let epoch = Epoch::new("00ff");
        let ground = Ground::new(epoch.clone(), 1_000, "a,b".into());
        let ground = Ground::parse(&ground.to_text()).unwrap();
        assert!(ground.holds(&epoch, "a", 999) && ground.holds(&epoch, "b", 0));
        assert!(!ground.holds(&epoch, "a", 1_000));
        assert!(!ground.holds(&epoch, "c", 0));
        assert!(!ground.holds(&Epoch::new("00fe"), "a", 0));
        assert!(Ground::parse("nonsense").is_none());
    }
}
