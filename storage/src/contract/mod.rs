//! The contract suite: what the ports promise, as async functions over the ports. Every backend runs all of
//! it (`storage/tests/it`); nothing here knows one. A function takes stores that are empty and its own.
//!
//! In a test binary, `storage::log_contract!(open)` and `storage::views_contract!(open)` make one test per
//! function, named after it, in the module that calls them; `open` is an `async fn() -> LogStores` (or
//! `-> ViewStores`).

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use shared::event::{ConversationRead, Envelope, Event, MessageSent, UserRegistered};
use shared::ids::{Conversation, EventId, Subject, Username};
use shared::ports::{
    Accounts, Append, Appended, EventFeed, EventLog, FeedMonitor, Heads, LogReader, LogScan, LogTail,
    Notices, ParkedEvents, RateLimits, Receipt, Sessions, ViewReader, ViewScan, ViewWriter,
};
use shared::{Clock, Seq};

pub mod accounts;
pub mod feed;
pub mod limits;
pub mod log;
pub mod log_scan;
pub mod malformed;
pub mod parked;
pub mod tail;
pub mod view_scan;
pub mod views;
mod words;

/// What the log's tests take.
pub struct LogStores {
    pub log: Arc<dyn EventLog>,
    pub accounts: Arc<dyn Accounts>,
    pub sessions: Arc<dyn Sessions>,
    pub heads: Arc<dyn Heads>,
    pub notices: Arc<dyn Notices>,
    pub monitor: Arc<dyn FeedMonitor>,
    pub reader: Arc<dyn LogReader>,
    pub scan: Arc<dyn LogScan>,
    /// The consumer of this name in the one generation under test. Called again with the same name it stands
    /// for a restart of that consumer.
    pub consumer: MakeConsumer,
    /// Whether consumers may work at the same time. If not, a test drops one before it makes the next.
    pub several_consumers: bool,
    /// A tail of its own.
    pub tail: Box<dyn Fn() -> Box<dyn LogTail> + Send + Sync>,
    pub limits: Arc<dyn RateLimits>,
    /// For every session, as if this much time had gone by.
    pub age_sessions: Age,
    /// For everything that limits count, likewise.
    pub age_limits: Age,
    /// For the tests of `malformed_contract!` only.
    pub put_raw: Option<PutRaw>,
    /// What has to live as long as the test: a directory, a group of tasks.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Lets time go by.
pub type Age = Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// See [`LogStores::consumer`].
pub type MakeConsumer = Box<dyn Fn(&str) -> BoxFuture<'static, Box<dyn EventFeed>> + Send + Sync>;

/// Puts an entry into the log as it stands, whatever it says, with the next offset of the subject's partition.
/// Its `seq` is taken as the subject's last.
pub type PutRaw = Box<dyn Fn(RawEntry) -> BoxFuture<'static, ()> + Send + Sync>;

/// An entry as a broken disk or another program may have left it.
#[derive(Debug, Clone)]
pub struct RawEntry {
    /// Decides the partition, whatever the envelope says.
    pub subject: Subject,
    pub envelope: Envelope,
    pub seq: Seq,
    /// What is stored is the right checksum of the envelope and its numbers, with these bits flipped.
    pub checksum_flipped: u32,
}

/// What the views' tests take.
pub struct ViewStores {
    pub writer: Arc<dyn ViewWriter>,
    /// Of another projector, as far as the store lets two of them write.
    pub other_writer: Arc<dyn ViewWriter>,
    pub reader: Arc<dyn ViewReader>,
    pub parked: Arc<dyn ParkedEvents>,
    /// With how many histories the merge is tried: more where that takes less time.
    pub histories: u64,
    pub scan: Arc<dyn ViewScan>,
    /// What has to live as long as the test.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// One `#[tokio::test]` per listed function of `contract::$family`.
#[macro_export]
macro_rules! contract_tests {
    ($open:path => $($family:ident: $($name:ident)*),*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::contract::$family::$name($open().await).await;
            }
        )*)*
    };
}

