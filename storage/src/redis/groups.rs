//! Forgets what the log keeps for a generation that is dropped: its consumer group and what goes with it.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use shared::generation;
use shared::ports::StoreError;

use super::feed::group;
use super::link::Link;
use super::server::{Server, unavailable};

/// On the shared connection.
#[derive(Clone)]
pub struct Groups {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
}

#[async_trait]
impl generation::Groups for Groups {
    async fn remove(&self, generation: u32) -> Result<(), StoreError> {
        let (keys, group) = (&self.server.keys, group(generation));
        let mut pipeline = Pipeline::new();
        for partition in 0..keys.partitions {
            pipeline.cmd("XGROUP").arg("DESTROY").arg(keys.events(partition)).arg(&group);
            pipeline.cmd("DEL").arg(keys.applied(partition, &group)).arg(keys.trail(partition, &group));
            pipeline.arg(keys.backlog(partition, &group)).arg(keys.replayed(partition, &group));
        }
        pipeline.cmd("DEL").arg(keys.turn(&group)).arg(keys.turns(&group));
        let connection = self.link.current()?;
        for answer in self.link.write_each(connection, &pipeline).await? {
            match answer {
                Ok(Value::Int(_)) => {}
                // A partition that has no event has no group either.
                Err(error) if error.details().is_some_and(|text| text.contains(NO_KEY)) => {}
                Err(error) => return Err(unavailable(error.into())),
                Ok(_) => return Err(unavailable(super::server::unexpected())),
            }
        }
        Ok(())
    }
}

/// Redis has no code for it.
const NO_KEY: &str = "requires the key to exist";
