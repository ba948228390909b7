//! The view `users`.

use shared::clock::Timestamp;
use shared::ids::Username;
use shared::ports::StoreError;
use shared::view::{UserRow, UsersChange, version};

use super::directory::Directory;
use super::encoding::{Decoder, Encoder};
use super::rows::Rows;
use super::{damaged, keys, read_error};

const VERSION: u8 = 1;

pub(super) fn put(rows: &mut Rows<'_>, change: &UsersChange) -> Result<(), StoreError> {
    let UsersChange::PutUser { user, seq } = change;
    let (key, version) = (keys::user_row(&user.username), version::effect(*seq));
    let stands = rows.get(&key)?.map(|bytes| read(&user.username, &bytes)).transpose()?;
    if stands.is_none_or(|(stands, _)| stands < version) {
        rows.put(key, Encoder::new(VERSION).u64(version).u64(user.registered_at.0).finish());
    }
    Ok(())
}

pub(super) fn find(directory: &Directory, username: &Username) -> Result<Option<UserRow>, StoreError> {
    let bytes = directory.views.get(keys::user_row(username)).map_err(read_error)?;
    let row = bytes.map(|bytes| read(username, &bytes)).transpose()?;
    Ok(row.map(|(_, registered_at)| UserRow { username: username.clone(), registered_at }))
}

/// The version of the row, and what it says.
pub(super) fn read(username: &Username, bytes: &[u8]) -> Result<(u64, Timestamp), StoreError> {
    let decode = || {
        let mut decoder = Decoder::new(VERSION, bytes)?;
        let row = (decoder.u64()?, Timestamp(decoder.u64()?));
        decoder.end()?;
        Some(row)
    };
    decode().ok_or_else(|| damaged(format!("the user row of {username} cannot be read")))
}