/// The log, the accounts and the feed.
#[macro_export]
macro_rules! log_contract {
    ($open:path) => {
        $crate::contract_tests! { $open =>
            log:
                seq_is_dense_per_subject
                concurrent_appends_are_dense
                a_receipt_tells_time_and_position
                a_name_is_taken_once
                of_twenty_registrations_at_once_one_wins
                a_refused_registration_takes_no_number
                marks_only_rise
                marks_of_other_pairs_are_their_own
                concurrent_marks_append_only_what_rises
                without_once_every_send_is_a_message
                a_header_key_replays_the_first_receipt
                a_header_key_with_another_body_is_a_conflict
                a_header_key_is_scoped_to_sender_and_recipient
                a_header_key_fifty_times_at_once_is_one_event
                an_id_replays_the_first_receipt
                an_id_with_another_body_is_a_conflict
                an_id_is_scoped_to_sender_and_recipient
                an_id_fifty_times_at_once_is_one_event
                an_id_outside_the_window_is_refused
                an_id_at_the_edge_of_the_window_is_taken
                a_header_key_that_looks_like_an_id_is_not_one
                a_dropped_append_is_not_undone
            , accounts:
                an_account_is_seen_once_registered
                a_password_hash_is_replaced_if_it_is_the_one
                a_session_is_found_until_it_is_closed
                closing_all_ends_the_sessions_of_one_user
                the_oldest_session_makes_room
                an_unused_session_expires
                a_used_session_is_renewed
                closing_all_ends_a_session_that_only_renewals_kept
                a_closed_session_stays_closed
                the_head_is_the_last_acknowledged_message
            , feed:
                every_event_is_delivered_in_log_order
                offsets_are_dense_and_time_never_falls
                the_trace_of_a_request_comes_with_its_event
                a_feed_made_late_starts_at_the_first_event
                a_batch_is_bounded
                a_waiting_feed_is_woken
                events_handed_out_are_not_handed_out_again
                after_a_restart_the_unacknowledged_come_first
                what_was_acknowledged_never_comes_again
                what_a_dead_consumer_left_is_claimed
                of_two_consumers_with_one_name_one_is_refused
                every_event_goes_to_one_consumer
                a_dropped_read_loses_nothing
                readers_are_told_after_the_ack
                the_monitor_counts
                the_monitor_tells_how_old_the_oldest_is
                the_log_is_read_again_at_any_position
            , tail:
                of_a_new_log_there_is_no_end
                a_tail_begins_with_the_end_of_the_log
                a_tail_is_woken_and_follows_in_log_order
                tails_and_consumers_do_not_touch_each_other
                a_dropped_wait_of_a_tail_loses_nothing
            , log_scan:
                an_empty_log_has_no_extent
                the_whole_log_is_read_page_by_page
                a_scan_takes_nothing_from_consumers
                the_first_unacknowledged_event_is_told
            , limits:
                a_burst_is_granted_and_then_what_comes_back
                what_is_taken_is_at_most_what_is_free
                subjects_have_permits_of_their_own
                of_many_takers_at_once_no_more_are_granted_than_there_are
                another_rate_holds_at_once
                a_rate_of_microseconds_counts_too
                failures_make_the_next_login_wait
                a_success_forgets_the_failures
                failures_are_forgotten_in_time
                of_many_logins_at_once_few_are_tried
                instances_share_a_limit_up_to_their_leases
                requests_that_find_no_lease_share_one_call
                logins_are_exact_over_instances
        }
    };
}

/// Entries that cannot be read. For stores that give `LogStores::put_raw`.
#[macro_export]
macro_rules! malformed_contract {
    ($open:path) => {
        $crate::contract_tests! { $open =>
            malformed:
                an_unreadable_entry_is_delivered_with_its_cause
                neighbours_of_an_unreadable_entry_are_unharmed
                an_unreadable_entry_is_read_again_as_it_was_delivered
                a_tail_gives_what_cannot_be_read_too
        }
    };
}

/// Longer than anything here may take; a test that reaches it has hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// # Panics
/// When `what` takes longer than anything here may take.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

fn name(text: &str) -> Username {
    text.parse().expect("a test's name is well formed")
}

fn pair(one: &str, other: &str) -> Conversation {
    Conversation::between(&name(one), &name(other)).expect("two names")
}

fn new_id() -> EventId {
    Clock::system().new_id()
}

fn message(sender: &str, recipient: &str, content: &str) -> Append {
    let (sender, recipient, content) = (name(sender), name(recipient), content.to_owned());
    Append {
        id: new_id(),
        event: Event::MessageSent(MessageSent { sender, recipient, content }),
        once: None,
        trace: None,
    }
}

fn registration(user: &str) -> Append {
    let event = UserRegistered { username: name(user), password_hash: format!("$argon2id$of${user}") };
    Append { id: new_id(), event: Event::UserRegistered(event), once: None, trace: None }
}

fn mark(reader: &str, peer: &str, seq: Seq) -> Append {
    let event = ConversationRead { reader: name(reader), peer: name(peer), seq };
    Append { id: new_id(), event: Event::ConversationRead(event), once: None, trace: None }
}

impl LogStores {
    /// # Panics
    /// Unless the log takes it as new.
    async fn put(&self, append: Append) -> Receipt {
        match self.log.append(append).await {
            Ok(Appended::New(receipt)) => receipt,
            other => panic!("expected a new event, got {other:?}"),
        }
    }
}
