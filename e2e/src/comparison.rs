//! Views compared with the log, as `projector verify` does it, and views that somebody has spoilt past every program.
//! On the embedded backend through the same code as the command, which has servers of its own.

use projector::{Comparison, Verifier};
use serde_json::{Value, json};

use crate::app::{System, TestApp};

impl TestApp {
    /// What `projector verify --json` prints.
    pub async fn compare(&self) -> Value {
        match self.system() {
            System::Embedded(system) => {
                let store = std::sync::Arc::new(system.store().clone());
                let verifier =
                    Verifier { generation: 1, log: store.clone(), views: store.clone(), monitor: store };
                json!(compare(&verifier).await)
            }
            System::Real(system) => {
                let output = system.verify(&["--json"]).await;
                let (text, errors) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                let comparison: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
                assert_eq!(output.status.success(), comparison["differences"] == 0, "{text}{errors}");
                comparison
            }
        }
    }
}

/// # Panics
/// When there is no comparison.
pub async fn compare(verifier: &Verifier) -> Comparison {
    projector::verify(verifier, &|_| ()).await.expect("a comparison")
}

/// Runs statements on Cassandra; `{views}` stands for the keyspace of the first generation, `{keyspace}` for the one that
/// all their names begin with.
#[cfg(feature = "real")]
pub async fn spoil(system: &crate::real::System, statements: &[&str]) {
    let (session, keyspace) = cassandra(system).await;
    for statement in statements {
        let statement = statement.replace("{views}", "{keyspace}_g1").replace("{keyspace}", &keyspace);
        session
            .query_unpaged(statement.as_str(), ())
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Whether the tables of a generation are there.
#[cfg(feature = "real")]
pub async fn has_views(system: &crate::real::System, generation: u32) -> bool {
    let (session, keyspace) = cassandra(system).await;
    let select = format!(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = '{keyspace}_g{generation}'"
    );
    let rows = session.query_unpaged(select, ()).await.expect("an answer").into_rows_result().expect("rows");
    rows.rows_num() > 0
}

/// A session past every program, and what the names of all keyspaces begin with.
///
/// # Panics
/// When there is none.
#[cfg(feature = "real")]
pub async fn cassandra(system: &crate::real::System) -> (scylla::client::session::Session, String) {
    use scylla::client::session_builder::SessionBuilder;

    let (node, keyspace) = system.services().views_place();
    let session = SessionBuilder::new().known_node(node).build().await.expect("Cassandra is there");
    (session, keyspace.to_owned())
}
