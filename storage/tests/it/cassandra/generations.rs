//! The register of generations: which change is made from which state, and what a generation leaves.

use futures_util::TryStreamExt;
use shared::Timestamp;
use shared::generation::{Generation, Generations, State};
use shared::limits::{GENERATION_CHECK_INTERVAL, VIEWS_OUTDATED_MAX};
use shared::ports::{Epoch, Origin, SeenLog, StoreError, ViewReader, ViewWriter};
use shared::view::{UserRow, UsersChange, ViewChange};
use storage::cassandra::{Migrator, Options};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Connected, Door, options};

/// Until when what served is kept.
const KEPT: Timestamp = Timestamp(1_000);

/// Connecting anew takes some more.
const FOLLOWED_WITHIN: std::time::Duration = GENERATION_CHECK_INTERVAL.saturating_mul(20);

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(FOLLOWED_WITHIN, poll).await.unwrap_or_else(|_| panic!("not yet: {what}"));
}

#[tokio::test]
async fn a_generation_goes_from_state_to_state() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let Connected { cassandra, shutdown: _shutdown } = &Connected::to(&options).await;
    let register = cassandra.generations();
    let is = async |expected: &[(u32, State)]| {
        let listed = register.list().await.unwrap();
        let listed: Vec<_> = listed.iter().map(|one| (one.number, one.state)).collect();
        assert_eq!(listed, expected);
    };
    let (building, projecting) = (State::Building, State::Projecting);
    assert!(!register.change(1, State::Serving, State::Dropping).await.unwrap());
    assert!(!register.change(1, projecting, State::Dropping).await.unwrap(), "it serves");
    assert!(!register.serve(2, KEPT).await.unwrap());
    is(&[(1, State::Serving)]).await;

    let added = register.add(Some(7)).await.unwrap();
    assert_eq!(added, Generation { number: 2, state: building, rate: Some(7), kept_until: None });
    assert_eq!(register.list().await.unwrap()[1], added);
    assert!(!register.serve(2, KEPT).await.unwrap(), "it is not complete");
    assert!(!register.change(2, projecting, State::Dropping).await.unwrap(), "it is in another state");
    assert!(register.limit(2, None).await.unwrap());
    assert_eq!(register.list().await.unwrap()[1].rate, None);
    assert!(register.change(2, building, projecting).await.unwrap());
    assert!(!register.limit(2, Some(1)).await.unwrap(), "it is built");

    // Both are filled, and each is read when it serves.
    eventually("the tables are known", async || cassandra.writer(2).apply(Vec::new(), &[]).await.is_ok())
        .await;
    let user = |name: &str| {
        let user = UserRow { username: name.parse().unwrap(), registered_at: Timestamp(1) };
        vec![ViewChange::Users(UsersChange::PutUser { user, seq: 1 })]
    };
    cassandra.writer(1).apply(user("anna"), &[]).await.unwrap();
    cassandra.writer(2).apply(user("ben"), &[]).await.unwrap();
    let reads = async |name: &str| cassandra.reader().user(&name.parse().unwrap()).await.unwrap().is_some();
    assert!(reads("anna").await && !reads("ben").await);
    assert!(register.serve(2, KEPT).await.unwrap());
    is(&[(1, projecting), (2, State::Serving)]).await;
    eventually("readers follow", async || reads("ben").await && !reads("anna").await).await;

    let kept = async || register.list().await.unwrap().iter().map(|one| one.kept_until).collect::<Vec<_>>();
    assert_eq!(kept().await, [Some(KEPT), None]);
    assert!(register.serve(1, KEPT).await.unwrap());
    assert_eq!(kept().await, [None, Some(KEPT)]);
    let longer = KEPT.plus(std::time::Duration::from_secs(1));
    assert!(!register.keep(1, longer).await.unwrap() && register.keep(2, longer).await.unwrap());
    assert_eq!(kept().await, [None, Some(longer)]);
    assert!(!register.expire(1, KEPT).await.unwrap(), "it serves");
    assert!(register.change(2, projecting, building).await.unwrap());
    assert!(register.change(2, building, projecting).await.unwrap());
    assert_eq!(kept().await, [None, None], "it is another one than the one that served");
    assert!(!register.expire(2, KEPT).await.unwrap());
    assert!(register.serve(2, KEPT).await.unwrap());
    assert!(!register.expire(1, Timestamp(KEPT.0 - 1)).await.unwrap(), "its time is not over");
    assert!(register.expire(1, KEPT).await.unwrap());
    assert_eq!(kept().await, [None, None]);
    assert!(!register.serve(1, KEPT).await.unwrap(), "it is being dropped");
    register.remove(1).await.unwrap();
    register.remove(1).await.unwrap();
    assert!(register.change(1, State::Dropping, State::Dropped).await.unwrap());
    is(&[(1, State::Dropped), (2, State::Serving)]).await;
    eventually("nothing is left", async || cassandra.writer(1).apply(user("anna"), &[]).await.is_err()).await;
    assert!(reads("ben").await);
    assert_eq!(register.add(None).await.unwrap().number, 3, "no number is used twice");
    // The schema can be brought up to date with a hole in the numbers.
    Migrator::new(&options).unwrap().migrate().await.unwrap();
}

