//! Follows: asks the servers for the channels that are wanted, and asks again when they change.
//!
//! One task on the thread `fanfare-redis`, beside that of ear.rs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::mpsc;

use super::followed::Order;
use super::link::Link;
use super::server::Server;
use super::slot::slot;
use super::{Redis, lock};
use crate::protocol::ChannelKey;

/// Channels that are asked for in one round trip.
const BATCH: usize = 512;
/// Between two attempts at what failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Follows until there are no more orders.
pub(super) async fn follow(redis: Arc<Redis>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let link = redis.hearing().clone();
    let (mut routes, mut data_routes) = (link.changes(), redis.link.changes());
    redis.look_at_routes();
    loop {
        redis.work().await;
        let is_due = !lock(&redis.followed).due.is_empty() || !redis.hears_notices();
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                redis.obey(order);
                while let Ok(order) = orders.try_recv() {
                    redis.obey(order);
                }
            }
            Ok(()) = routes.changed() => redis.look_at_routes(),
            Ok(()) = data_routes.changed() => redis.data_moved(),
            () = redis.ear.woken() => {
                if redis.ear.has_spilled() {
                    redis.interrupt_all();
                }
            }
            () = tokio::time::sleep(RETRY_AFTER), if is_due => {}
        }
    }
}

impl Redis {
    /// The Redis that pub/sub goes through.
    pub(super) fn hearing(&self) -> &Link {
        self.pubsub.as_ref().unwrap_or(&self.link)
    }

    /// Whether what all nodes are told is heard here.
    pub(super) fn hears_notices(&self) -> bool {
        let server = self.hearing().server(self.notice_slot());
        server.is_ok_and(|server| lock(&self.followed).hears_notices(server.id))
    }

    fn notice_slot(&self) -> u16 {
        slot(self.keys.notice_line().as_bytes())
    }

    pub(super) fn line_slot(&self, channel: &ChannelKey) -> u16 {
        slot(self.keys.sharded_line(channel).as_bytes())
    }

    /// Does what is due, as far as it can be done now.
    async fn work(&self) {
        self.hear_notices().await;
        let due: Vec<ChannelKey> = lock(&self.followed).due.iter().cloned().collect();
        let mut by_server: HashMap<u64, (Arc<Server>, Vec<ChannelKey>)> = HashMap::new();
        for channel in due {
            match self.hearing().server(self.line_slot(&channel)) {
                Ok(server) => {
                    let batch = by_server.entry(server.id);
                    let (_, channels) = batch.or_insert_with(|| (server, Vec::new()));
                    channels.push(channel);
                }
                Err(_) => self.forget_unwanted(&channel),
            }
        }
        for (server, channels) in by_server.into_values() {
            for batch in channels.chunks(BATCH) {
                if !server.is_broken() {
                    self.subscribe_all(&server, batch).await;
                    self.settle(batch).await;
                }
            }
        }
    }

    async fn hear_notices(&self) {
        let Ok(server) = self.hearing().server(self.notice_slot()) else {
            return;
        };
        if lock(&self.followed).hears_notices(server.id) {
            return;
        }
        let cmd = subscription("SUBSCRIBE", self.keys.notice_line());
        // Before the confirmation is seen, a notice may have come.
        lock(&self.followed).notices = Some(server.id);
        let heard = server.ask_pubsub(vec![cmd]).await;
        if heard.as_deref().map(has_error) != Ok(false) {
            lock(&self.followed).notices = None;
            self.failed(&server, heard);
        } else if self.is_ready.send_replace(true)
            && let Some(sink) = self.sink()
        {
            // It was heard before, and not all the time.
            sink.notices_lost();
        }
    }

    /// Makes the subscriptions on `server` what they should be.
    async fn subscribe_all(&self, server: &Arc<Server>, batch: &[ChannelKey]) {
        let is_sharded = server.is_cluster && server.can_shard;
        let mut cmds: Vec<Cmd> = Vec::new();
        let mut asked: Vec<(ChannelKey, bool)> = Vec::new();
        {
            let mut followed = lock(&self.followed);
            for channel in batch {
                let Some(entry) = followed.channels.get_mut(channel) else {
                    continue;
                };
                let is_here = entry.server == Some(server.id) && entry.is_heard;
                if entry.is_wanted == is_here {
                    continue;
                }
                let verbs = if entry.is_wanted {
                    entry.server = Some(server.id);
                    ("SUBSCRIBE", "SSUBSCRIBE")
                } else {
                    ("UNSUBSCRIBE", "SUNSUBSCRIBE")
                };
                cmds.push(subscription(verbs.0, self.keys.open_line(channel)));
                if is_sharded {
                    cmds.push(subscription(verbs.1, self.keys.sharded_line(channel)));
                }
                asked.push((channel.clone(), entry.is_wanted));
            }
        }
        let answers = if cmds.is_empty() {
            Ok(Vec::new())
        } else {
            server.ask_pubsub(cmds).await
        };
        let is_done = answers.as_deref().map(has_error) == Ok(false);
        {
            let mut followed = lock(&self.followed);
            for (channel, is_wanted) in asked {
                if !is_wanted {
                    // Orders are obeyed between batches, so nobody has wanted it again meanwhile.
                    followed.channels.remove(&channel);
                    followed.due.remove(&channel);
                } else if let Some(entry) = followed.channels.get_mut(&channel) {
                    entry.is_heard = is_done;
                    if !is_done {
                        entry.server = None;
                    }
                }
            }
        }
        if !is_done {
            self.failed(server, answers);
        }
    }

    fn failed(&self, server: &Server, answers: redis::RedisResult<Vec<Value>>) {
        let error = match answers.and_then(|answers| {
            answers
                .into_iter()
                .try_for_each(|answer| answer.extract_error().map(drop))
        }) {
            Err(error) => error,
            Ok(()) => return,
        };
        if let Some(held_back) = self.warnings.warn(self.clock.now().mono_ms) {
            tracing::warn!(%error, server = %server.address, held_back, "subscribing failed");
        }
        match error.code() {
            Some("MOVED") => self.hearing().look_again(),
            Some(_) => {}
            None => server.mark_broken(),
        }
    }
}

fn subscription(verb: &str, line: String) -> Cmd {
    let mut cmd = redis::cmd(verb);
    cmd.arg(line);
    cmd
}

fn has_error(answers: &[Value]) -> bool {
    answers
        .iter()
        .any(|answer| matches!(answer, Value::ServerError(_)))
}
