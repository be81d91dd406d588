//! Other terms for a worker that is running: limits and rules count at once, for who is there too.

use std::sync::Arc;

use super::channels::Slot;
use super::{State, Worker};
use crate::session::{Input, Terms};

impl Worker {
    /// Goes by these terms from now on. Subscriptions that they do not allow end; who is where is
    /// known from now on, or no longer.
    pub(super) fn renew(&self, terms: Arc<Terms>) {
        let now = self.outfit.services.clock.now();
        let state = &mut *self.state.borrow_mut();
        let before = std::mem::replace(&mut state.terms, terms.clone());
        self.count_presence(state, &before);
        let message_bytes = terms.limits.message_bytes;
        state.engine.rebound(message_bytes);
        let slots: Vec<Slot> = state
            .connections
            .iter_mut()
            .map(|(slot, connection)| {
                connection.dialogue.rebound(message_bytes);
                slot as Slot
            })
            .collect();
        if before.channels != terms.channels {
            let rules = &terms.channels;
            state.channels.renew(|key| rules.slow(key.kind()));
            for slot in slots {
                self.input(state, slot, Input::Terms, now);
            }
        }
    }

    /// What joined before its channel had presence enters now, and the other way round: from now on
    /// leaving goes by the new terms, and has to find what it takes back.
    fn count_presence(&self, state: &State, before: &Terms) {
        let changed = state.channels.all(|key| {
            before.channels.has_presence(key.kind())
                != state.terms.channels.has_presence(key.kind())
        });
        let presence = &self.outfit.services.presence;
        for (key, members) in changed {
            let enters = state.terms.channels.has_presence(key.kind());
            for slot in members {
                let connection = state.connections.get(slot as usize);
                let Some(session) = connection.and_then(|one| one.session.as_ref()) else {
                    continue;
                };
                let user_id = &session.identity().user_id;
                if enters {
                    presence.enter(&key, user_id);
                    presence.heard(&key, user_id);
                } else {
                    presence.leave(&key, user_id);
                }
            }
        }
    }
}
