//! Every bound, with its unit. What is full refuses; nothing grows without end.

use std::time::Duration;

use crate::rate::{Rate, Unit};

// Names and content (docs/api.md).
pub const USERNAME_CHARS_MIN: usize = 2;
pub const USERNAME_CHARS_MAX: usize = 32;
/// Unicode scalar values.
pub const PASSWORD_CHARS_MIN: usize = 8;
pub const PASSWORD_CHARS_MAX: usize = 128;
/// Unicode scalar values.
pub const CONTENT_CHARS_MAX: usize = 4_000;
/// Visible ASCII characters.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 64;
pub const REQUEST_ID_CHARS_MAX: usize = 64;

// HTTP.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Of a body that is too large, this much is read and thrown away before the 413, so that it arrives.
pub const BODY_BYTES_DISCARDED_MAX: usize = 256 * 1024;
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
pub const HEADERS_COUNT_MAX: usize = 64;
/// Also how long a connection may be idle between requests: whoever keeps connections (nginx) closes them sooner.
pub const HEADERS_DEADLINE: Duration = Duration::from_secs(10);
/// A little before the request's own, so that a slow body is told as such.
pub const BODY_DEADLINE: Duration = Duration::from_millis(9_500);
/// From the last byte of the headers to the first of the answer; event streams are exempt.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for so long is cut off.
pub const ANSWER_UNREAD_MAX: Duration = Duration::from_secs(10);
/// A process with more open connections than this accepts no further one until another closes.
pub const CONNECTIONS_MAX: usize = 16_384;
/// From the signal to the exit: what is still open then is cut.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(7);
/// From the end of the last connection to the end of the last task.
pub const TASKS_DEADLINE: Duration = Duration::from_secs(1);

// Spans for a collector (feature `otel`). Beyond this many waiting they are dropped.
pub const SPANS_QUEUED_MAX: usize = 4_096;
pub const SPANS_PER_POST_MAX: usize = 512;
/// Half of [`TASKS_DEADLINE`]: while the process ends, the post on its way and the last one fit into that.
pub const SPANS_POST_TIMEOUT: Duration = Duration::from_millis(500);

// Pages.
pub const PAGE_MESSAGES_MAX: u64 = 100;
pub const PAGE_MESSAGES_DEFAULT: u64 = 50;
pub const PAGE_CONVERSATIONS_MAX: u64 = 100;
pub const PAGE_CONVERSATIONS_DEFAULT: u64 = 50;
/// How long a page waits for the projection before it says `Chat-Behind`.
pub const FRESHNESS_WAIT_MAX: Duration = Duration::from_millis(250);
/// Notices may be lost: a waiting page looks again after this long without one.
pub const FRESHNESS_POLL: Duration = Duration::from_millis(50);
/// How long a page waits for the message of `min_seq`, unless its client prefers otherwise.
pub const MIN_SEQ_WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// And at most: with the call of the views that may follow it is within [`REQUEST_DEADLINE`].
pub const MIN_SEQ_WAIT_MAX: Duration = Duration::from_secs(8);
/// Pages of a process that wait at once for what was acknowledged; so many more may wait for the message of `min_seq`,
/// which can take longer. Each of them looks at every notice, and again after [`FRESHNESS_POLL`].
pub const PAGES_WAITING_MAX: usize = 512;
/// Bodies of pages that a process keeps, with what belongs to each of them.
pub const PAGES_CACHED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The cache is made of so many parts, each with a lock and a share of the bytes: the largest page fits into one.
pub const PAGES_CACHED_SHARDS: usize = 8;
/// How long a client may keep a page that can no longer change: as good as for ever.
pub const IMMUTABLE_MAX_AGE: Duration = Duration::from_secs(365 * 24 * 3600);

