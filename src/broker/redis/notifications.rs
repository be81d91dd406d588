//! Notifications: for each user the unread and the read ones in order, and their rows.
//!
//! The id is a UUID of version 7 that holds the order (milliseconds and a counter of twelve bits, as in the
//! embedded store) and 62 random bits, so that a lookup needs no index and nobody can guess one. A row begins
//! with the random bits, which are compared whenever an id comes from outside.
//!
//! An order has sixty bits, more than a score holds exactly: it is kept as digits that sort as text, and all
//! scores are 0.

use redis::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Redis;
use super::call::Call;
use super::history::{KEEP_MS, decode, garbled};
use super::scripts::Script;
use crate::broker::{
    Added, Changed, Error, NewNotification, Notification, NotificationPage, NotificationQuery,
    ReadMark,
};

/// Notifications of one page: the most that a user can have, where that has no limit.
const PAGE_MAX: usize = 100_000;
/// Hexadecimal digits of an order: twelve of milliseconds, three of the counter.
const ORDER_DIGITS: usize = 15;
/// Hexadecimal digits before the rest of a row.
const RANDOM_DIGITS: usize = 16;
const RANDOM_MASK: u64 = (1 << 62) - 1;

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(rename = "k")]
    kind: String,
    #[serde(rename = "t")]
    title: String,
    #[serde(rename = "m")]
    message: String,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
}

impl Redis {
    pub(super) async fn add_note(
        &self,
        new: NewNotification,
        key: Option<String>,
    ) -> Result<Added, Error> {
        let user_id = new.user_id;
        let row = Row {
            kind: new.kind,
            title: new.title,
            message: new.message,
            metadata: new.metadata,
        };
        let mut keys = self.notes(&user_id);
        keys.extend(key.map(|key| self.keys.user(&user_id, &format!("i:{key}"))));
        let random = Uuid::new_v4().as_u128() as u64 & RANDOM_MASK;
        let cap = self.bounds().notifications_per_user.clamp(1, PAGE_MAX * 10);
        let call = Call::script(Script::NoteAdd, keys)
            .arg(format!("{random:016x}"))
            .arg(serde_json::to_vec(&row).map_err(Error::storage)?)
            .number(cap as u64)
            .number(KEEP_MS);
        let answer = self.write(&call, true).await?;
        let (repeated, order, is_read, row, unread): (u64, Vec<u8>, u64, Vec<u8>, u64) =
            decode(answer)?;
        Ok(Added {
            notification: from_row(&user_id, from_digits(&order)?, is_read == 1, &row)?,
            unread,
            repeated: repeated == 1,
        })
    }

