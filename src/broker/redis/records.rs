//! The [`Store`] of a [`Client`].

use std::time::Duration;

use bytes::Bytes;

use super::Client;
use crate::broker::{
    Added, Answer, Changed, Draw, Health, NewNotification, NotificationPage, NotificationQuery,
    ReadMark, Revocation, RevocationPage, Store, StoreFigures, Stored, User, UserChange,
};

impl Store for Client {
    fn set(&self, space: &str, key: &str, value: Bytes, ttl: Option<Duration>) -> Answer<'_, ()> {
        let accepted = self.redis.accept();
        let (space, key) = (space.to_owned(), key.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.set_value(&space, &key, &value, ttl).await
        })
    }

    fn get(&self, space: &str, key: &str) -> Answer<'_, Option<Stored>> {
        let accepted = self.redis.accept();
        let (space, key) = (space.to_owned(), key.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.value(&space, &key).await
        })
    }

    fn delete(&self, space: &str, key: &str) -> Answer<'_, bool> {
        let accepted = self.redis.accept();
        let (space, key) = (space.to_owned(), key.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.delete_value(&space, &key).await
        })
    }

    fn compare_and_set(
        &self,
        space: &str,
        key: &str,
        expected: Option<u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Answer<'_, bool> {
        let accepted = self.redis.accept();
        let (space, key) = (space.to_owned(), key.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            let swap = self.redis.swap_value((&space, &key), expected, &value, ttl);
            swap.await
        })
    }

    fn user(&self, id: &str) -> Answer<'_, Option<User>> {
        let (accepted, id) = (self.redis.accept(), id.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.find_user(&id).await
        })
    }

    fn user_by_wallet(&self, wallet: &str) -> Answer<'_, Option<User>> {
        let (accepted, wallet) = (self.redis.accept(), wallet.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.find_owner(&wallet).await
        })
    }

    fn provision_user(&self, wallet: &str) -> Answer<'_, User> {
        let (accepted, wallet) = (self.redis.accept(), wallet.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.provision(&wallet).await
        })
    }

    fn put_user(&self, id: &str, change: UserChange) -> Answer<'_, User> {
        let (accepted, id) = (self.redis.accept(), id.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.change_user(&id, change).await
        })
    }

    fn add_notification(
        &self,
        new: NewNotification,
        idempotency_key: Option<String>,
    ) -> Answer<'_, Added> {
        let accepted = self.redis.accept();
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.add_note(new, idempotency_key).await
        })
    }

    fn notifications(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Answer<'_, NotificationPage> {
        let (accepted, user_id) = (self.redis.accept(), user_id.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.note_page(&user_id, query).await
        })
    }

    fn mark_notifications(&self, user_id: &str, mark: ReadMark) -> Answer<'_, Changed> {
        let (accepted, user_id) = (self.redis.accept(), user_id.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.mark_notes(&user_id, mark).await
        })
    }

    fn delete_notification(&self, user_id: &str, id: &str) -> Answer<'_, Changed> {
        let (accepted, user_id) = (self.redis.accept(), user_id.to_owned());
        let ids = vec![id.to_owned()];
        Box::pin(async move {
            let _accepted = accepted?;
            let deletion = self.redis.change_notes(&user_id, "delete", ids);
            let mut changed = deletion.await?;
            changed.ids.clear();
            Ok(changed)
        })
    }

    fn clear_read_notifications(&self, user_id: &str) -> Answer<'_, Changed> {
        let (accepted, user_id) = (self.redis.accept(), user_id.to_owned());
        Box::pin(async move {
            let _accepted = accepted?;
            let clearing = self.redis.change_notes(&user_id, "clear-read", Vec::new());
            clearing.await
        })
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, ()> {
        let accepted = self.redis.accept();
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.remember_revocation(revocation).await
        })
    }

    fn revocations(&self, cursor: Option<String>, limit: usize) -> Answer<'_, RevocationPage> {
        let accepted = self.redis.accept();
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.revocation_page(cursor, limit).await
        })
    }

    fn spend(&self, owner: &str, draws: &[Draw]) -> Answer<'_, Option<Duration>> {
        let (accepted, owner) = (self.redis.accept(), owner.to_owned());
        let draws = draws.to_vec();
        Box::pin(async move {
            let _accepted = accepted?;
            self.redis.take_from(&owner, &draws).await
        })
    }

    fn health(&self) -> Health {
        self.redis.health()
    }

    /// What Redis itself holds is Redis's to tell; here is what this node asks of it.
    fn figures(&self) -> StoreFigures {
        StoreFigures {
            queued_writes: self.redis.link.depth() as u64,
            ..StoreFigures::default()
        }
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.redis.close().await;
            Ok(())
        })
    }
}