// Live events.
/// Held by a process for streams and for readers who come back: at 500 messages/s those of two minutes.
pub const LIVE_EVENTS_MAX: usize = 65_536;
/// Of these, read when the first reader comes: all at once, so fewer.
pub const LIVE_EVENTS_AT_START_MAX: usize = 32_768;
pub const LIVE_RING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// After the last stream: whoever comes back soon finds what he missed without another read of it.
pub const LIVE_FOLLOWED_FOR: Duration = Duration::from_secs(60);
/// Per partition and read.
pub const LIVE_EVENTS_PER_READ_MAX: usize = 256;
/// Between two reads of the log while there is something to read.
pub const LIVE_GATHERED_FOR: Duration = Duration::from_millis(2);
/// Between two attempts to read a log that is away: service is back within 2 s of it.
pub const LIVE_RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long a stream waits for the first read of the log.
pub const LIVE_BEGIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Three quarters of [`CONNECTIONS_MAX`]: requests need some too.
pub const LIVE_STREAMS_MAX: i64 = 12_288;
/// What waits for a reader: with more he is cut off, or told to reload when he comes back.
pub const LIVE_UNSENT_BYTES_MAX: usize = 1024 * 1024;
pub const LIVE_UNSENT_MAX: Duration = Duration::from_secs(10);
/// A stream to whose reader nothing happens says so after 60 to 85 % of this, and [`LIVE_LOOK_EVERY`] more.
pub const LIVE_SILENCE_MAX: Duration = Duration::from_secs(15);
pub const LIVE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who loses his session loses his streams within this, [`LIVE_LOOK_EVERY`] and [`LOG_TIMEOUT`]: below 5 s.
pub const LIVE_SESSION_ASKED_EVERY: Duration = Duration::from_secs(3);
pub const LIVE_SESSIONS_ASKED_AT_ONCE: usize = 256;
/// When to come back after a stream has ended, at random between the two.
pub const LIVE_RETRY_MIN: Duration = Duration::from_secs(1);
pub const LIVE_RETRY_MAX: Duration = Duration::from_secs(4);

// Passwords.
/// About a second of work for one core.
pub const PASSWORD_HASHES_QUEUED_MAX: usize = 32;

/// Of the file of passwords that nobody may choose: some four million lines, several times that in memory.
pub const BLOCKLIST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Names that a process remembers as registered: nobody is ever unregistered. 90 bytes each.
pub const KNOWN_USERS_MAX: usize = 1_000_000;

// Sessions.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// A session in use is renewed when this much of its life is gone: a write a day, not one a request.
pub const SESSION_RENEWAL_AFTER: Duration = Duration::from_secs(24 * 3600);
/// A session that ended is accepted by other processes for at most this long.
pub const SESSION_BELIEVED_MAX: Duration = Duration::from_secs(5);
/// While the store of sessions cannot be asked, reads go on for who was seen within this time; so long may a session
/// that ended in the meantime be accepted then.
pub const SESSION_BELIEVED_WHILE_AWAY_MAX: Duration = Duration::from_secs(60);
/// Sessions that a process remembers: about 150 bytes each.
pub const SESSIONS_BELIEVED_MAX: usize = 100_000;
/// The oldest makes room for a new one.
pub const SESSIONS_PER_USER_MAX: usize = 100;

// What clients may do (docs/settings.md). All of this is configurable or lifted by a switch.
pub const SEND_RATE: Rate = Rate::new(20, Unit::Second, 40);
pub const LOGIN_RATE: Rate = Rate::new(10, Unit::Minute, 10);
pub const REGISTER_RATE: Rate = Rate::new(10, Unit::Minute, 10);
/// Of one user, in one process.
pub const REQUESTS_IN_FLIGHT_PER_USER: u32 = 16;
/// Of one user, in one process.
pub const STREAMS_PER_USER: u32 = 4;
/// Per unit of time, and of a burst: at a million per second permits are a microsecond apart.
pub const RATE_PERMITS_MAX: u32 = 1_000_000;
/// Until a burst that is used up is there again; what is counted of a subject is kept for as long.
pub const RATE_FILL_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A process uses permits that it has leased for no longer than this.
pub const LEASE_LIFETIME: Duration = Duration::from_secs(10);
/// Subjects that a process remembers of each policy: about 200 bytes each.
pub const LEASES_MAX: usize = 100_000;
/// Subjects that an embedded store counts of each policy: about 150 bytes each.
pub const COUNTED_MAX: usize = 100_000;
/// Failed logins into an account from an address that are not made to wait.
pub const LOGIN_FAILURES_FREE: u32 = 10;
/// After that, doubling with each.
pub const LOGIN_DELAY_MIN: Duration = Duration::from_secs(1);
pub const LOGIN_DELAY_MAX: Duration = Duration::from_secs(60);
/// From the last failure on.
pub const LOGIN_FAILURES_REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// A 503 asks for a retry after 1 to so many seconds, at random: who was refused together does not come back so.
pub const RETRY_SECONDS_MAX: u32 = 3;

// Idempotency.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(3600);
/// The longest that can be configured.
pub const IDEMPOTENCY_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// How far ahead of the log's clock the time inside a client's id may lie.
pub const ID_AHEAD_MAX: Duration = Duration::from_secs(300);

