//! What every [`Accounts`](shared::ports::Accounts), [`Sessions`](shared::ports::Sessions) and
//! [`Heads`](shared::ports::Heads) does.

use std::time::Duration;

use shared::Username;
use shared::limits::{SESSION_LIFETIME, SESSIONS_PER_USER_MAX};
use shared::ports::SessionKey;

use super::{LogStores, message, name, pair, registration};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub async fn an_account_is_seen_once_registered(stores: LogStores) {
    let (anna, ben) = (name("anna"), name("ben"));
    assert!(!stores.accounts.exists(&anna).await.expect("exists"));
    assert_eq!(stores.accounts.password_hash(&anna).await.expect("hash"), None);

    stores.put(registration("anna")).await;
    assert!(stores.accounts.exists(&anna).await.expect("exists"), "sees what was answered");
    let hash = stores.accounts.password_hash(&anna).await.expect("hash");
    assert_eq!(hash.as_deref(), Some("$argon2id$of$anna"));
    assert!(!stores.accounts.exists(&ben).await.expect("exists"));
}

pub async fn a_password_hash_is_replaced_if_it_is_the_one(stores: LogStores) {
    let (anna, ben) = (name("anna"), name("ben"));
    stores.put(registration("anna")).await;
    let replace = |user, old, new| stores.accounts.replace_password_hash(user, old, new);
    let hash = async || stores.accounts.password_hash(&anna).await.expect("hash");
    replace(&anna, "$argon2id$of$anna", "second").await.expect("replace");
    assert_eq!(hash().await.as_deref(), Some("second"));
    replace(&anna, "$argon2id$of$anna", "third").await.expect("another one stands there: no error");
    assert_eq!(hash().await.as_deref(), Some("second"));
    replace(&ben, "", "first").await.expect("nobody: no error");
    assert_eq!(stores.accounts.password_hash(&ben).await.expect("hash"), None);
}

pub async fn a_session_is_found_until_it_is_closed(stores: LogStores) {
    assert_eq!(find(&stores, 1).await, None, "never opened");
    open(&stores, "anna", 1).await;
    open(&stores, "anna", 2).await;
    assert_eq!(find(&stores, 1).await, Some(name("anna")));

    stores.accounts.close_session(&key(1)).await.expect("close");
    assert_eq!(find(&stores, 1).await, None);
    assert_eq!(find(&stores, 2).await, Some(name("anna")), "only the one");
    stores.accounts.close_session(&key(1)).await.expect("closing twice is no error");
    stores.accounts.close_session(&key(9)).await.expect("closing what never was is no error");
}

pub async fn closing_all_ends_the_sessions_of_one_user(stores: LogStores) {
    stores.accounts.close_all_sessions(&name("anna")).await.expect("none is no error");
    for number in 1..=5 {
        open(&stores, "anna", number).await;
    }
    open(&stores, "ben", 6).await;
    stores.accounts.close_all_sessions(&name("anna")).await.expect("close all");
    for number in 1..=5 {
        assert_eq!(find(&stores, number).await, None);
    }
    assert_eq!(find(&stores, 6).await, Some(name("ben")));
    open(&stores, "anna", 7).await;
    assert_eq!(find(&stores, 7).await, Some(name("anna")), "a later one lives");
}

pub async fn the_oldest_session_makes_room(stores: LogStores) {
    let most = u32::try_from(SESSIONS_PER_USER_MAX).expect("small");
    open(&stores, "ben", 0).await;
    for number in 1..=most {
        open(&stores, "anna", number).await;
    }
    assert_eq!(find(&stores, 1).await, Some(name("anna")), "as many as may be");
    open(&stores, "anna", most + 1).await;
    open(&stores, "anna", most + 2).await;
    assert_eq!((find(&stores, 1).await, find(&stores, 2).await), (None, None), "the two oldest");
    for number in 3..=most + 2 {
        assert_eq!(find(&stores, number).await, Some(name("anna")), "{number}");
    }
    assert_eq!(find(&stores, 0).await, Some(name("ben")), "another user's does not count");
}

pub async fn an_unused_session_expires(stores: LogStores) {
    open(&stores, "anna", 1).await;
    (stores.age_sessions)(SESSION_LIFETIME - DAY).await;
    open(&stores, "anna", 2).await;
    (stores.age_sessions)(DAY).await;
    assert_eq!(find(&stores, 1).await, None);
    assert_eq!(find(&stores, 2).await, Some(name("anna")));
}

pub async fn a_used_session_is_renewed(stores: LogStores) {
    open(&stores, "anna", 1).await;
    for _ in 0..4 {
        (stores.age_sessions)(SESSION_LIFETIME * 2 / 3).await;
        assert_eq!(find(&stores, 1).await, Some(name("anna")), "used in time");
        assert_eq!(find(&stores, 1).await, Some(name("anna")), "and again, just renewed");
    }
    (stores.age_sessions)(SESSION_LIFETIME).await;
    assert_eq!(find(&stores, 1).await, None);
}

pub async fn closing_all_ends_a_session_that_only_renewals_kept(stores: LogStores) {
    open(&stores, "anna", 1).await;
    for _ in 0..2 {
        (stores.age_sessions)(SESSION_LIFETIME * 2 / 3).await;
        assert_eq!(find(&stores, 1).await, Some(name("anna")));
    }
    // What was opened a lifetime ago is forgotten about now, unless it was renewed.
    open(&stores, "anna", 2).await;
    stores.accounts.close_all_sessions(&name("anna")).await.expect("close all");
    assert_eq!((find(&stores, 1).await, find(&stores, 2).await), (None, None));
}

pub async fn a_closed_session_stays_closed(stores: LogStores) {
    open(&stores, "anna", 1).await;
    open(&stores, "anna", 2).await;
    (stores.age_sessions)(2 * DAY).await;
    assert_eq!(find(&stores, 1).await, Some(name("anna")), "renewed");
    stores.accounts.close_session(&key(1)).await.expect("close");
    stores.accounts.close_all_sessions(&name("anna")).await.expect("close all");
    assert_eq!((find(&stores, 1).await, find(&stores, 2).await), (None, None));
}

pub async fn the_head_is_the_last_acknowledged_message(stores: LogStores) {
    let conversation = pair("anna", "ben");
    assert_eq!(stores.heads.head(&conversation).await.expect("head"), 0, "no conversation yet");
    for seq in 1..=3 {
        stores.put(message("anna", "ben", "hi")).await;
        assert_eq!(stores.heads.head(&conversation).await.expect("head"), seq);
    }
    assert_eq!(stores.heads.head(&pair("anna", "carl")).await.expect("head"), 0);
}

fn key(number: u32) -> SessionKey {
    let mut digest = [0x5a; 32];
    // Spread, as digests are, with the number where no two are alike.
    digest[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    digest[28..].copy_from_slice(&number.to_be_bytes());
    SessionKey(digest)
}

async fn open(stores: &LogStores, user: &str, number: u32) {
    stores.accounts.open_session(&name(user), &key(number)).await.expect("open");
}

async fn find(stores: &LogStores, number: u32) -> Option<Username> {
    stores.sessions.find(&key(number)).await.expect("find")
}
