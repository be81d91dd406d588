//! Who is in which channel, on all nodes.
//!
//! `{CHANNEL}:p` has the users, each once; `{CHANNEL}:pn` the nodes, each with the time until which it is
//! believed; `{CHANNEL}:p:NODE` the users of a node. A node renews its part while it lives; what a lost
//! one left behind is taken out by whoever comes by next. A node remembers what it told, so that it can
//! tell it again to a Redis that has forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::call::Call;
use super::scripts::Script;
use super::{Redis, lock};
use crate::broker::{Error, Present};
use crate::event_log::without_token;
use crate::limits::PRESENCE_ENTRIES_MAX;
use crate::protocol::ChannelKey;

use super::history::decode;

/// For how long a node is believed that has fallen silent.
const HOLD: Duration = Duration::from_secs(30);
/// How often a node says that it is there.
pub(super) const RENEWAL: Duration = Duration::from_secs(10);
/// Users told of in one call, when a Redis has forgotten.
const CHUNK: usize = 1_000;

/// What this node has told.
#[derive(Default)]
pub(super) struct Told {
    /// No set is empty.
    rooms: HashMap<ChannelKey, BTreeSet<Arc<str>>>,
    /// Of all sets together; at most [`PRESENCE_ENTRIES_MAX`].
    entries: usize,
}

impl Told {
    fn add(&mut self, channel: &ChannelKey, user_id: &Arc<str>) -> Result<(), Error> {
        let is_new = self
            .rooms
            .get(channel)
            .is_none_or(|users| !users.contains(user_id));
        if is_new {
            if self.entries >= PRESENCE_ENTRIES_MAX {
                return Err(Error::Overloaded);
            }
            self.entries += 1;
            let users = self.rooms.entry(channel.clone()).or_default();
            users.insert(Arc::clone(user_id));
        }
        Ok(())
    }

    fn remove(&mut self, channel: &ChannelKey, user_id: &Arc<str>) {
        if let Some(users) = self.rooms.get_mut(channel) {
            self.entries -= usize::from(users.remove(user_id));
            if users.is_empty() {
                self.rooms.remove(channel);
            }
        }
    }
}

impl Redis {
    pub(super) async fn enter_channel(
        &self,
        channel: &ChannelKey,
        user_id: &Arc<str>,
    ) -> Result<bool, Error> {
        lock(&self.told).add(channel, user_id)?;
        let call = self.entering(channel).arg(user_id.as_bytes());
        let answer = match self.link.call(&call).await {
            Ok(answer) => answer,
            Err(error) => {
                // Unknown whether it stands; what is not told is not renewed.
                if error != Error::Unavailable {
                    lock(&self.told).remove(channel, user_id);
                }
                return Err(error);
            }
        };
        Ok(decode::<u64>(answer)? > 0)
    }

    pub(super) async fn leave_channel(
        &self,
        channel: &ChannelKey,
        user_id: &Arc<str>,
    ) -> Result<bool, Error> {
        lock(&self.told).remove(channel, user_id);
        let call = self.leaving(channel, "these").arg(user_id.as_bytes());
        Ok(decode::<u64>(self.link.call(&call).await?)? > 0)
    }

    pub(super) async fn who_is_present(
        &self,
        channel: &ChannelKey,
        limit: usize,
    ) -> Result<Present, Error> {
        let call = Call::script(Script::Present, self.room(channel)).number(limit as u64);
        let (count, users): (u64, Vec<String>) = decode(self.link.call(&call).await?)?;
        Ok(Present {
            users: users.into_iter().map(Arc::from).collect(),
            count,
        })
    }

    /// Says that this node is still there, in all its channels.
    pub(super) async fn renew_presence(&self) {
        let rooms: Vec<(ChannelKey, usize)> = {
            let told = lock(&self.told);
            let rooms = told.rooms.iter();
            rooms
                .map(|(channel, users)| (channel.clone(), users.len()))
                .collect()
        };
        for (channel, count) in rooms {
            let call = Call::script(Script::Present, self.room(&channel))
                .number(0)
                .arg(self.node.as_bytes())
                .number(crate::clock::millis(HOLD));
            match self.link.call(&call).await.and_then(decode::<u64>) {
                Ok(known) if known == count as u64 => {}
                Ok(_) => self.tell_again(&channel).await,
                Err(error) => {
                    let channel = without_token(channel.as_str());
                    tracing::debug!(%error, %channel, "presence could not be renewed");
                    if error == Error::Unavailable {
                        return;
                    }
                }
            }
        }
    }

    /// Makes what Redis knows of this node in a channel what it is.
    async fn tell_again(&self, channel: &ChannelKey) {
        let users: Vec<Arc<str>> = match lock(&self.told).rooms.get(channel) {
            Some(users) => users.iter().cloned().collect(),
            None => return,
        };
        for users in users.chunks(CHUNK) {
            let mut call = self.entering(channel);
            for user_id in users {
                call = call.arg(user_id.as_bytes());
            }
            if let Err(error) = self.link.call(&call).await {
                let channel = without_token(channel.as_str());
                tracing::debug!(%error, %channel, "presence could not be told again");
                return;
            }
        }
        // Somebody may have left while it was told.
        let mut call = self.leaving(channel, "these");
        let mut has_left = false;
        if let Some(now) = lock(&self.told).rooms.get(channel) {
            for user_id in users.iter().filter(|user_id| !now.contains(*user_id)) {
                call = call.arg(user_id.as_bytes());
                has_left = true;
            }
        }
        if has_left {
            let _ = self.link.call(&call).await;
        }
    }

    /// This node's part ends.
    pub(super) async fn end_presence(&self) {
        let rooms = std::mem::take(&mut *lock(&self.told)).rooms;
        for channel in rooms.keys() {
            if let Err(error) = self.link.call(&self.leaving(channel, "all")).await {
                tracing::debug!(%error, "presence ends by itself");
                return;
            }
        }
    }

    fn entering(&self, channel: &ChannelKey) -> Call {
        Call::script(Script::Enter, self.room(channel))
            .arg(self.node.as_bytes())
            .number(crate::clock::millis(HOLD))
    }

    fn leaving(&self, channel: &ChannelKey, whom: &str) -> Call {
        Call::script(Script::Leave, self.room(channel))
            .arg(self.node.as_bytes())
            .arg(whom)
    }

    fn room(&self, channel: &ChannelKey) -> Vec<String> {
        ["p", "pn", "p:"]
            .map(|part| self.keys.channel(channel, part))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_bounded_and_given_back() {
        let mut told = Told {
            entries: PRESENCE_ENTRIES_MAX - 1,
            ..Told::default()
        };
        let channel = ChannelKey::parse("room_1", 255).unwrap();
        let user = |name: &str| Arc::<str>::from(name);
        assert_eq!(told.add(&channel, &user("a")), Ok(()));
        assert_eq!(told.add(&channel, &user("b")), Err(Error::Overloaded));
        assert_eq!(told.add(&channel, &user("a")), Ok(()));
        told.remove(&channel, &user("x"));
        told.remove(&channel, &user("a"));
        assert!(told.rooms.is_empty());
        assert_eq!(told.add(&channel, &user("b")), Ok(()));
    }
}