// The log.
pub const PARTITIONS_DEFAULT: u16 = 16;
pub const PARTITIONS_MAX: u16 = 1_024;
/// As many as can be answered within [`LOG_TIMEOUT`] at 16,000/s: what comes later would be refused for its age.
pub const APPENDS_QUEUED_MAX: usize = 4_096;
pub const APPENDS_PER_CALL_MAX: usize = 128;
pub const APPEND_CALLS_IN_FLIGHT_MAX: usize = 2;
pub const LOG_TIMEOUT: Duration = Duration::from_millis(250);
/// How long an append waits for replicas. Redis looks for waits that are over every 100 ms (`hz 10`), so one may
/// last as much longer; the rest of [`LOG_TIMEOUT`] is for the sync before it.
pub const REPLICAS_WAIT_MAX: Duration = Duration::from_millis(100);
/// Replicas that an append can be told to wait for.
pub const REPLICAS_MAX: u8 = 9;
/// How often a connection is asked which log it leads to: Redis may be emptied under it.
pub const LOG_NAMED_EVERY: Duration = Duration::from_secs(1);
pub const LOG_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to connect: service is back within 2 s of the log.
pub const LOG_RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

// The feed.
/// In one projector, with a connection and a batch each: while one waits for the views another one reads.
pub const CONSUMERS_PER_PROJECTOR: usize = 2;
/// In one batch, all partitions together. The more events of a conversation are in one, the less each costs the views.
pub const BATCH_EVENTS_MAX: usize = 8_192;
/// Of events in one batch, or one read more. Events of usual size, some 350 B, are bounded by their number; projecting
/// one takes four times its size.
pub const BATCH_EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of all partitions together in one read, but one of each: an answer of the largest messages is 8 MiB.
pub const READ_EVENTS_MAX: usize = 512;
/// Of one partition in one read, where those before were small: 16 MiB if the largest messages follow. Each read is
/// noted and synced before it is answered.
pub const READ_OF_ONE_EVENTS_MAX: usize = 1_024;
/// How long a read of the feed waits for the first event. As often a consumer looks for what others left.
pub const FEED_WAIT_MAX: Duration = Duration::from_millis(500);
/// Whether the log holds what was seen of it, on a connection that lasts; on a new one at once.
pub const LOG_INSPECTED_EVERY: Duration = Duration::from_secs(3);
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A consumer of which nothing was heard for so long is dead: others take over what it holds. With the look of the
/// others and their batch in between, that is within 5 s of a kill.
pub const CONSUMER_SILENCE_MAX: Duration = Duration::from_secs(3);
/// A dead consumer that holds nothing leaves the group. A restart takes less, so that its numbers stay.
pub const CONSUMER_REMEMBERED: Duration = Duration::from_secs(20);
/// A consumer that neither reads nor acknowledges for so long is stuck: it is heard of no more. Longer than a store
/// takes to restart, as one that waits for its store is well.
pub const CONSUMER_CALLS_APART_MAX: Duration = Duration::from_secs(120);
/// What was acknowledged is noted by such spans of time, the last of them in which anything was: at least 15 s, more than
/// a store with a periodic commit log loses with its machine.
pub const ACK_TRAIL_SPAN: Duration = Duration::from_secs(5);
pub const ACK_TRAIL_SPANS: usize = 6;
/// For the answer to a read of the feed, [`FEED_WAIT_MAX`] included.
pub const FEED_TIMEOUT: Duration = Duration::from_secs(5);
/// Events of one partition acknowledged or taken over in one call: a script's arguments are bounded.
pub const ACKS_PER_CALL_MAX: usize = 1_024;
pub const NOTICES_QUEUED_MAX: usize = 4_096;
pub const NOTICES_PER_PUBLISH_MAX: usize = 256;
/// How often a subscriber asks whether its connection still lives.
pub const NOTICES_PING_INTERVAL: Duration = Duration::from_secs(5);

