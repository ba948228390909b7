//! `standalone parked` on a directory: what could not be applied is shown, tried again and given up, for good.

use std::path::Path;

use e2e::poison;
use serde_json::Value;
use shared::Position;

use crate::{command, open_store, text};

fn parked(data: &Path) -> Vec<Position> {
    let listing: Value =
        serde_json::from_slice(&command("parked", data, &["list", "--json"]).stdout).unwrap();
    let events = listing["parked"].as_array().unwrap();
    events.iter().map(|event| event["position"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_in_a_directory_is_applied_or_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let good = |seq| poison("samer", "lena", seq, "spoilt");
    let store = open_store(&data);
    for seq in 1..=2 {
        let mut spoilt = good(seq);
        spoilt.envelope.kind = "MessageSung".to_owned();
        store.put_raw(spoilt).await.unwrap();
    }
    let beside = command("parked", &data, &["list"]);
    assert!(!beside.status.success() && text(&beside.stderr).contains("in use"), "{beside:?}");
    drop(store);
    // It applies first what is not applied.
    command("verify", &data, &[]);

    let positions = parked(&data);
    assert_eq!(positions.len(), 2);
    let store = open_store(&data);
    store.repair_raw(positions[0], good(1)).await.unwrap();
    drop(store);
    let first = positions[0].to_string();
    for (arguments, code, printed, said) in [
        (&["show", &first][..], 0, "place       lena:samer 1\n", ""),
        (&["retry", &first], 0, "applied 1, still parked 0\n", ""),
        (&["retry", &first], 1, "", "no event is parked at"),
        (&["retry", "--all"], 1, "applied 0, still parked 1\n", "1 cannot be applied still"),
        (&["discard", "--all"], 1, "", "1 would be given up for good: --yes does it"),
        (&["discard", "--all", "--yes"], 0, "discarded 1\n", "a parked event is discarded"),
        (&["discard", "--all"], 0, "nothing is parked\n", ""),
        (&["retry", "--all", "--json"], 0, "{\"applied\":0,\"parked\":0}\n", ""),
    ] {
        let output = command("parked", &data, arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        assert!(out.contains(printed) && err.contains(said), "{arguments:?}: {out}{err}");
    }
    assert_eq!(parked(&data), []);
    let compared = command("verify", &data, &[]);
    assert!(compared.status.success(), "{compared:?}");
}
