//! A view is changed while the system is used: the story of docs/replay.md ("After a change of a view"), with the
//! programs that docs/examples/changed-view.patch makes of these.

use std::path::Path;
use std::process::Output;

use e2e::comparison::cassandra;
use e2e::environment::{binaries, changed_binaries};
use e2e::ports::free_address;
use e2e::process::{self, Process, Signal};
use e2e::traffic::{Pair, Readers, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Backend, Client, TestApp, User, eventually, seqs};
use scylla::value::CqlTimestamp;
use serde_json::json;

e2e::real_scenarios!(old_and_new_programs_side_by_side_then_built_and_served_and_dropped);

e2e::embedded_scenarios!(a_directory_goes_to_the_new_program_and_back);

const NEWER: &str = "it needs a newer program";
/// Of a row that a program wrote which knows nothing of the column.
const LACKS: &str = "other time of read mark";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Every recipient reads the last message that there is.
async fn read_all(pairs: &[Pair]) {
    for Pair { sender, recipient } in pairs {
        let last = format!("/messages?sender={}&recipient={}&limit=1", sender.name, recipient.name);
        let last = recipient.fresh(&last).await.items();
        recipient.mark_read(sender, seqs(&last)[0]).await;
    }
}

/// The marks in the inboxes of a generation, and when they were set.
async fn marks(app: &TestApp, generation: u32) -> Vec<(i64, Option<CqlTimestamp>)> {
    let (session, keyspace) = cassandra(app.processes()).await;
    let select = format!("SELECT read_mark, read_at FROM {keyspace}_g{generation}.inbox");
    let rows = session.query_unpaged(select, ()).await.unwrap().into_rows_result().unwrap();
    let rows = rows.rows::<(Option<i64>, Option<CqlTimestamp>)>().unwrap().map(Result::unwrap);
    rows.filter_map(|(mark, at)| Some((mark?, at))).collect()
}