// The views.
/// Messages per Cassandra partition of the timeline: 5,000 messages of 4 KiB stay below 25 MiB.
pub const BUCKET_MESSAGES: u64 = 5_000;
pub const VIEWS_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of one batch sent to Cassandra, below its stock limit of 50 KiB.
pub const BATCH_BYTES_MAX: usize = 40 * 1024;
pub const BATCH_STATEMENTS_MAX: usize = 100;
/// Of one consumer. Beyond 16 in flight per node a write buys latency only.
pub const VIEW_BATCHES_IN_FLIGHT_MAX: usize = 16;
pub const VIEW_CONNECTIONS_PER_NODE: usize = 2;
/// Connecting, checking the schema and preparing every statement: some 25 answers that are waited for one after the other,
/// so a store whose answers take 300 ms can be used.
pub const VIEWS_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect: service is back within 2 s of a store that answers within some ms.
pub const VIEWS_RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Who notices a change of the generations and has not connected anew goes on as before for so long: what is needed to
/// connect, and less than [`UNFIT_EXPECTED_MAX`] and [`DROP_GRACE`].
pub const VIEWS_OUTDATED_MAX: Duration = VIEWS_CONNECT_TIMEOUT;
/// How long a change of the serving generation may go unnoticed.
pub const GENERATION_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a generation that has served may be kept at most, so that readers can go back to it.
pub const ROLLBACK_WINDOW_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often a projector looks whether one is to be dropped.
pub const GENERATIONS_RETIRED_EVERY: Duration = Duration::from_secs(5);
/// Events per second that `--rate` of a rebuild and of a comparison may say.
pub const LOG_RATE_MAX: u32 = 1_000_000;
/// While the serving generation is behind by more than this, another one is not built.
pub const REBUILD_YIELDS_AT: Duration = Duration::from_secs(1);
/// In one batch, while anything else is applied: some milliseconds of work.
pub const REBUILD_BITE_EVENTS_MAX: usize = 512;
/// How many times as long as a batch took a consumer rests after it then: both consumers of a projector together work for
/// half of the time.
pub const REBUILD_RESTS_FOR: u32 = 3;
/// A killed rebuild can be gone on with after this.
pub const REBUILD_CLAIM_LIFETIME: Duration = Duration::from_secs(10);
/// A generation that is built has caught up when the oldest event that it lacks is younger.
pub const REBUILD_CAUGHT_UP: Duration = Duration::from_secs(1);
/// A projector that is to leave a generation writes what it has read; after this it leaves that to others.
pub const FILLING_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// A projector that fills a generation which its connection does not know yet, or no more, is no alarm for so long: it
/// connects anew meanwhile, or leaves.
pub const UNFIT_EXPECTED_MAX: Duration = Duration::from_secs(12);
/// A generation to which nothing is applied for so long may have no projector.
pub const REBUILD_STANDSTILL_MAX: Duration = Duration::from_secs(5);
/// How long a generation that nobody is to fill any more is left alone, before it is removed: several times what a
/// projector needs to notice, to finish its batch and to end; and longer than a store with a periodic commit log takes to
/// have on the disk that it does not serve. Else a power cut could have it serve again without its tables.
pub const DROP_GRACE: Duration = Duration::from_secs(15);
/// Rows that one request of a longer read brings.
pub const VIEW_ROWS_PER_REQUEST: i32 = 100;
/// Of an inbox, which may be long: 250 KB as a rule, 8 MB of the longest messages.
pub const INBOX_ROWS_PER_REQUEST: usize = 500;

// Migration.
/// How long a migration waits for the store and for another migration, and repeats what has not answered.
pub const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a migration waits for as many nodes as a quorum of the copies needs.
pub const RING_WAIT_MAX: Duration = Duration::from_secs(10);
/// One statement, with the agreement of all nodes on its outcome.
pub const MIGRATION_STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// The lock is renewed before each statement, and outlives the slowest: what a killed migration holds is free
/// again after this.
pub const MIGRATION_LOCK_LIFETIME: Duration = Duration::from_secs(60);

