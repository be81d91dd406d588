//! Telling what a Redis keeps.

use aws_lc_rs::digest::{SHA256, digest};
use redis::Value;

use super::histories::channel;
use super::vault::{Ask, Vault};
use super::{Options, unreachable};
use crate::broker::Error;
use crate::broker::migration::{
    Batch, Given, KeptAnswer, KeptValue, Kind, MigrationError, Record, Source, Take,
};
use crate::broker::redis::history::{decode, garbled, placed};
use crate::broker::redis::values::{REVISION_BYTES, revocation};
use crate::broker::redis::{notifications, users};
use crate::broker::{Notification, User};
use crate::protocol::{ChannelKey, Epoch};

const NOTES: &str = include_str!("scripts/notes.lua");
/// What is forgotten meanwhile must not come back.
const RETIRE: &str =
    "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'r', '') end";
pub(super) const KEPT: &str = concat!(
    include_str!("scripts/ends.lua"),
    include_str!("scripts/kept.lua")
);

/// Owners whose lists are asked for at once: each answers with [`CHUNK_BYTES`] at most.
const OWNERS: usize = 64;
/// What one answer may bring of a list, more or less.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;
/// Notifications of one answer.
const CHUNK_NOTES: u64 = 500;
/// Revocations of one answer.
const CHUNK_REVOCATIONS: usize = 1_000;

/// A Redis that is migrated from.
pub struct Origin(Vault);

