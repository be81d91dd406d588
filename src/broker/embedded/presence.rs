//! Who is in which channel: in memory, because it ends with the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::broker::{Error, Present};
use crate::limits::PRESENCE_ENTRIES_MAX;
use crate::protocol::ChannelKey;

/// Channels that somebody is in.
#[derive(Default)]
pub(super) struct Rooms {
    /// No set is empty.
    users: HashMap<ChannelKey, BTreeSet<Arc<str>>>,
    /// Of all sets together; at most [`PRESENCE_ENTRIES_MAX`].
    entries: usize,
}

impl Rooms {
    /// `true`: the user was not there.
    pub(super) fn enter(
        &mut self,
        channel: &ChannelKey,
        user_id: &Arc<str>,
    ) -> Result<bool, Error> {
        if let Some(users) = self.users.get(channel)
            && users.contains(user_id)
        {
            return Ok(false);
        }
        if self.entries >= PRESENCE_ENTRIES_MAX {
            return Err(Error::Overloaded);
        }
        let users = self.users.entry(channel.clone()).or_default();
        users.insert(Arc::clone(user_id));
        self.entries += 1;
        Ok(true)
    }

    /// `true`: the user was there.
    pub(super) fn leave(&mut self, channel: &ChannelKey, user_id: &Arc<str>) -> bool {
        let Some(users) = self.users.get_mut(channel) else {
            return false;
        };
        let left = users.remove(user_id);
        if left {
            self.entries -= 1;
        }
        if users.is_empty() {
            self.users.remove(channel);
        }
        left
    }

    pub(super) fn present(&self, channel: &ChannelKey, limit: usize) -> Present {
        self.users
            .get(channel)
            .map_or_else(Present::default, |users| Present {
                users: users.iter().take(limit).cloned().collect(),
                count: users.len() as u64,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_are_bounded_and_given_back() {
        let mut rooms = Rooms {
            entries: PRESENCE_ENTRIES_MAX - 1,
            ..Rooms::default()
        };
        let channel = ChannelKey::parse("room_1", 255).unwrap();
        let user = |name: &str| Arc::<str>::from(name);
        assert_eq!(rooms.enter(&channel, &user("a")), Ok(true));
        assert_eq!(rooms.enter(&channel, &user("b")), Err(Error::Overloaded));
        assert_eq!(rooms.enter(&channel, &user("a")), Ok(false));
        assert!(rooms.leave(&channel, &user("a")));
        assert!(rooms.users.is_empty());
        assert_eq!(rooms.enter(&channel, &user("b")), Ok(true));
    }
}
