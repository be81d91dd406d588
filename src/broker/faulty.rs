//! Implementations that never answer, or fail after a number of calls, for tests.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Added, Answer, Broker, Changed, Deliver, Draw, Entry, Error, Health, NewNotification,
    NotificationPage, NotificationQuery, Present, Publication, Published, ReadMark, Recovery,
    Revocation, RevocationPage, Store, StoreFigures, Stored, User, UserChange,
};
use crate::protocol::{ChannelKey, Position};

/// Never answers anything, `close` included; says that it is up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

/// Passes calls on to another implementation; after `calls` of them every one fails with `error`,
/// without reaching it. `close` always reaches it.
#[derive(Debug)]
pub struct FailsAfter<T> {
    inner: T,
    calls: AtomicU64,
    error: Error,
}

impl<T> FailsAfter<T> {
    /// Lets `calls` calls through.
    pub fn new(inner: T, calls: u64, error: Error) -> Self {
        Self {
            inner,
            calls: AtomicU64::new(calls),
            error,
        }
    }

    /// Lets `calls` more calls through from now on.
    pub fn mend(&self, calls: u64) {
        self.calls.store(calls, Ordering::Relaxed);
    }

    /// What is wrong, once nothing gets through.
    fn state(&self) -> Option<Health> {
        let spent = self.calls.load(Ordering::Relaxed) == 0;
        spent.then(|| Health::Down(self.error.to_string()))
    }

    fn pass<'a, A: Send + 'a>(
        &'a self,
        call: impl FnOnce(&'a T) -> Answer<'a, A>,
    ) -> Answer<'a, A> {
        let left = self
            .calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match left {
            Ok(_) => call(&self.inner),
            Err(_) => Box::pin(ready(Err(self.error.clone()))),
        }
    }
}

impl Broker for Silent {
    fn start(&self, _: Arc<dyn Deliver>) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn subscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn unsubscribe(&self, _: &ChannelKey) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn publish(&self, _: Publication) -> Answer<'_, Published> {
        Box::pin(pending())
    }

    fn position(&self, _: &ChannelKey) -> Answer<'_, Position> {
        Box::pin(pending())
    }

    fn recover(&self, _: &ChannelKey, _: &Position) -> Answer<'_, Recovery> {
        Box::pin(pending())
    }

    fn history(
        &self,
        _: &ChannelKey,
        _: Option<u64>,
        _: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)> {
        Box::pin(pending())
    }

    fn enter(&self, _: &ChannelKey, _: &Arc<str>) -> Answer<'_, bool> {
        Box::pin(pending())
    }

    fn leave(&self, _: &ChannelKey, _: &Arc<str>) -> Answer<'_, bool> {
        Box::pin(pending())
    }

    fn present(&self, _: &ChannelKey, _: usize) -> Answer<'_, Present> {
        Box::pin(pending())
    }

    fn announce(&self, _: Bytes) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(pending())
    }
}

impl Store for Silent {
    fn set(&self, _: &str, _: &str, _: Bytes, _: Option<Duration>) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn get(&self, _: &str, _: &str) -> Answer<'_, Option<Stored>> {
        Box::pin(pending())
    }

    fn delete(&self, _: &str, _: &str) -> Answer<'_, bool> {
        Box::pin(pending())
    }

    fn compare_and_set(
        &self,
        _: &str,
        _: &str,
        _: Option<u64>,
        _: Bytes,
        _: Option<Duration>,
    ) -> Answer<'_, bool> {
        Box::pin(pending())
    }

    fn user(&self, _: &str) -> Answer<'_, Option<User>> {
        Box::pin(pending())
    }

    fn user_by_wallet(&self, _: &str) -> Answer<'_, Option<User>> {
        Box::pin(pending())
    }

    fn provision_user(&self, _: &str) -> Answer<'_, User> {
        Box::pin(pending())
    }

    fn put_user(&self, _: &str, _: UserChange) -> Answer<'_, User> {
        Box::pin(pending())
    }

    fn add_notification(&self, _: NewNotification, _: Option<String>) -> Answer<'_, Added> {
        Box::pin(pending())
    }

    fn notifications(&self, _: &str, _: NotificationQuery) -> Answer<'_, NotificationPage> {
        Box::pin(pending())
    }

    fn mark_notifications(&self, _: &str, _: ReadMark) -> Answer<'_, Changed> {
        Box::pin(pending())
    }

    fn delete_notification(&self, _: &str, _: &str) -> Answer<'_, Changed> {
        Box::pin(pending())
    }

    fn clear_read_notifications(&self, _: &str) -> Answer<'_, Changed> {
        Box::pin(pending())
    }

    fn revoke(&self, _: Revocation) -> Answer<'_, ()> {
        Box::pin(pending())
    }

    fn revocations(&self, _: Option<String>, _: usize) -> Answer<'_, RevocationPage> {
        Box::pin(pending())
    }

    fn spend(&self, _: &str, _: &[Draw]) -> Answer<'_, Option<Duration>> {
        Box::pin(pending())
    }

    fn health(&self) -> Health {
        Health::Up
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures::default()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(pending())
    }
}

