//! Users: one row by id, and a pointer from each wallet.

use redb::ReadableTable;

use super::batch::Batch;
use super::open::time_ordered;
use super::row::{RowReader, RowWriter};
use super::tables::row_of;
use crate::broker::{Error, User, UserChange};

/// The user of this id.
pub(super) fn by_id(
    users: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
) -> Result<Option<User>, Error> {
    row_of(users, id)?.map(|row| from_row(id, &row)).transpose()
}

/// The user that a wallet points to.
pub(super) fn by_wallet(
    users: &impl ReadableTable<&'static str, &'static [u8]>,
    wallets: &impl ReadableTable<&'static str, &'static [u8]>,
    wallet: &str,
) -> Result<Option<User>, Error> {
    match row_of(wallets, wallet)? {
        Some(row) => by_id(users, RowReader::new(&row)?.text()?),
        None => Ok(None),
    }
}

/// The user of a wallet, made if there is none.
pub(super) fn provision(batch: &mut Batch<'_>, wallet: &str) -> Result<User, Error> {
    let tables = &batch.tables;
    if let Some(user) = by_wallet(tables.users.table(), tables.wallets.table(), wallet)? {
        return Ok(user);
    }
    batch.room(256 + 2 * wallet.len() as u64)?;
    let user = User {
        id: format!("usr_{}", time_ordered(batch.now_ms).simple()),
        wallet: Some(wallet.to_owned()),
        nickname: None,
        created_at_ms: batch.now_ms,
    };
    write(batch, &user)?;
    Ok(user)
}

/// Creates or changes the user of this id; a wallet is taken from whoever had it.
pub(super) fn put(batch: &mut Batch<'_>, id: &str, change: &UserChange) -> Result<User, Error> {
    let before = by_id(batch.tables.users.table(), id)?;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len) as u64;
    let more = 2 * text(&change.wallet) + text(&change.nickname);
    batch.room(256 + 2 * id.len() as u64 + more)?;
    let mut user = before.clone().unwrap_or_else(|| User {
        id: id.to_owned(),
        wallet: None,
        nickname: None,
        created_at_ms: batch.now_ms,
    });
    if let Some(wallet) = &change.wallet {
        let tables = &batch.tables;
        let owner = by_wallet(tables.users.table(), tables.wallets.table(), wallet)?;
        if let Some(mut owner) = owner.filter(|owner| owner.id != id) {
            owner.wallet = None;
            write(batch, &owner)?;
        }
        if let Some(former) = user.wallet.replace(wallet.clone())
            && former != *wallet
        {
            batch.tables.wallets.remove(&former)?;
        }
    }
    if let Some(nickname) = &change.nickname {
        user.nickname = Some(nickname.clone());
    }
    if before.as_ref() != Some(&user) {
        write(batch, &user)?;
    }
    Ok(user)
}

fn write(batch: &mut Batch<'_>, user: &User) -> Result<(), Error> {
    let tables = &mut batch.tables;
    tables.users.insert(user.id.as_str(), &to_row(user))?;
    if let Some(wallet) = &user.wallet {
        let pointer = RowWriter::new().text(&user.id).done();
        tables.wallets.insert(wallet, &pointer)?;
    }
    Ok(())
}

pub(super) fn to_row(user: &User) -> Vec<u8> {
    RowWriter::new()
        .number(user.created_at_ms)
        .maybe_text(user.wallet.as_deref())
        .maybe_text(user.nickname.as_deref())
        .done()
}

pub(super) fn from_row(id: &str, row: &[u8]) -> Result<User, Error> {
    let mut row = RowReader::new(row)?;
    Ok(User {
        id: id.to_owned(),
        created_at_ms: row.number()?,
        wallet: row.maybe_text()?.map(str::to_owned),
        nickname: row.maybe_text()?.map(str::to_owned),
    })
}
