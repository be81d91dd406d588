//! Users and wallets, which are in different slots, so that no script reaches both.
//!
//! A wallet's key names its user; a user's hash names its wallet (`w`). They belong together only if
//! both say so. So a wallet never has two users and a user never two wallets, whatever is lost halfway.
//!
//! To give a wallet to a user it is first written as pending (`p`, with the nickname `q` that comes with
//! it), then the wallet's key is set: that is the moment it counts. Then pending becomes current; who
//! finds it undone finishes it. The key's value begins with a number of its own for each time it was
//! set, so that nobody who read it before can exchange it after.

use uuid::Uuid;

use super::Redis;
use super::call::Call;
use super::history::decode;
use super::scripts::Script;
use crate::broker::{Error, User, UserChange};

/// Digits before the user's id in a wallet's key.
const MARK_DIGITS: usize = 16;
/// How often a change is begun again because another one came between.
const ATTEMPTS_MAX: usize = 20;

/// A user's hash.
#[derive(Debug, Clone, Default)]
struct Record {
    created_at_ms: u64,
    wallet: Option<String>,
    nickname: Option<String>,
    pending: Option<String>,
    pending_nickname: Option<String>,
}

type Fields = (
    Option<u64>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl Redis {
    pub(super) async fn find_user(&self, id: &str) -> Result<Option<User>, Error> {
        let call = Call::command("HMGET", self.keys.user(id, "u"));
        let call = ["c", "w", "n", "p", "q"].into_iter().fold(call, Call::arg);
        let fields: Fields = decode(self.link.call(&call).await?)?;
        match record(fields) {
            Some(record) => self.view(id, record).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn find_owner(&self, wallet: &str) -> Result<Option<User>, Error> {
        let Some(id) = self.claimed(wallet).await?.and_then(|value| owner(&value)) else {
            return Ok(None);
        };
        let user = self.find_user(&id).await?;
        Ok(user.filter(|user| user.wallet.as_deref() == Some(wallet)))
    }

    pub(super) async fn provision(&self, wallet: &str) -> Result<User, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.claimed(wallet).await?;
            if let Some(id) = before.as_deref().and_then(owner) {
                let user = self.find_user(&id).await?;
                if let Some(user) = user.filter(|user| user.wallet.as_deref() == Some(wallet)) {
                    return Ok(user);
                }
            }
            let id = format!("usr_{}", Uuid::now_v7().simple());
            let key = self.keys.user(&id, "u");
            let now_ms = self.clock.unix_ms();
            let made = Call::script(Script::UserPut, vec![key.clone()])
                .number(now_ms)
                .arg("change")
                .arg("w")
                .arg(wallet);
            self.write(&made, true).await?;
            let claim = Call::script(Script::Swap, vec![self.keys.wallet(wallet)])
                .arg(before.unwrap_or_default())
                .arg(claim(&id))
                .arg("");
            if decode::<u64>(self.write(&claim, true).await?)? == 1 {
                return Ok(User {
                    id,
                    wallet: Some(wallet.to_owned()),
                    nickname: None,
                    created_at_ms: now_ms,
                });
            }
            // Somebody else was first; nobody knows of ours.
            self.write(&Call::command("DEL", key), false).await?;
        }
        Err(Error::Overloaded)
    }

    pub(super) async fn change_user(&self, id: &str, change: UserChange) -> Result<User, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let held = match &change.wallet {
                Some(wallet) => self
                    .find_user(id)
                    .await?
                    .is_some_and(|user| user.wallet.as_ref() == Some(wallet)),
                None => true,
            };
            let call = Call::script(Script::UserPut, vec![self.keys.user(id, "u")])
                .number(self.clock.unix_ms());
            let (record, done) = if held {
                let call = call.arg("change");
                self.put(match &change.nickname {
                    Some(nickname) => call.arg("n").arg(nickname.as_str()),
                    None => call,
                })
                .await?
            } else {
                let call = call.arg("pend").arg("p");
                let call = call.arg(change.wallet.as_deref().unwrap_or_default());
                self.put(match &change.nickname {
                    Some(nickname) => call.arg("q").arg(nickname.as_str()),
                    None => call,
                })
                .await?
            };
            if !done {
                // Another change is under way or was left halfway: finished, or taken back.
                let user = self.view(id, record.clone()).await?;
                if user.wallet != record.pending {
                    let pending = record.pending.unwrap_or_default();
                    self.settle_user(id, "drop", &pending).await?;
                }
                continue;
            }
            match &change.wallet {
                Some(wallet) if !held => {
                    let call = Call::command("SET", self.keys.wallet(wallet)).arg(claim(id));
                    self.write(&call, true).await?;
                    let (record, done) = self.settle_user(id, "settle", wallet).await?;
                    if done {
                        return self.view(id, record).await;
                    }
                }
                _ => return self.view(id, record).await,
            }
        }
        Err(Error::Overloaded)
    }

    /// The user as the hash and the wallets' keys have it.
    async fn view(&self, id: &str, mut record: Record) -> Result<User, Error> {
        if let Some(pending) = record.pending.take()
            && self.belongs(&pending, id).await?
        {
            // It counts; who wrote it has not come to say so yet.
            let (settled, _) = self.settle_user(id, "settle", &pending).await?;
            record.nickname = record.pending_nickname.take().or(settled.nickname);
            record.wallet = Some(pending);
        } else if let Some(wallet) = record.wallet.take()
            && self.belongs(&wallet, id).await?
        {
            record.wallet = Some(wallet);
        }
        Ok(User {
            id: id.to_owned(),
            wallet: record.wallet,
            nickname: record.nickname,
            created_at_ms: record.created_at_ms,
        })
    }

    async fn settle_user(
        &self,
        id: &str,
        what: &'static str,
        pending: &str,
    ) -> Result<(Record, bool), Error> {
        let call = Call::script(Script::UserPut, vec![self.keys.user(id, "u")])
            .number(self.clock.unix_ms())
            .arg(what)
            .arg("p")
            .arg(pending);
        self.put(call).await
    }

    async fn put(&self, call: Call) -> Result<(Record, bool), Error> {
        type Answer = (
            Option<u64>,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
            u64,
        );
        let (created, wallet, nickname, pending, pending_nickname, done): Answer =
            decode(self.write(&call, true).await?)?;
        let fields = (created, wallet, nickname, pending, pending_nickname);
        Ok((record(fields).unwrap_or_default(), done == 1))
    }

    async fn belongs(&self, wallet: &str, id: &str) -> Result<bool, Error> {
        let claimed = self.claimed(wallet).await?;
        Ok(claimed.as_deref().and_then(owner).as_deref() == Some(id))
    }

    /// What a wallet's key holds.
    async fn claimed(&self, wallet: &str) -> Result<Option<String>, Error> {
        let call = Call::command("GET", self.keys.wallet(wallet));
        decode(self.link.call(&call).await?)
    }
}

fn record(fields: Fields) -> Option<Record> {
    let (created_at_ms, wallet, nickname, pending, pending_nickname) = fields;
    Some(Record {
        created_at_ms: created_at_ms?,
        wallet,
        nickname,
        pending,
        pending_nickname,
    })
}

/// The value of a wallet's key that names this user.
pub(super) fn claim(id: &str) -> String {
    format!("{:016x}{id}", Uuid::new_v4().as_u128() as u64)
}

pub(super) fn owner(value: &str) -> Option<String> {
    let (_, id) = value.split_at_checked(MARK_DIGITS)?;
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_user_and_is_never_the_same() {
        assert_eq!(owner(&claim("a\0b")).as_deref(), Some("a\0b"));
        assert_eq!(owner(&claim("")).as_deref(), Some(""));
        assert_ne!(claim("u"), claim("u"));
        assert_eq!(owner("short"), None);
    }
}