    pub(super) async fn note_page(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Result<NotificationPage, Error> {
        let cursor = match query.cursor.as_deref() {
            None => String::new(),
            Some(text) => match u64::from_str_radix(text, 16) {
                Ok(order) => digits(order),
                // Below every order.
                Err(_) => "0".to_owned(),
            },
        };
        let limit = query.limit.min(PAGE_MAX);
        let call = Call::script(Script::NotePage, self.notes(user_id))
            .arg(if query.unread_only { "unread" } else { "all" })
            .number(limit as u64 + 1)
            .arg(cursor);
        let Value::Array(answer) = self.link.call(&call).await? else {
            return Err(garbled());
        };
        let mut answer = answer.into_iter();
        let mut page = NotificationPage {
            notifications: Vec::new(),
            unread: decode(answer.next().ok_or_else(garbled)?)?,
            next_cursor: None,
        };
        let mut last = None;
        while let (Some(order), Some(is_read), Some(row)) =
            (answer.next(), answer.next(), answer.next())
        {
            if page.notifications.len() == limit {
                page.next_cursor = last.map(|order: u64| format!("{order:016x}"));
                break;
            }
            let order = from_digits(&decode::<Vec<u8>>(order)?)?;
            let is_read = decode::<u64>(is_read)? == 1;
            let row: Vec<u8> = decode(row)?;
            page.notifications
                .push(from_row(user_id, order, is_read, &row)?);
            last = Some(order);
        }
        Ok(page)
    }

    pub(super) async fn mark_notes(&self, user_id: &str, mark: ReadMark) -> Result<Changed, Error> {
        match mark {
            ReadMark::One { id, is_read } => {
                let what = if is_read { "read" } else { "unread" };
                self.change_notes(user_id, what, vec![id]).await
            }
            ReadMark::Many(ids) => self.change_notes(user_id, "read", ids).await,
            ReadMark::All => self.change_notes(user_id, "read-all", Vec::new()).await,
        }
    }

    /// Marks or deletes; `what` is the script's.
    pub(super) async fn change_notes(
        &self,
        user_id: &str,
        what: &'static str,
        ids: Vec<String>,
    ) -> Result<Changed, Error> {
        let mut keys = self.notes(user_id);
        keys.push(self.keys.user(user_id, "nw"));
        let mut call = Call::script(Script::NoteMark, keys).arg(what);
        let mut named = Vec::new();
        for id in ids {
            if let Some((order, random)) = taken_apart(&id) {
                call = call.arg(digits(order)).arg(random);
                named.push(id);
            }
        }
        let answer = self.write(&call, true).await?;
        let (count, found, unread, places): (u64, u64, u64, Vec<usize>) = decode(answer)?;
        let place = |place: usize| named.get(place).cloned();
        Ok(Changed {
            count,
            ids: places.into_iter().filter_map(place).collect(),
            unread,
            found: found > 0,
        })
    }

    fn notes(&self, user_id: &str) -> Vec<String> {
        self.keys.notes(user_id)
    }
}

/// The order of a notification that came from elsewhere, and its row.
pub(super) fn to_row(note: &Notification) -> Result<(u64, Vec<u8>), Error> {
    let (order, random) = taken_apart(&note.id)
        .ok_or_else(|| Error::storage("a notification whose id is not one of ours"))?;
    let json = serde_json::to_string(&Row {
        kind: note.kind.clone(),
        title: note.title.clone(),
        message: note.message.clone(),
        metadata: note.metadata.clone(),
    });
    let json = json.map_err(Error::storage)?;
    let row = format!("{random}{} {json}", note.created_at_ms);
    Ok((order, row.into_bytes()))
}

/// `RANDOM MS JSON`, the random digits without a space after them.
pub(super) fn from_row(
    user_id: &str,
    order: u64,
    is_read: bool,
    row: &[u8],
) -> Result<Notification, Error> {
    let row = std::str::from_utf8(row).map_err(Error::storage)?;
    let (random, rest) = row.split_at_checked(RANDOM_DIGITS).ok_or_else(garbled)?;
    let random = u64::from_str_radix(random, 16).map_err(Error::storage)?;
    let (created, json) = rest.split_once(' ').ok_or_else(garbled)?;
    let row: Row = serde_json::from_str(json).map_err(Error::storage)?;
    Ok(Notification {
        id: id_of(order, random).to_string(),
        user_id: user_id.to_owned(),
        kind: row.kind,
        title: row.title,
        message: row.message,
        is_read,
        metadata: row.metadata,
        created_at_ms: created.parse().map_err(Error::storage)?,
    })
}

/// An order as it is kept.
pub(super) fn digits(order: u64) -> String {
    format!("{order:0ORDER_DIGITS$x}")
}

pub(super) fn from_digits(digits: &[u8]) -> Result<u64, Error> {
    let digits = std::str::from_utf8(digits).map_err(Error::storage)?;
    u64::from_str_radix(digits, 16).map_err(Error::storage)
}

fn id_of(order: u64, random: u64) -> Uuid {
    let time = u128::from(order >> 12) << 80;
    let counter = u128::from(order & 0xfff) << 64;
    let random = u128::from(random & RANDOM_MASK);
    Uuid::from_u128(time | 0x7 << 76 | counter | 0b10 << 62 | random)
}

/// The order and the random digits of an id that came from outside.
pub(super) fn taken_apart(id: &str) -> Option<(u64, String)> {
    let uuid = Uuid::try_parse(id).ok()?.as_u128();
    let order = ((uuid >> 80) as u64) << 12 | (uuid >> 64) as u64 & 0xfff;
    let random = uuid as u64 & RANDOM_MASK;
    // Other spellings of the same number are no ids.
    let is_it = id_of(order, random).to_string() == id;
    is_it.then(|| (order, format!("{random:016x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_order_and_chance() {
        let (order, random) = (1_795_406_706_789 << 12 | 4_095, 0x2a5a_0000_ffff_0001);
        let id = id_of(order, random).to_string();
        assert_eq!(taken_apart(&id), Some((order, format!("{random:016x}"))));
        assert_eq!(&id[14..15], "7");
        let text = "01a2b3c4-d5e6-7fff-8123-456789abcdef";
        let (order, _) = taken_apart(text).unwrap();
        assert_eq!(digits(order), "01a2b3c4d5e6fff");
        assert_eq!(from_digits(b"01a2b3c4d5e6fff").unwrap(), order);
        // The smallest sorts below all as text, too.
        assert!(digits(0) < digits(1 << 12) && digits(1 << 12) < digits(order));
        assert_eq!(taken_apart(&id.to_uppercase()), None);
        assert_eq!(taken_apart("nonsense"), None);
        assert_eq!(taken_apart("00000000-0000-4000-8000-000000000000"), None);
    }
}