// The archive.
/// Entries of one block: some 45 KB as a rule and a third of that compressed, 2 MB of the longest messages.
pub const ARCHIVE_BLOCK_ENTRIES: u64 = 128;
/// Blocks of one Cassandra partition: some 1 MB as a rule.
pub const ARCHIVE_BLOCKS_PER_SPAN: u64 = 64;
/// Of a field in the archive: no event's is larger. The largest block has 64 MiB, as of an entry there is no more than
/// [`ENTRY_BYTES_MAX`].
pub const ARCHIVED_FIELD_BYTES_MAX: usize = EVENT_BYTES_MAX;
/// Of a compressed block, in one cell.
pub const ARCHIVE_PART_BYTES_MAX: usize = 128 * 1024;
/// Parts that one response brings.
pub const ARCHIVE_PARTS_PER_REQUEST: i32 = 16;
/// Between two looks at what the log has gained.
pub const ARCHIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions that one projector archives at once.
pub const ARCHIVE_PARTITIONS_AT_ONCE: usize = 4;
/// Blocks of one partition that are archived, and that are trimmed, before the others get their turn again.
pub const ARCHIVE_BLOCKS_PER_LOOK: u64 = 256;
/// What is trimmed has been in the archive for so long: more than a store with a periodic commit log loses with its
/// machine.
pub const ARCHIVE_SETTLED_AFTER: Duration = Duration::from_secs(15);
/// How often it is noted how far a partition is archived.
pub const ARCHIVE_NOTED_EVERY: Duration = Duration::from_secs(5);
/// What was acknowledged in so many of the last spans ([`ACK_TRAIL_SPAN`]) is not trimmed, as it may have to be applied
/// again: 15 s at least.
pub const TRIM_TRAIL_SPANS: u64 = 4;
/// What is to be trimmed and is held up for so long is an alarm. Longer than what was acknowledged last is kept.
pub const TRIM_HELD_MAX: Duration = Duration::from_secs(40);
/// With so much of the memory that the log may take in use, it is one also where a generation gets on.
pub const TRIM_HELD_MEMORY_PERCENT: u64 = 80;
/// Of the log, kept in memory: the longest time and the least memory that can be configured.
pub const HOT_WINDOW_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
pub const HOT_WINDOW_BYTES_MIN: u64 = 1024 * 1024;
/// How long a consumer that follows the stream reads from the archive before it looks at the stream again.
pub const REPLAY_TURN: Duration = Duration::from_secs(2);
/// How often it looks whether there is anything to be read from the archive.
pub const REPLAY_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A projector that is killed leaves its blocks to others after this.
pub const REPLAY_LEASE: Duration = Duration::from_secs(10);
/// Blocks of each partition that a restore puts into the log again: what was appended last, for whoever comes back to
/// an event stream. The others stay in the archive alone, as if they had been trimmed.
pub const RESTORED_BLOCKS_HOT: u64 = 4;
/// Blocks that a restore reads at once.
pub const RESTORED_BLOCKS_AT_ONCE: usize = 8;
pub const RESTORED_HEADS_PER_CALL_MAX: usize = 1_024;

// The embedded store.
/// Commands written and synced as one.
pub const APPENDS_PER_GROUP_MAX: usize = 512;
/// A disk that takes longer leaves the outcome of an append unknown.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// With less space on the disk writes are refused, so that the store always has room for its own work.
pub const DISK_FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// What is kept in memory, per keyspace, before it becomes a file.
pub const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Blocks of files that are kept in memory, of each of the two databases.
pub const BLOCKS_CACHED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Of the threads that flush and compact: a tenth of a core's time beside one that is as urgent as can be (Linux). At half
/// of the peak they would hold up one send in a hundred for twice as long.
pub const BACKGROUND_NICENESS: i32 = 10;
/// With more than this the keyspace that still needs the oldest journal is flushed: so a start reads little more.
pub const JOURNALS_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Events that the projector is given at once: more of them cost little less each, and take longer to be seen.
pub const PROJECTED_PER_BATCH_MAX: usize = 128;
/// While more wait, one in so many of them is given at once: whoever waits for the first of many waits long anyway.
pub const PROJECTED_WHEN_BEHIND_PART: usize = 8;
/// The most that is given at once, as when views are built anew: together they cost a quarter less.
pub const PROJECTED_WHEN_BEHIND_MAX: usize = 4_096;
/// Rows of inboxes that are kept in memory before they are written: so many, as many bytes, for as long. Each is replaced
/// by the next message of its conversation, so the longer they are kept the fewer are written; but after a crash what came
/// meanwhile is applied again, and while they are written (some 2 ms per thousand) nothing else is applied.
pub const INBOXES_UNWRITTEN_ROWS_MAX: usize = 32_768;
pub const INBOXES_UNWRITTEN_BYTES_MAX: usize = 8 * 1024 * 1024;
pub const INBOXES_UNWRITTEN_FOR_MAX: Duration = Duration::from_secs(1);
/// Rows of inboxes, and conversations, whose numbers are remembered: about 150 bytes each.
pub const RECENT_ROWS_MAX: usize = 65_536;
/// Expired records and sessions removed along with one group.
pub const EXPIRED_PER_GROUP_MAX: usize = 1_024;