#[tokio::test]
async fn one_rebuilds_at_a_time() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let connected = Connected::to(&options).await;
    let register = connected.cassandra.generations();
    assert!(register.claim_rebuild("one").await.unwrap());
    assert!(register.claim_rebuild("one").await.unwrap(), "it is kept");
    assert!(!register.claim_rebuild("two").await.unwrap());
    register.release_rebuild("two").await.unwrap();
    assert!(!register.claim_rebuild("two").await.unwrap(), "only its holder gives it back");
    register.release_rebuild("one").await.unwrap();
    assert!(register.claim_rebuild("two").await.unwrap());
}

/// What one look has found is not believed of the generation of another.
#[tokio::test]
async fn a_generation_is_read_beside_its_own_log() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let Connected { cassandra, shutdown: _shutdown } = &Connected::to(&options).await;
    let (register, origin) = (cassandra.generations(), cassandra.origin());
    let epoch = |text: &str| text.parse::<Epoch>().unwrap();
    let found = watch::Sender::new(Some(epoch("a")));
    let reader = cassandra.reader().beside(found.subscribe());
    let (anna, conversation) = ("anna".parse().unwrap(), "anna:ben".parse().unwrap());
    let other = |error: StoreError| matches!(error, StoreError::Other { .. });
    // By all calls.
    let read = async |is_read: bool| {
        let all = [
            reader.timeline(&conversation, 1, 9).await.map(drop),
            reader.timeline_head(&conversation).await.map(drop),
            reader.user(&anna).await.map(drop),
            reader.inbox(&anna).try_collect::<Vec<_>>().await.map(drop),
        ];
        all.into_iter().all(|one| if is_read { one.is_ok() } else { one.is_err_and(other) })
    };
    eventually("somebody has looked", async || *origin.borrow() == Origin::Nothing).await;
    assert!(read(true).await, "they have seen nothing");
    cassandra.seen(1).follow(&[0, 1], &epoch("a")).await.unwrap();
    eventually("they are of that log", async || *origin.borrow() == Origin::Log(epoch("a"))).await;
    assert!(read(true).await);
    found.send_replace(Some(epoch("b")));
    assert!(read(false).await);

    assert_eq!(register.add(None).await.unwrap().number, 2);
    assert!(register.change(2, State::Building, State::Projecting).await.unwrap());
    cassandra.seen(2).follow(&[0, 1], &epoch("b")).await.unwrap();
    assert!(read(false).await, "it does not serve");
    assert!(register.serve(2, KEPT).await.unwrap());
    eventually("it serves", async || read(true).await).await;
    eventually("it is told", async || *origin.borrow() == Origin::Log(epoch("b"))).await;
    assert!(register.serve(1, KEPT).await.unwrap());
    eventually("the first one serves again", async || read(false).await).await;
    found.send_replace(Some(epoch("a")));
    assert!(read(true).await);
}

/// Whoever cannot connect anew at once goes on with what he has, but not for ever.
#[tokio::test]
async fn reads_go_on_while_a_changed_register_cannot_be_followed_yet() {
    let direct = options();
    Migrator::new(&direct).unwrap().migrate().await.unwrap();
    let mut door = Door::closed().await;
    door.open().await;
    let connected = Connected::to(&Options { nodes: vec![door.address.clone()], ..direct.clone() }).await;
    let (reader, conversation) = (connected.cassandra.reader(), "anna:ben".parse().unwrap());
    let reads = async || reader.timeline_head(&conversation).await.is_ok();
    door.admit_no_more();
    let changed = Instant::now();
    assert_eq!(Connected::to(&direct).await.cassandra.generations().add(None).await.unwrap().number, 2);
    while changed.elapsed() < VIEWS_OUTDATED_MAX {
        assert!(reads().await, "after {:?}", changed.elapsed());
        tokio::time::sleep(GENERATION_CHECK_INTERVAL / 10).await;
    }
    let unknown = connected.cassandra.writer(2).apply(Vec::new(), &[]).await;
    assert!(unknown.is_err(), "it knows nothing of it yet");
    eventually("it gives up", async || !reads().await).await;
    door.open().await;
    eventually("it follows", async || connected.cassandra.writer(2).apply(Vec::new(), &[]).await.is_ok())
        .await;
    assert!(reads().await);
}