impl<T: Broker> Broker for FailsAfter<T> {
    fn start(&self, sink: Arc<dyn Deliver>) -> Answer<'_, ()> {
        self.pass(|inner| inner.start(sink))
    }

    fn subscribe(&self, channel: &ChannelKey) -> Answer<'_, ()> {
        self.pass(|inner| inner.subscribe(channel))
    }

    fn unsubscribe(&self, channel: &ChannelKey) -> Answer<'_, ()> {
        self.pass(|inner| inner.unsubscribe(channel))
    }

    fn publish(&self, publication: Publication) -> Answer<'_, Published> {
        self.pass(|inner| inner.publish(publication))
    }

    fn position(&self, channel: &ChannelKey) -> Answer<'_, Position> {
        self.pass(|inner| inner.position(channel))
    }

    fn recover(&self, channel: &ChannelKey, since: &Position) -> Answer<'_, Recovery> {
        self.pass(|inner| inner.recover(channel, since))
    }

    fn history(
        &self,
        channel: &ChannelKey,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)> {
        self.pass(|inner| inner.history(channel, before, limit))
    }

    fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        self.pass(|inner| inner.enter(channel, user_id))
    }

    fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool> {
        self.pass(|inner| inner.leave(channel, user_id))
    }

    fn present(&self, channel: &ChannelKey, limit: usize) -> Answer<'_, Present> {
        self.pass(|inner| inner.present(channel, limit))
    }

    fn announce(&self, notice: Bytes) -> Answer<'_, ()> {
        self.pass(|inner| inner.announce(notice))
    }

    fn health(&self) -> Health {
        self.state().unwrap_or_else(|| self.inner.health())
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}

impl<T: Store> Store for FailsAfter<T> {
    fn set(&self, space: &str, key: &str, value: Bytes, ttl: Option<Duration>) -> Answer<'_, ()> {
        self.pass(|inner| inner.set(space, key, value, ttl))
    }

    fn get(&self, space: &str, key: &str) -> Answer<'_, Option<Stored>> {
        self.pass(|inner| inner.get(space, key))
    }

    fn delete(&self, space: &str, key: &str) -> Answer<'_, bool> {
        self.pass(|inner| inner.delete(space, key))
    }

    fn compare_and_set(
        &self,
        space: &str,
        key: &str,
        expected: Option<u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Answer<'_, bool> {
        self.pass(|inner| inner.compare_and_set(space, key, expected, value, ttl))
    }

    fn user(&self, id: &str) -> Answer<'_, Option<User>> {
        self.pass(|inner| inner.user(id))
    }

    fn user_by_wallet(&self, wallet: &str) -> Answer<'_, Option<User>> {
        self.pass(|inner| inner.user_by_wallet(wallet))
    }

    fn provision_user(&self, wallet: &str) -> Answer<'_, User> {
        self.pass(|inner| inner.provision_user(wallet))
    }

    fn put_user(&self, id: &str, change: UserChange) -> Answer<'_, User> {
        self.pass(|inner| inner.put_user(id, change))
    }

    fn add_notification(
        &self,
        new: NewNotification,
        idempotency_key: Option<String>,
    ) -> Answer<'_, Added> {
        self.pass(|inner| inner.add_notification(new, idempotency_key))
    }

    fn notifications(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Answer<'_, NotificationPage> {
        self.pass(|inner| inner.notifications(user_id, query))
    }

    fn mark_notifications(&self, user_id: &str, mark: ReadMark) -> Answer<'_, Changed> {
        self.pass(|inner| inner.mark_notifications(user_id, mark))
    }

    fn delete_notification(&self, user_id: &str, id: &str) -> Answer<'_, Changed> {
        self.pass(|inner| inner.delete_notification(user_id, id))
    }

    fn clear_read_notifications(&self, user_id: &str) -> Answer<'_, Changed> {
        self.pass(|inner| inner.clear_read_notifications(user_id))
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, ()> {
        self.pass(|inner| inner.revoke(revocation))
    }

    fn revocations(&self, cursor: Option<String>, limit: usize) -> Answer<'_, RevocationPage> {
        self.pass(|inner| inner.revocations(cursor, limit))
    }

    fn spend(&self, owner: &str, draws: &[Draw]) -> Answer<'_, Option<Duration>> {
        self.pass(|inner| inner.spend(owner, draws))
    }

    fn health(&self) -> Health {
        self.state().unwrap_or_else(|| self.inner.health())
    }

    fn figures(&self) -> StoreFigures {
        self.inner.figures()
    }

    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Epoch;

    #[tokio::test]
    async fn a_silent_one_never_answers_and_a_failing_one_fails_on_time() {
        let store = FailsAfter::new(Silent, 1, Error::Unavailable);
        assert_eq!(Store::health(&store), Health::Up);
        tokio::select! {
            biased;
            _ = store.get("a", "b") => panic!("answered"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(store.get("a", "b").await, Err(Error::Unavailable));
        assert!(matches!(Store::health(&store), Health::Down(_)));

        let channel = ChannelKey::parse("post_1", 255).unwrap();
        let since = Position {
            epoch: Epoch::new("e"),
            offset: 0,
        };
        let broker = FailsAfter::new(Silent, 0, Error::Overloaded);
        assert_eq!(
            broker.recover(&channel, &since).await,
            Err(Error::Overloaded)
        );
        broker.mend(1);
        assert_eq!(Broker::health(&broker), Health::Up);
    }
}
