//! The [`Store`] of an [`Embedded`].

use std::future::ready;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::kv::{self, Class, NEVER};
use super::tables::{KV, NOTE_COUNTS, NOTES, REVOCATIONS, USERS, WALLETS};
use super::{Embedded, notifications, revocations, users};
use crate::broker::{
    Added, Answer, Changed, Draw, Error, Health, NewNotification, NotificationPage,
    NotificationQuery, ReadMark, Revocation, RevocationPage, Store, StoreFigures, Stored, User,
    UserChange,
};
use crate::clock::millis;

impl Store for Embedded {
    fn set(&self, space: &str, key: &str, value: Bytes, ttl: Option<Duration>) -> Answer<'_, ()> {
        let (space, key) = (space.to_owned(), key.to_owned());
        let expire_ms = self.expiry(ttl);
        Box::pin(self.write(value.len(), move |batch| {
            batch.room(kv::row_bytes(&space, &key, &value))?;
            kv::write(batch, Class::Caller, &space, &key, &value, expire_ms)
        }))
    }

    fn get(&self, space: &str, key: &str) -> Answer<'_, Option<Stored>> {
        let now_ms = self.shared.clock.unix_ms();
        let stored = self.shared.read(|tx| {
            let table = tx.open_table(KV).map_err(Error::storage)?;
            kv::read(&table, Class::Caller, space, key, now_ms)
        });
        Box::pin(ready(stored))
    }

    fn delete(&self, space: &str, key: &str) -> Answer<'_, bool> {
        let (space, key) = (space.to_owned(), key.to_owned());
        Box::pin(self.write(0, move |batch| {
            kv::delete(batch, Class::Caller, &space, &key)
        }))
    }

    fn compare_and_set(
        &self,
        space: &str,
        key: &str,
        expected: Option<u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Answer<'_, bool> {
        let (space, key) = (space.to_owned(), key.to_owned());
        let expire_ms = self.expiry(ttl);
        Box::pin(self.write(value.len(), move |batch| {
            kv::compare_and_set(batch, (&space, &key), expected, &value, expire_ms)
        }))
    }

    fn user(&self, id: &str) -> Answer<'_, Option<User>> {
        let user = self.shared.read(|tx| {
            let table = tx.open_table(USERS).map_err(Error::storage)?;
            users::by_id(&table, id)
        });
        Box::pin(ready(user))
    }

    fn user_by_wallet(&self, wallet: &str) -> Answer<'_, Option<User>> {
        Box::pin(ready(self.owner_of(wallet)))
    }

    fn provision_user(&self, wallet: &str) -> Answer<'_, User> {
        // Nearly always it is there.
        match self.owner_of(wallet) {
            Ok(Some(user)) => return Box::pin(ready(Ok(user))),
            Ok(None) => {}
            Err(error) => return Box::pin(ready(Err(error))),
        }
        let wallet = wallet.to_owned();
        Box::pin(self.write(wallet.len(), move |batch| users::provision(batch, &wallet)))
    }

    fn put_user(&self, id: &str, change: UserChange) -> Answer<'_, User> {
        let id = id.to_owned();
        Box::pin(self.write(id.len(), move |batch| users::put(batch, &id, &change)))
    }

    fn add_notification(
        &self,
        new: NewNotification,
        idempotency_key: Option<String>,
    ) -> Answer<'_, Added> {
        let metadata = new
            .metadata
            .as_deref()
            .map_or(0, |json| RawValue::get(json).len());
        let bytes = new.title.len() + new.message.len() + metadata;
        Box::pin(self.write(bytes, move |batch| {
            notifications::add(batch, &new, idempotency_key.as_deref())
        }))
    }

    fn notifications(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Answer<'_, NotificationPage> {
        let page = self.shared.read(|tx| {
            let notes = tx.open_table(NOTES).map_err(Error::storage)?;
            let counts = tx.open_table(NOTE_COUNTS).map_err(Error::storage)?;
            notifications::page(&notes, &counts, user_id, &query)
        });
        Box::pin(ready(page))
    }

    fn mark_notifications(&self, user_id: &str, mark: ReadMark) -> Answer<'_, Changed> {
        let user = user_id.to_owned();
        Box::pin(self.write(0, move |batch| notifications::mark(batch, &user, &mark)))
    }

    fn delete_notification(&self, user_id: &str, id: &str) -> Answer<'_, Changed> {
        let (user, id) = (user_id.to_owned(), id.to_owned());
        Box::pin(self.write(0, move |batch| notifications::delete(batch, &user, &id)))
    }

    fn clear_read_notifications(&self, user_id: &str) -> Answer<'_, Changed> {
        let user = user_id.to_owned();
        Box::pin(self.write(0, move |batch| notifications::clear_read(batch, &user)))
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, ()> {
        Box::pin(self.write(0, move |batch| revocations::add(batch, &revocation)))
    }

    fn revocations(&self, cursor: Option<String>, limit: usize) -> Answer<'_, RevocationPage> {
        let now_ms = self.shared.clock.unix_ms();
        let page = self.shared.read(|tx| {
            let table = tx.open_table(REVOCATIONS).map_err(Error::storage)?;
            revocations::page(&table, cursor.as_deref(), limit, now_ms)
        });
        Box::pin(ready(page))
    }

    fn spend(&self, owner: &str, draws: &[Draw]) -> Answer<'_, Option<Duration>> {
        let shared = &self.shared;
        let now_ns = shared.clock.now().mono_ms.saturating_mul(1_000_000);
        Box::pin(ready(if shared.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(shared.purses.spend(owner, draws, now_ns))
        }))
    }

    fn health(&self) -> Health {
        Embedded::health(self)
    }

    fn figures(&self) -> StoreFigures {
        Embedded::figures(self)
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            Embedded::close(self).await;
            Ok(())
        })
    }
}

impl Embedded {
    fn owner_of(&self, wallet: &str) -> Result<Option<User>, Error> {
        self.shared.read(|tx| {
            let by_id = tx.open_table(USERS).map_err(Error::storage)?;
            let by_wallet = tx.open_table(WALLETS).map_err(Error::storage)?;
            users::by_wallet(&by_id, &by_wallet, wallet)
        })
    }

    fn expiry(&self, ttl: Option<Duration>) -> u64 {
        match ttl {
            Some(ttl) => self.shared.clock.unix_ms().saturating_add(millis(ttl)),
            None => NEVER,
        }
    }
}