/// What a step of a scan does with its keys.
type Tell<'a> = &'a mut dyn FnMut(&Vault, &[String], &mut Batch<'_>) -> Result<(), MigrationError>;

impl Origin {
    /// Connects.
    ///
    /// # Errors
    /// It cannot be reached, a server runs on it, a migration to it is unfinished, or there is nothing.
    pub fn open(options: Options) -> Result<Self, MigrationError> {
        let vault = Vault::open(options).map_err(|error| unreachable(&error))?;
        vault.refuse_if_used()?;
        let unfinished = vault
            .ask(Ask::command("GET", vault.mark("t")))
            .map_err(source)?;
        let prefix = &vault.options.prefix;
        if unfinished != Value::Nil {
            return Err(MigrationError::Refused(format!(
                "Redis (prefix {prefix:?}) holds an unfinished migration: finish it first \
                 (fanfare migrate --to redis)"
            )));
        }
        if vault.is_empty().map_err(source)? {
            return Err(MigrationError::Refused(format!(
                "Redis holds nothing of ours under the prefix {prefix:?}: is broker.redis.prefix right?"
            )));
        }
        Ok(Self(vault))
    }

    /// Goes through all keys of a pattern.
    fn scan(
        &self,
        (pattern, kind): (&str, &str),
        from: Option<&str>,
        take: Take<'_>,
        tell: Tell<'_>,
    ) -> Result<(), MigrationError> {
        let from = from.and_then(|from| from.split_once(':'));
        let from = from.and_then(|(server, cursor)| {
            Some((server.parse::<usize>().ok()?, cursor.parse::<u64>().ok()?))
        });
        let (first, mut cursor) = from.unwrap_or_default();
        let mut batch = Batch::new(take);
        let servers = self.0.servers().map_err(source)?;
        for (index, server) in servers.iter().enumerate().skip(first) {
            loop {
                let step = self.0.scan(server, cursor, pattern, Some(kind));
                let (next, keys) = step.map_err(source)?;
                tell(&self.0, &keys, &mut batch)?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
                batch.place(|| format!("{index}:{cursor}"))?;
            }
            batch.place(|| format!("{}:0", index + 1))?;
        }
        batch.flush(None)
    }
}

impl Source for Origin {
    /// A token that every server takes away when it starts, and the processes that hold the epochs.
    fn identity(&mut self) -> Result<String, MigrationError> {
        self.0.refuse_if_used()?;
        let token = uuid::Uuid::new_v4().simple().to_string();
        let set = Ask::command("SET", self.0.mark("s")).arg(token).arg("NX");
        let get = Ask::command("GET", self.0.mark("s"));
        let mut answers = self.0.ask_all(&[set, get]).map_err(source)?;
        let token: String = decode(answers.pop().unwrap_or_default()).map_err(source)?;
        let text = format!("{token} {}", self.0.run_ids().map_err(source)?);
        let hash = digest(&SHA256, text.as_bytes());
        let digits = hash.as_ref().iter().take(16);
        Ok(digits.map(|byte| format!("{byte:02x}")).collect())
    }

    fn retired(&mut self) -> Result<Option<String>, MigrationError> {
        let mark = self.0.ask(Ask::command("GET", self.0.mark("s")));
        let mark: Option<String> = mark.and_then(decode).map_err(source)?;
        Ok(mark.and_then(|mark| Some(mark.strip_prefix("retired ")?.to_owned())))
    }

    fn count(&mut self, _: Kind) -> Option<u64> {
        None
    }

    fn walk(
        &mut self,
        kind: Kind,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        let keys = &self.0.keys;
        let (values, users) = (keys.patterns()[1].clone(), keys.pattern("u:", "u"));
        let (notes, answers) = (keys.pattern("u:", "nd"), keys.pattern("", "i:*"));
        let channels = keys.pattern("", "m");
        match kind {
            Kind::Revocations => self.0.revocations(from, beyond_ms, take),
            Kind::Users => self.scan((&users, "hash"), from, take, &mut |vault, keys, batch| {
                vault.users(keys, batch)
            }),
            Kind::Values => self.scan(
                (&values, "string"),
                from,
                take,
                &mut |vault, keys, batch| vault.kept(keys, beyond_ms, batch),
            ),
            Kind::Answers => self.scan(
                (&answers, "string"),
                from,
                take,
                &mut |vault, keys, batch| vault.kept(keys, beyond_ms, batch),
            ),
            Kind::Notifications => {
                self.scan((&notes, "hash"), from, take, &mut |vault, keys, batch| {
                    let users = keys.iter().filter_map(|key| vault.keys.user_of(key, "nd"));
                    let users: Vec<_> = users.collect();
                    let mut chunks = users.chunks(OWNERS);
                    chunks.try_for_each(|users| vault.notes(users, batch))
                })
            }
            Kind::History => self.scan(
                (&channels, "hash"),
                from,
                take,
                &mut |vault, keys, batch| {
                    let channels = keys.iter().filter_map(|key| vault.channel(key));
                    let channels: Vec<_> = channels.collect();
                    let mut chunks = channels.chunks(OWNERS);
                    chunks.try_for_each(|channels| vault.histories(channels, beyond_ms, batch))
                },
            ),
        }
    }

    /// Every channel that was ever asked for has an epoch of its own.
    fn ground(&mut self) -> Result<Option<Epoch>, MigrationError> {
        Ok(None)
    }

    /// Whoever comes next finds another process's name, and begins another epoch (`history`).
    fn retire(&mut self, identity: &str) -> Result<(), MigrationError> {
        let channels = self.0.keys.pattern("", "m");
        let mut nothing = |_, _| Ok(());
        self.scan(
            (&channels, "hash"),
            None,
            &mut nothing,
            &mut |vault, keys, _| {
                let asks = keys.iter().filter(|key| vault.channel(key).is_some());
                let asks = asks.map(|key| Ask::script(RETIRE, vec![key.clone()]));
                vault.ask_all(&asks.collect::<Vec<_>>()).map_err(source)?;
                Ok(())
            },
        )?;
        let mark = Ask::command("SET", self.0.mark("s")).arg(format!("retired {identity}"));
        self.0.ask(mark).map(drop).map_err(source)
    }
}

impl Vault {
    /// A key of the migrations' own.
    pub(super) fn mark(&self, part: &str) -> String {
        self.keys.of_all_nodes("migration", part)
    }

    /// Whether there is no key of ours, but for those.
    pub(super) fn is_empty(&self) -> Result<bool, Error> {
        let own = ["t", "s", "g"].map(|part| self.mark(part));
        for server in self.servers()? {
            for pattern in self.keys.patterns() {
                let mut cursor = 0;
                loop {
                    let (next, keys) = self.scan(&server, cursor, &pattern, None)?;
                    if keys.iter().any(|key| !own.contains(key)) {
                        return Ok(false);
                    }
                    cursor = next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
        Ok(true)
    }

    fn channel(&self, key: &str) -> Option<ChannelKey> {
        channel(self.keys.owner(key, "m")?)
    }

    fn revocations(
        &self,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        let mut batch = Batch::new(take);
        let list = self.keys.of_all_nodes("revoked", "l");
        let mut last = from.map(str::to_owned);
        loop {
            let after = last
                .as_ref()
                .map_or("-".to_owned(), |last| format!("({last}"));
            let page = Ask::command("ZRANGEBYLEX", list.clone())
                .arg(after)
                .arg("+")
                .arg("LIMIT")
                .arg("0")
                .number(CHUNK_REVOCATIONS as u64);
            let page: Vec<String> = self.ask(page).and_then(decode).map_err(source)?;
            if page.is_empty() {
                return batch.flush(None);
            }
            for entry in &page {
                let revocation = revocation(entry).map_err(source)?;
                if revocation.keep_until_ms > beyond_ms {
                    batch.add(Record::Revocation(revocation))?;
                }
            }
            last = page.into_iter().next_back();
            batch.place(|| last.clone().unwrap_or_default())?;
        }
    }

    fn users(&self, keys: &[String], batch: &mut Batch<'_>) -> Result<(), MigrationError> {
        let ids = keys.iter().filter_map(|key| self.keys.user_of(key, "u"));
        let ids: Vec<&str> = ids.collect();
        for user in self.find_users(&ids).map_err(source)?.into_iter().flatten() {
            batch.add(Record::User(user))?;
        }
        Ok(())
    }

    /// Users as servers see them (`users`).
    pub(super) fn find_users(&self, ids: &[&str]) -> Result<Vec<Option<User>>, Error> {
        let hash = |id: &&str| {
            let ask = Ask::command("HMGET", self.keys.user(id, "u"));
            ["c", "w", "n", "p", "q"].into_iter().fold(ask, Ask::arg)
        };
        let hashes = self.ask_all(&ids.iter().map(hash).collect::<Vec<_>>())?;
        let mut fields: Vec<Vec<Option<String>>> = Vec::with_capacity(hashes.len());
        for hash in hashes {
            fields.push(decode(hash)?);
        }
        // The wallet that is pending, and the one that is current.
        let claims = fields
            .iter()
            .flat_map(|fields| [3, 1].map(|at| fields.get(at)));
        let claims = claims.map(|wallet| {
            let wallet = wallet.cloned().flatten().unwrap_or_default();
            Ask::command("GET", self.keys.wallet(&wallet))
        });
        let claims = self.ask_all(&claims.collect::<Vec<_>>())?;
        let mut claims = claims.into_iter();
        let mut found = Vec::with_capacity(ids.len());
        for (id, fields) in ids.iter().zip(fields) {
            let mut is_owner = || -> Result<bool, Error> {
                let claim: Option<String> = decode(claims.next().unwrap_or_default())?;
                Ok(claim.as_deref().and_then(users::owner).as_deref() == Some(id))
            };
            let (pending_counts, current_counts) = (is_owner()?, is_owner()?);
            let fields = <[Option<String>; 5]>::try_from(fields).map_err(|_| garbled())?;
            let [created, wallet, nickname, pending, pending_nickname] = fields;
            let Some(created) = created else {
                found.push(None);
                continue;
            };
            let settles = pending.is_some() && pending_counts;
            found.push(Some(User {
                id: (*id).to_owned(),
                wallet: if settles {
                    pending
                } else {
                    wallet.filter(|_| current_counts)
                },
                nickname: if settles {
                    pending_nickname.or(nickname)
                } else {
                    nickname
                },
                created_at_ms: created.parse().map_err(Error::storage)?,
            }));
        }
        Ok(found)
    }

    fn kept(
        &self,
        keys: &[String],
        beyond_ms: u64,
        batch: &mut Batch<'_>,
    ) -> Result<(), MigrationError> {
        // Values have no bound of their own: a few at a time.
        for keys in keys.chunks(OWNERS) {
            let asks = keys.iter().map(|key| Ask::script(KEPT, vec![key.clone()]));
            let answers = self.ask_all(&asks.collect::<Vec<_>>()).map_err(source)?;
            for (key, answer) in keys.iter().zip(answers) {
                let found = self.read_kept(key, answer).map_err(source)?;
                if let Some((record, ends)) = found
                    && ends.is_none_or(|ends| ends > beyond_ms)
                {
                    batch.add(record)?;
                }
            }
        }
        Ok(())
    }

    /// What the script `kept` says of a value or an answer, and when it goes.
    pub(super) fn read_kept(
        &self,
        key: &str,
        answer: Value,
    ) -> Result<Option<(Record, Option<u64>)>, Error> {
        let parts: Vec<Vec<u8>> = decode(answer)?;
        let [value, ends] = parts.as_slice() else {
            return Ok(None);
        };
        let ends = String::from_utf8_lossy(ends).parse::<u64>().ok();
        let record = if let Some((space, name)) = self.keys.value_of(key) {
            let value = value.get(REVISION_BYTES..).ok_or_else(garbled)?;
            Some(Record::Value(KeptValue {
                space: space.to_owned(),
                key: name.to_owned(),
                value: value.to_vec().into(),
                expire_ms: ends,
            }))
        } else if let Some((owner, name)) = self.keys.answer_of(key) {
            given(owner, value)?.map(|given| {
                Record::Answer(KeptAnswer {
                    key: name.to_owned(),
                    expire_ms: ends.unwrap_or(u64::MAX),
                    given,
                })
            })
        } else {
            None
        };
        Ok(record.map(|record| (record, ends)))
    }

    fn notes(&self, users: &[&str], batch: &mut Batch<'_>) -> Result<(), MigrationError> {
        let ask = |user: &str, is_read: bool, after: &[u8]| {
            let [unread, read, rows] =
                <[String; 3]>::try_from(self.keys.notes(user)).unwrap_or_default();
            Ask::script(NOTES, vec![if is_read { read } else { unread }, rows])
                .arg(after)
                .number(CHUNK_NOTES)
                .number(CHUNK_BYTES)
        };
        let asks = users
            .iter()
            .flat_map(|user| [ask(user, false, b""), ask(user, true, b"")]);
        let answers = self.ask_all(&asks.collect::<Vec<_>>()).map_err(source)?;
        let lists = users.iter().flat_map(|user| [(user, false), (user, true)]);
        for ((user, is_read), mut answer) in lists.zip(answers) {
            loop {
                let page: Vec<Vec<u8>> = decode(answer).map_err(source)?;
                let mut last = None;
                for pair in page.chunks_exact(2) {
                    let note = stored_note(user, is_read, &pair[0], &pair[1]).map_err(source)?;
                    batch.add(Record::Notification(note))?;
                    last = Some(&pair[0]);
                }
                let Some(last) = last else {
                    break;
                };
                // The rest of the list, if there is one.
                answer = self.ask(ask(user, is_read, last)).map_err(source)?;
            }
        }
        Ok(())
    }
}

fn given(owner: &str, value: &[u8]) -> Result<Option<Given>, Error> {
    let text = std::str::from_utf8(value).map_err(Error::storage)?;
    if let Some(user) = owner.strip_prefix("u:") {
        let (order, row) = text.split_once(' ').ok_or_else(garbled)?;
        let note = stored_note(user, false, order.as_bytes(), row.as_bytes())?;
        return Ok(Some(Given::Added(note)));
    }
    let position = placed(text)?;
    Ok(channel(owner).map(|channel| Given::Published { channel, position }))
}

pub(super) fn stored_note(
    user: &str,
    is_read: bool,
    order: &[u8],
    row: &[u8],
) -> Result<Notification, Error> {
    notifications::from_row(user, notifications::from_digits(order)?, is_read, row)
}

pub(super) fn source(error: Error) -> MigrationError {
    MigrationError::Source(error)
}
