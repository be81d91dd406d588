//! The [`Broker`] of a [`Client`].

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Client;
use super::call::Call;
use super::followed::Order;
use super::history::Question;
use crate::broker::{
    Answer, Broker, Deliver, Entry, Error, Health, NOTICE_BYTES_MAX, Present, Publication,
    Published, Recovery, Unrecoverable,
};
use crate::protocol::{ChannelKey, Position};

impl Broker for Client {
    fn start(&self, sink: Arc<dyn Deliver>) -> Answer<'_, ()> {
        let outcome = self.redis.accept().map(|_| {
            let mut place = self
                .redis
                .sink
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *place = Some(sink);
        });
        Box::pin(std::future::ready(outcome))
    }

    fn subscribe(&self, channel: &ChannelKey) -> Answer<'_, ()> {
        self.order(|waiting| Order::Follow(channel.clone(), waiting))
    }

    fn unsubscribe(&self, channel: &ChannelKey) -> Answer<'_, ()> {
        self.order(|waiting| Order::Leave(channel.clone(), waiting))
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        let accepted = self.redis.accept();
        Box::pin(async move {
            let _accepted = accepted?;
            match publication.retention {
                Some(retention) => self.redis.append(&publication, retention).await,
                None => self.redis.pass(&publication).await,
            }
        })
    }

    fn position(&self, channel: &ChannelKey) -> Answer<'_, Position> {
        let (accepted, channel) = (self.redis.accept(), channel.clone());
        Box::pin(async move {
            let _accepted = accepted?;
            let read = self.redis.read(&channel, Question::Position).await?;
            Ok(read.position())
        })
    }

    fn recover(&self, channel: &ChannelKey, since: &Position) -> Answer<'_, Recovery> {
        let (accepted, channel) = (self.redis.accept(), channel.clone());
        let since = since.clone();
        Box::pin(async move {
            let _accepted = accepted?;
            let question = Question::Since(&since, self.redis.bounds().recovery_events);
            let read = self.redis.read(&channel, question).await?;
            let recovery = read.since(&since);
            let is_other = matches!(recovery.missed, Err(Unrecoverable::EpochChanged));
            if is_other && self.redis.stands_on_ground(&channel, &since).await? {
                let epoch = recovery.position.epoch;
                let since = Position { epoch, offset: 0 };
                let question = Question::Since(&since, self.redis.bounds().recovery_events);
                let read = self.redis.read(&channel, question).await?;
                return Ok(read.since(&since));
            }
            Ok(recovery)
        })
    }

    fn history(
        &self,
        channel: &ChannelKey,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)> {
        let (accepted, channel) = (self.redis.accept(), channel.clone());
        Box::pin(async move {
            let _accepted = accepted?;
            let question = Question::Before(before, limit);
            Ok(self.redis.read(&channel, question).await?.page())
        })
    }

    fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        let accepted = self.redis.accept();
        let (channel, user_id) = (channel.clone(), Arc::clone(user_id));
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.enter_channel(&channel, &user_id).await
        })
    }

    fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        let accepted = self.redis.accept();
        let (channel, user_id) = (channel.clone(), Arc::clone(user_id));
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.leave_channel(&channel, &user_id).await
        })
    }

    fn present(&self, channel: &ChannelKey, limit: usize) -> Answer<'_, Present> {
        let (accepted, channel) = (self.redis.accept(), channel.clone());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.who_is_present(&channel, limit).await
        })
    }

    fn announce(&self, notice: Bytes) -> Answer<'_, ()> {
        debug_assert!(notice.len() <= NOTICE_BYTES_MAX);
        let accepted = self.redis.accept();
        Box::pin(async move {
            let _accepted = accepted?;
            // Else this node would not hear it.
            if !self.redis.hears_notices() {
                return Err(Error::Unavailable);
            }
            let line = self.redis.keys.notice_line();
            let call = Call::command("PUBLISH", line).arg(notice);
            self.redis.hearing().call(&call).await.map(drop)
        })
    }

    fn health(&self) -> Health {
        self.redis.health()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.redis.close().await;
            Ok(())
        })
    }
}

impl Client {
    /// Gives an order now, so that orders are obeyed in the order of the calls, and waits for its answer.
    fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Order,
    ) -> Answer<'_, ()> {
        let accepted = self.redis.accept();
        let (waiting, answer) = oneshot::channel();
        if accepted.is_ok() {
            let _ = self.redis.orders.send(order(waiting));
        }
        Box::pin(async move {
            let _accepted = accepted?;
            answer.await.unwrap_or(Err(Error::Closed))
        })
    }
}
