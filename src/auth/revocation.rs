//! Which tokens are taken back, in memory: asked for every request, upgrade and refresh.
//!
//! Not for: keeping them (`broker::Store`), or telling other nodes (`router::notices`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aws_lc_rs::digest;

use super::Identity;
use crate::broker::{Error, Revocation, Revoked, Store};
use crate::prehashed::Prehashed;

/// Parts with a lock each, so that a part that grows or is swept stops nobody for long.
const SHARDS: usize = 64;
/// Revocations that are read from the store at once.
const PAGE: usize = 10_000;

/// The name of a token that has no `jti`: of what was signed, because a signature may be written in
/// more than one way.
pub fn id_of(token: &str) -> Arc<str> {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let hash = digest::digest(&digest::SHA256, signed.as_bytes());
    let hex = hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}"));
    ("sha256:".to_owned() + &hex.collect::<String>()).into()
}

/// The revoked tokens, families and users of a node. An entry is a keyed hash and a time, about 24
/// bytes; two ids have the same hash with a probability of one in 2^64, and nobody outside can look
/// for such a pair, because the key is made anew at every start.
#[derive(Debug)]
pub struct Revocations {
    shards: Box<[RwLock<Shard>]>,
    keyed: RandomState,
    /// Entries of all shards: with none there is nothing to look for.
    entries: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    /// Hash of a token's or family's id -> until when it is kept, in seconds since 1970.
    ids: HashMap<u64, u32, Prehashed>,
    /// Hash of a user's id -> which tokens.
    users: HashMap<u64, Cut, Prehashed>,
}

/// Tokens of a user that were issued before a moment.
#[derive(Debug, Clone, Copy)]
struct Cut {
    before_ms: u64,
    keep_until_s: u32,
}

/// What kind of id was hashed.
#[derive(Debug, Clone, Copy, Hash)]
enum Kind {
    Token,
    Family,
    User,
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            keyed: RandomState::new(),
            entries: AtomicUsize::new(0),
        }
    }
}

impl Revocations {
    /// Adds what the store has. How many revocations that were.
    ///
    /// # Errors
    /// The store's; what was read until then is in.
    pub async fn load(&self, store: &dyn Store) -> Result<usize, Error> {
        let mut count = 0;
        let mut page = store.revocations(None, PAGE).await?;
        loop {
            count += page.revocations.len();
            let cursor = page.next_cursor.take();
            let adding = async { page.revocations.iter().for_each(|it| self.add(it)) };
            let Some(cursor) = cursor else {
                adding.await;
                return Ok(count);
            };
            // While these are added, the next ones come.
            let (next, ()) = tokio::join!(store.revocations(Some(cursor), PAGE), adding);
            page = next?;
        }
    }

