//! The [`Broker`] of an [`Embedded`].

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;

use super::relaxed::{self, Way};
use super::{Embedded, lock, log};
use crate::broker::{
    Answer, Broker, Deliver, Delivery, Entry, Error, Health, NOTICE_BYTES_MAX, Present,
    Publication, Published, Recovery,
};
use crate::protocol::{ChannelKey, Position};

impl Broker for Embedded {
    fn start(&self, sink: Arc<dyn Deliver>) -> Answer<'_, ()> {
        let open = self.open();
        if open.is_ok() {
            *lock::write(&self.shared.sink) = Some(sink);
        }
        Box::pin(ready(open))
    }

    fn subscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(ready(self.open()))
    }

    fn unsubscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(ready(self.open()))
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        if publication.retention.is_none() && publication.idempotency_key.is_none() {
            return Box::pin(ready(self.pass_on(publication)));
        }
        let detour = match relaxed::publish(&self.shared, &publication) {
            Ok(Way::AtOnce(published)) => return Box::pin(ready(Ok(published))),
            Ok(Way::ByDisk(detour)) => detour,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let bytes = publication.event.as_bytes().len();
        Box::pin(self.write_holding(detour, bytes, move |batch| {
            log::publish(batch, &publication)
        }))
    }

    fn position(&self, channel: &ChannelKey) -> Answer<'_, Position> {
        let position = self
            .open()
            .map(|()| lock::read(&self.shared.histories).position(channel));
        Box::pin(ready(position))
    }

    fn recover(&self, channel: &ChannelKey, since: &Position) -> Answer<'_, Recovery> {
        let recovery = self.open().map(|()| {
            let now_ms = self.shared.clock.unix_ms();
            lock::read(&self.shared.histories).recover(channel, since, now_ms)
        });
        Box::pin(ready(recovery))
    }

    fn history(
        &self,
        channel: &ChannelKey,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)> {
        let page = self.open().map(|()| {
            let now_ms = self.shared.clock.unix_ms();
            let histories = lock::read(&self.shared.histories);
            let entries = histories
                .ring(channel)
                .map_or_else(Vec::new, |ring| ring.page(before, limit, now_ms));
            (histories.position(channel), entries)
        });
        Box::pin(ready(page))
    }

    fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        let entered = self
            .open()
            .and_then(|()| lock::lock(&self.shared.presence).enter(channel, user_id));
        Box::pin(ready(entered))
    }

    fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        let left = self
            .open()
            .map(|()| lock::lock(&self.shared.presence).leave(channel, user_id));
        Box::pin(ready(left))
    }

    fn present(&self, channel: &ChannelKey, limit: usize) -> Answer<'_, Present> {
        let present = self
            .open()
            .map(|()| lock::lock(&self.shared.presence).present(channel, limit));
        Box::pin(ready(present))
    }

    fn announce(&self, notice: Bytes) -> Answer<'_, ()> {
        debug_assert!(
            notice.len() <= NOTICE_BYTES_MAX,
            "a notice of ours is small"
        );
        let announced = self.open().map(|()| self.shared.notice(notice));
        Box::pin(ready(announced))
    }

    fn health(&self) -> Health {
        Embedded::health(self)
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            Embedded::close(self).await;
            Ok(())
        })
    }
}

impl Embedded {
    fn open(&self) -> Result<(), Error> {
        if self.shared.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// An event without history and key: straight to the sink, on this thread.
    fn pass_on(&self, publication: Publication) -> Result<Published, Error> {
        self.open()?;
        self.shared.deliver([Delivery {
            channel: publication.channel,
            event: publication.event,
            position: None,
            trace: publication.trace,
        }]);
        Ok(Published {
            position: None,
            repeated: false,
        })
    }
}
