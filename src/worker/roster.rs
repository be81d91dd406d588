//! What an operator asks a worker: who is connected, and to close some.

use std::collections::BinaryHeap;

use super::channels::Slot;
use super::connection::{Connection, Life};
use super::mailbox::{Listed, Wanted, Whom};
use super::{State, Worker};
use crate::protocol::Close;
use crate::session::Session;

impl Worker {
    /// The page, in the order of the numbers.
    pub(super) fn list(&self, wanted: &Wanted) -> Vec<Listed> {
        let state = self.state.borrow();
        // The largest number is on top and goes when there are too many.
        let mut first = BinaryHeap::new();
        for (slot, connection) in fitting(&state, &wanted.whom) {
            if connection.serial > wanted.after {
                first.push((connection.serial, slot));
                if first.len() > wanted.limit {
                    first.pop();
                }
            }
        }
        let slots = first.into_sorted_vec().into_iter();
        slots
            .filter_map(|(_, slot)| listed(&state.connections[slot as usize]))
            .collect()
    }

    /// Closes with 4301; how many.
    pub(super) fn disconnect(&self, whom: &Whom, message: Option<&str>) -> usize {
        let now = self.outfit.services.clock.now();
        let mut state = self.state.borrow_mut();
        let slots: Vec<Slot> = fitting(&state, whom).map(|(slot, _)| slot).collect();
        for &slot in &slots {
            self.close_saying(&mut state, slot, Close::Disconnected, message, now);
        }
        slots.len()
    }
}

fn fitting<'a>(state: &'a State, whom: &'a Whom) -> impl Iterator<Item = (Slot, &'a Connection)> {
    state.connections.iter().filter_map(move |(slot, one)| {
        let session = one.session.as_ref()?;
        let user_id = &session.identity().user_id;
        let fits = match whom {
            Whom::Everybody => true,
            Whom::User(user) => user == user_id,
            Whom::Connection(serial) => *serial == one.serial,
            Whom::Like {
                user,
                address,
                channel,
            } => {
                user_id.contains(&**user)
                    && (address.is_empty() || one.address.to_string().starts_with(&**address))
                    && (channel.is_empty() || follows(session, channel))
            }
        };
        (fits && one.life == Life::Open).then_some((slot as Slot, one))
    })
}

fn follows(session: &Session, channel: &str) -> bool {
    let mut keys = session.subscriptions().iter();
    keys.any(|key| key.as_str() == channel)
}

fn listed(connection: &Connection) -> Option<Listed> {
    let session: &Session = connection.session.as_ref()?;
    Some(Listed {
        serial: connection.serial,
        user_id: session.identity().user_id.clone(),
        address: connection.address,
        opened_at: connection.opened_at,
        is_stream: connection.is_event_stream(),
        channels: session.subscriptions().len(),
    })
}