    /// From now on these tokens are refused. What is known already stays at least as strong.
    pub fn add(&self, revocation: &Revocation) {
        let keep_until_s = seconds_up(revocation.keep_until_ms);
        let is_new = match &revocation.revoked {
            Revoked::Token { id } => self.add_id(self.hash(Kind::Token, id), keep_until_s),
            Revoked::Family { id } => self.add_id(self.hash(Kind::Family, id), keep_until_s),
            Revoked::User { id, before_ms } => {
                let hash = self.hash(Kind::User, id);
                let mut shard = self.write(hash);
                let before = shard.users.get(&hash).copied();
                let cut = Cut {
                    before_ms: before.map_or(*before_ms, |cut| cut.before_ms.max(*before_ms)),
                    keep_until_s: before
                        .map_or(keep_until_s, |cut| cut.keep_until_s.max(keep_until_s)),
                };
                shard.users.insert(hash, cut);
                before.is_none()
            }
        };
        if is_new {
            self.entries.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether a token that says this is taken back.
    pub fn cover(&self, identity: &Identity) -> bool {
        if self.is_empty() {
            return false;
        }
        let token = identity.jti.as_deref();
        token.is_some_and(|id| self.has_id(Kind::Token, id))
            || identity
                .family
                .as_deref()
                .is_some_and(|id| self.cover_family(id))
            || self.cover_user(&identity.user_id, identity.issued_at_ms)
    }

    /// Whether this family is taken back.
    pub fn cover_family(&self, id: &str) -> bool {
        !self.is_empty() && self.has_id(Kind::Family, id)
    }

    /// Whether what this user was given at a time (0: at a time that is not known) is taken back.
    pub fn cover_user(&self, user_id: &str, issued_at_ms: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let hash = self.hash(Kind::User, user_id);
        let cut = self.read(hash).users.get(&hash).copied();
        cut.is_some_and(|cut| issued_at_ms < cut.before_ms)
    }

    /// Forgets what is past its time.
    pub fn sweep(&self, unix_ms: u64) {
        let now_s = u32::try_from(unix_ms / 1000).unwrap_or(u32::MAX);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.ids.len() + shard.users.len();
            shard.ids.retain(|_, keep_until_s| *keep_until_s > now_s);
            shard.users.retain(|_, cut| cut.keep_until_s > now_s);
            let after = shard.ids.len() + shard.users.len();
            if shard.ids.capacity() > 4 * shard.ids.len() {
                shard.ids.shrink_to_fit();
            }
            if shard.users.capacity() > 4 * shard.users.len() {
                shard.users.shrink_to_fit();
            }
            self.entries.fetch_sub(before - after, Ordering::Release);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add_id(&self, hash: u64, keep_until_s: u32) -> bool {
        let mut shard = self.write(hash);
        let before = shard.ids.get(&hash).copied();
        let until_s = before.map_or(keep_until_s, |known| known.max(keep_until_s));
        shard.ids.insert(hash, until_s).is_none()
    }

    fn has_id(&self, kind: Kind, id: &str) -> bool {
        let hash = self.hash(kind, id);
        self.read(hash).ids.contains_key(&hash)
    }

    fn hash(&self, kind: Kind, id: &str) -> u64 {
        self.keyed.hash_one((kind, id))
    }

    /// By bits that the tables do not use: these begin at the low end, and mark with the highest.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(hash)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shard(hash)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounded up; what is too far away is for ever.
fn seconds_up(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(user: &str, jti: &str, family: Option<&str>, issued_at_ms: u64) -> Identity {
        Identity {
            user_id: user.into(),
            wallet: None,
            jti: Some(jti.into()),
            family: family.map(Into::into),
            issued_at_ms,
            expires_at_ms: u64::MAX,
            variant: None,
            channels: [].into(),
        }
    }

    fn revocation(revoked: Revoked, keep_until_ms: u64) -> Revocation {
        Revocation {
            revoked,
            keep_until_ms,
        }
    }

    #[test]
    fn each_kind_covers_its_own() {
        let set = Revocations::default();
        let id = || "x".to_owned();
        assert!(!set.cover(&identity("x", "x", Some("x"), 0)));
        set.add(&revocation(Revoked::Token { id: id() }, u64::MAX));
        assert!(set.cover(&identity("u", "x", None, 0)));
        assert!(!set.cover(&identity("x", "t", Some("x"), 0)));
        set.add(&revocation(Revoked::Family { id: id() }, u64::MAX));
        assert!(set.cover(&identity("x", "t", Some("x"), 0)));
        assert!(!set.cover(&identity("x", "t", Some("y"), 0)));
        let before_ms = 1_000;
        let user = Revoked::User {
            id: id(),
            before_ms,
        };
        set.add(&revocation(user, u64::MAX));
        assert!(set.cover(&identity("x", "t", None, 999)));
        assert!(!set.cover(&identity("x", "t", None, 1_000)));
        assert!(!set.cover(&identity("y", "t", None, 999)));
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn what_is_past_its_time_goes_and_the_stronger_stays() {
        let set = Revocations::default();
        let token = |id: &str| Revoked::Token { id: id.into() };
        let user = |before_ms| Revoked::User {
            id: "u".into(),
            before_ms,
        };
        for (revoked, keep_until_ms) in [
            (token("short"), 5_001),
            (token("long"), 9_000),
            (token("long"), 1_000),
            (user(700), 9_000),
            (user(600), 1_000),
        ] {
            set.add(&revocation(revoked, keep_until_ms));
        }
        assert_eq!(set.len(), 3);
        set.sweep(5_999);
        assert_eq!(set.len(), 3);
        set.sweep(6_000);
        assert_eq!(set.len(), 2);
        assert!(!set.cover(&identity("v", "short", None, 0)));
        assert!(set.cover(&identity("v", "long", None, 0)));
        assert!(set.cover(&identity("u", "t", None, 699)));
        set.sweep(9_000);
        assert!(set.is_empty());
        assert!(!set.cover(&identity("u", "long", None, 0)));
    }
}
