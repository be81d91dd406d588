//! Who is connected, for the dashboard: the workers are asked, all at once and for a bounded time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::rfc3339;
use crate::metrics::roster::{Asked, Roster, Row};
use crate::protocol::connection::connection_id;
use crate::router::Router;
use crate::worker::mailbox::{Control, Listed, Mailbox, Wanted, Whom};

/// How often it is looked whether a worker has answered, and how often at most: two seconds.
const POLL: Duration = Duration::from_millis(1);
const POLLS_MAX: usize = 2_000;

/// Of all workers of this node.
pub(super) fn of(router: Arc<Router>, node: Arc<str>) -> Roster {
    Arc::new(move |asked, limit| connected(&router, &node, asked, limit))
}

/// The connections that fit, of all workers; `None` if one of them does not answer.
fn connected(router: &Router, node: &str, asked: Asked, limit: usize) -> Option<Vec<Row>> {
    let wanted = Wanted {
        whom: Whom::Like {
            user: asked.user.into(),
            address: asked.address.into(),
            channel: asked.channel.into(),
        },
        after: asked.after,
        limit,
    };
    let ask = |mailbox: &Mailbox| {
        let (reply, replied) = oneshot::channel();
        let wanted = wanted.clone();
        let _ = mailbox.control(Control::List { wanted, reply });
        replied
    };
    let mut rows = Vec::new();
    let asked: Vec<_> = router.mailboxes().iter().map(ask).collect();
    for replied in asked {
        rows.extend(wait(replied)?.into_iter().map(|listed| Row {
            serial: listed.serial,
            connection_id: connection_id(node, listed.serial),
            user_id: listed.user_id,
            address: listed.address.to_string(),
            connected_at: rfc3339(listed.opened_at),
            transport: if listed.is_stream { "sse" } else { "websocket" },
            channels: listed.channels,
        }));
    }
    rows.sort_unstable_by_key(|row| row.serial);
    rows.truncate(limit);
    Some(rows)
}

/// The thread that asks has no runtime.
fn wait(mut replied: oneshot::Receiver<Vec<Listed>>) -> Option<Vec<Listed>> {
    for _ in 0..POLLS_MAX {
        match replied.try_recv() {
            Ok(listed) => return Some(listed),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => thread::sleep(POLL),
        }
    }
    None
}