/// Of an event's payload. No command makes one near it (see [`BODY_BYTES_MAX`]), and any store takes it.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// An entry of the log that takes more holds no event. It is known by its id, and not copied to be read.
pub const ENTRY_BYTES_MAX: usize = 2 * EVENT_BYTES_MAX;
pub const CAUSE_CHARS_MAX: usize = 500;
/// Of an entry that is parked; Cassandra refuses requests above 16 MiB.
pub const PARKED_BYTES_MAX: usize = 1024 * 1024;
/// Unreadable events of late up to which each is parked, however few others there are.
pub const STORM_UNREADABLE_MAX: usize = 200;
/// How many events "of late" are: beyond this what was read before counts for half.
pub const STORM_EVENTS: usize = 1_000;
/// Parked events that are counted; with more than these it is no longer the number that matters.
pub const PARKED_COUNTED_MAX: usize = 10_000;
/// Parked events that a command shows at most, and unless told otherwise.
pub const PARKED_LISTED_MAX: u32 = 10_000;
pub const PARKED_LISTED_DEFAULT: u32 = 100;
/// Parked events that are tried again together: an entry may be large, and the log answers in time.
pub const PARKED_RETRIED_MAX: usize = 32;

// Comparing views with the log.
/// Events of one partition read at once: they hold up Redis for less than a millisecond.
pub const SCAN_EVENTS_PER_PAGE: usize = 512;
/// Rows of one table read at once.
pub const SCAN_ROWS_PER_PAGE: usize = 1_000;
/// Pages of log or tables that are asked for at once: what else asks the stores hardly notices.
pub const SCAN_PAGES_IN_FLIGHT_MAX: usize = 4;
/// Parts into which a table is cut by its tokens.
pub const SCAN_PARTS: u16 = 64;
/// One page of a table.
pub const SCAN_PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A page is asked for again for so long.
pub const SCAN_PATIENCE: Duration = Duration::from_secs(30);
/// How often a comparison looks whether the views have got as far as it wants to read, and then whether anything is
/// applied.
pub const VERIFY_POLL: Duration = Duration::from_millis(100);
/// How many times as long as a page took its reader rests after it, while anything is applied: all of them together read
/// for as long as one would.
pub const VERIFY_RESTS_FOR: u32 = 3;
/// And for no longer than this.
pub const VERIFY_REST_MAX: Duration = Duration::from_secs(1);
/// Views that apply nothing for so long will not get there.
pub const VERIFY_STANDSTILL_MAX: Duration = Duration::from_secs(30);
/// Of the log, that `projector repair` holds at once: about 150 bytes each. Where there are more it compares a part of all
/// users and messages after the other, and reads log and views again for each.
pub const REPAIR_HELD_MAX: u64 = 2_000_000;
/// Lost ones that `projector repair` gives back: about 300 bytes each, and what was written in them.
pub const REPAIRED_EVENTS_MAX: usize = 1_000_000;
/// Of what was written in them.
pub const REPAIRED_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Differences that are listed; beyond them only their number is told.
pub const DIFFERENCES_LISTED_MAX: usize = 100;
/// Rows newer than what the comparison has read of the log that are held until it has, which is when there are half as
/// many: about 100 bytes each.
pub const VERIFY_NEWER_ROWS_MAX: usize = 200_000;
/// Rows of conversations that differ which are compared one by one at a time: about 100 bytes each.
pub const VERIFY_ROWS_HELD_MAX: u64 = 200_000;
/// Parked and settled events that a comparison takes into account.
pub const VERIFY_PARKED_MAX: usize = 200_000;

// How far the projection is.
pub const PROGRESS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// While a partition has lost events.
pub const ALARM_REPEATED_EVERY: Duration = Duration::from_secs(60);
/// Parked events are looked at once in so many checks: they are read one by one.
pub const PARKED_CHECKED_EVERY: u32 = 10;
/// With an older event that is not applied yet the projection is behind. A stalled projector is taken over from
/// within less.
pub const BEHIND_MAX: Duration = Duration::from_secs(15);
/// A projection that is behind and has applied nothing for so long does not advance.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(15);

/// Where there is no terminal, how far a command is is told so often.
pub const PROGRESS_TOLD_INTERVAL: Duration = Duration::from_secs(1);

// Retries.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

// Commands of an operator.
/// How long they wait for a store that does not answer, or starts.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(15);
/// And until they say that they wait.
pub const COMMAND_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Partitions that have lost events, of which `projector status` says how; of all it says that they have.
pub const LOSSES_SHOWN_MAX: usize = 4;