async fn old_and_new_programs_side_by_side_then_built_and_served_and_dropped() {
    let app = TestApp::start(Backend::Real).await;
    let pairs = Pair::of(&app.users(5).await, 8);
    let (traffic, reads) = (Traffic::start(&pairs, 2).await, Readers::start(&pairs, 1));
    let used = async || {
        traffic.go_on_for(60).await;
        read_all(&pairs).await;
    };
    used().await;
    a_newer_schema_is_refused_by_who_starts(&app, pairs.len(), &used).await;
    for name in ["query-api-2", "projector-2"] {
        app.processes().replace(name).await;
        used().await;
    }
    assert_eq!(marks(&app, 1).await.len(), pairs.len());
    who_was_forgotten_holds_nothing_up(&app, &used).await;
    used().await;
    assert_eq!(app.processes().done(&["serve", "2"]).await["state"], "serving");
    used().await;
    assert_eq!(app.processes().done(&["drop", "1"]).await["state"], "dropped");
    used().await;

    let (sent, reads) = (traffic.end().await, reads.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    let comparison = app.compare().await;
    assert_eq!(comparison["generation"], 2);
    assert_eq!((&comparison["listed"], &comparison["differences"]), (&json!([]), &json!(0)));
    let filled = marks(&app, 2).await;
    assert_eq!(filled.len(), pairs.len());
    assert!(filled.iter().all(|(_, at)| at.is_some()), "{filled:?}");
    app.finish().await;
}

/// What runs goes on. The new programs see that all rows lack the column; new ones are started from then on.
async fn a_newer_schema_is_refused_by_who_starts(app: &TestApp, rows: usize, used: &impl AsyncFn()) {
    let (old, new, system) = (binaries(), changed_binaries(), app.processes());
    system.use_programs(&new);
    let migrated = system.migrate().await;
    assert!(migrated.ends_with("_read_at.cql\n"), "{migrated}");
    used().await;
    let comparison = app.compare().await;
    let lacking = comparison["listed"].as_array().unwrap().iter();
    let lacking = lacking.filter(|one| one["what"].as_str().unwrap().starts_with(LACKS));
    assert_eq!((lacking.count(), &comparison["differences"]), (rows, &json!(rows)), "{comparison}");

    system.use_programs(&old);
    let refused = system.projector(&["generations"]).await;
    assert!(!refused.status.success() && text(&refused).contains(NEWER), "{}", text(&refused));
    for name in ["query-api-2", "projector-2"] {
        system.terminate(name).await;
        let output = system.refusal(name).await;
        assert!(output.contains(NEWER), "{output}");
    }
    used().await;
    system.use_programs(&new);
}

/// One of each kind is old when the new generation is built: it has no part in that.
async fn who_was_forgotten_holds_nothing_up(app: &TestApp, used: &impl AsyncFn()) {
    let system = app.processes();
    let rebuilt = app.processes().done(&["rebuild"]).await;
    assert_eq!((&rebuilt["generation"], &rebuilt["differences"]), (&json!(2), &json!(0)), "{rebuilt}");
    let forgotten =
        [("projector-1", "it leaves its work to others"), ("query-api-1", "cannot use cassandra")];
    for (name, says) in forgotten {
        let log = eventually("it sees that it is old", async || {
            let log = system.logs().await.remove(name).unwrap();
            log.contains(says).then_some(log)
        });
        let log = log.await;
        assert!(log.contains(NEWER), "{log}");
    }
    used().await;
    for (name, _) in forgotten {
        system.replace(name).await;
    }
}

/// `standalone` of one directory of programs, on one directory of data.
struct Directory {
    data: String,
    process: Process,
    client: Client,
}

impl Directory {
    async fn started(&mut self) {
        eventually("it is ready", async || {
            let ended = self.process.exit_status().unwrap();
            assert!(ended.is_none(), "{}", self.process.tail());
            let answer = self.client.get("/readyz").try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    async fn ended(&mut self) {
        self.process.signal(Signal::TERM).unwrap();
        self.process.ended().await.unwrap();
    }

    /// Of other programs, whose start builds the views anew before it listens.
    async fn start(&mut self, programs: &Path) {
        let refused = self.verify(programs);
        assert!(text(&refused).contains("another shape"), "{refused:?}");
        let before = self.process.output().len();
        self.process.replace(&programs.join("standalone")).unwrap();
        self.started().await;
        let output = self.process.output();
        assert!(output[before..].contains("the views are built anew"), "{output}");
    }

    /// `standalone verify` of these programs.
    fn verify(&self, programs: &Path) -> Output {
        let mut command = process::command(&programs.join("standalone"));
        command.args(["verify", "--data-dir", &self.data]).output().unwrap()
    }
}

async fn a_directory_goes_to_the_new_program_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (binaries(), changed_binaries());
    let (data, address) = (dir.path().join("data").display().to_string(), free_address());
    let [listen, operations] = [address, free_address()].map(|address| address.to_string());
    let arguments = ["--listen", &listen, "--metrics-listen", &operations, "--data-dir", &data];
    let arguments = arguments.into_iter().chain(["--rate-limits", "off"]).map(str::to_owned).collect();
    let process = Process::start("standalone", &old.join("standalone"), arguments, dir.path()).unwrap();
    let mut directory = Directory { data, process, client: Client::new(address) };
    directory.started().await;
    let [samer, lena] = ["samer", "lena"].map(|name| User::register(&directory.client, name));
    let (samer, lena) = (samer.await, lena.await);
    let mut sent = Vec::new();
    for [one, other] in [[&old, &new], [&new, &old]] {
        sent.push(samer.send(&lena, "hi").await);
        lena.mark_read(&samer, sent.len() as u64).await;
        assert_eq!(lena.conversation(&samer).await, sent);
        directory.ended().await;
        let clean = directory.verify(one);
        assert!(clean.status.success(), "{clean:?}");
        directory.start(other).await;
        assert_eq!(lena.conversation(&samer).await, sent);
        assert_eq!(lena.conversations().await[0]["read_seq"], sent.len());
    }
    directory.ended().await;
}
