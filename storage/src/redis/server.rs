//! One connection to Redis: [`Server`] makes it, to a log that fits this program and a server that keeps what is
//! acknowledged; its owner drives it, so that it is closed the moment the owner drops it, with whatever still
//! waited in it.
//!
//! Nothing is sent twice here. An error says whether the call may have been done.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, ServerError};
use redis::{FromRedisValue, Pipeline, ProtocolVersion, RedisError, RedisResult, Value};
use shared::Clock;
use shared::limits::LOG_CONNECT_TIMEOUT;
use shared::ports::StoreError;
use shared::process::config::DurabilityOptions;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::durability::Profile;
use super::empty::{CLOSED, RESTORING};
use super::keys::{Keys, LOG_EPOCH, LOG_PARTITIONS, LOG_VERSION};
use super::right::RightLog;
use super::{Options, STORE};

/// The layout of keys and entries that this program reads and writes.
pub(super) const VERSION: u32 = 2;

/// Error codes that Redis gives instead of doing anything.
const REFUSALS: [&str; 15] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "CROSSSLOT",
];

/// For a call that changes nothing, or may be made again.
pub(super) fn unavailable(error: RedisError) -> StoreError {
    StoreError::unavailable(STORE, error)
}

/// For `commands` that change something: that nothing was done is certain only if Redis refused each.
pub(super) fn unavailable_or_unknown(error: RedisError, commands: usize) -> StoreError {
    let errors = error.clone().into_server_errors();
    let refused = errors.as_deref().unwrap_or_default().iter().filter(|(_, error)| is_refusal(error)).count();
    if refused == commands {
        StoreError::unavailable(STORE, error)
    } else {
        StoreError::unknown(STORE, error)
    }
}

/// Whether Redis answered so instead of doing anything.
pub(super) fn is_refusal(error: &ServerError) -> bool {
    REFUSALS.contains(&error.code())
}

/// The code of the first command that failed.
pub(super) fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    errors.first().map(|(_, error)| error.code().to_owned())
}

/// Where Redis is, and which log is expected there.
pub(super) struct Server {
    host: String,
    port: u16,
    settings: RedisConnectionInfo,
    /// `None`: this process acknowledges no event.
    durability: Option<DurabilityOptions>,
    pub(super) keys: Keys,
    pub(super) clock: Clock,
    pub(super) right: RightLog,
}

/// Runs a connection; ends when the connection does.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection with one owner, driven while it asks.
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    pub(super) driver: Driver,
    pub(super) profile: Profile,
}

impl Server {
    pub(super) fn new(options: &Options, keys: Keys, clock: Clock) -> Result<Self, StoreError> {
        let (host, port, settings) = parse(&options.url)?;
        let settings = settings.set_protocol(ProtocolVersion::RESP2);
        let settings = settings.set_skip_set_lib_name();
        let (durability, right) = (options.durability, RightLog::new(options.views.clone()));
        Ok(Self { host, port, settings, durability, keys, clock, right })
    }

    /// So many must have an event before it is acknowledged.
    pub(super) fn replicas(&self) -> u8 {
        self.durability.map_or(0, |options| options.log_replicas)
    }

    /// An error unless a server like this will do for this process.
    pub(super) fn accepts(&self, profile: &Profile) -> Result<(), StoreError> {
        profile.check(self.durability)
    }

    /// Connects and checks that server and log fit, as soon as it is known which log does. A call on the connection waits
    /// for its answer no longer than `answer_timeout`.
    pub(super) async fn connect(&self, answer_timeout: Duration) -> Result<Connection, StoreError> {
        self.right.known().await;
        let connect = async {
            let mut connection = self.reach(answer_timeout).await?;
            self.check_log(&mut connection).await?;
            Ok(connection)
        };
        in_time(connect).await
    }

    /// As [`Server::connect`], whatever log is there.
    pub(super) async fn connect_to_any(&self, answer_timeout: Duration) -> Result<Connection, StoreError> {
        in_time(self.reach(answer_timeout)).await
    }

    async fn reach(&self, answer_timeout: Duration) -> Result<Connection, StoreError> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(answer_timeout));
        let socket = self.socket().await.map_err(RedisError::from).map_err(unavailable)?;
        let made = MultiplexedConnection::new_with_config(&self.settings, socket, config).await;
        let (commands, driver) = made.map_err(unavailable)?;
        let driver = Box::pin(driver);
        let mut connection = Connection { commands, driver, profile: Profile::default() };
        let answers = connection.ask_each(&Profile::question()).await.map_err(unavailable)?;
        connection.profile = Profile::of(answers);
        // First: nothing is written to a server that will not do.
        self.accepts(&connection.profile)?;
        Ok(connection)
    }

    pub(super) async fn subscriber(&self) -> Result<PubSub, StoreError> {
        let connect = async {
            let socket = self.socket().await.map_err(RedisError::from)?;
            PubSub::new(&self.settings, socket).await
        };
        match timeout(LOG_CONNECT_TIMEOUT, connect).await {
            Ok(made) => made.map_err(unavailable),
            Err(late) => Err(StoreError::unavailable(STORE, late)),
        }
    }

    async fn socket(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// A new log is written down; one that is there must be what this program was set up for. Reads first, so
    /// that a full Redis is still good for reading.
    async fn check_log(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let key = self.keys.log();
        let fields = [LOG_VERSION, LOG_PARTITIONS, LOG_EPOCH];
        let mut read = redis::pipe();
        read.cmd("HMGET").arg(&key).arg(&fields);
        let ((mut version, mut partitions, mut epoch),): (Identity,) =
            connection.ask(&read).await.map_err(unavailable)?;

        let is_of_another_layout = version.as_ref().is_some_and(|version| *version != VERSION.to_string());
        if !is_of_another_layout && (version.is_none() || partitions.is_none() || epoch.is_none()) {
            self.right.check_new()?;
            let new_epoch = self.clock.new_id().to_string();
            let values = [VERSION.to_string(), self.keys.partitions.to_string(), new_epoch];
            let mut write = redis::pipe();
            for (field, value) in fields.iter().zip(values) {
                write.cmd("HSETNX").arg(&key).arg(field).arg(value).ignore();
            }
            write.cmd("HMGET").arg(&key).arg(&fields);
            ((version, partitions, epoch),) = connection.ask(&write).await.map_err(unavailable)?;
        }
        self.fits(version, partitions, epoch)
    }

    fn fits(
        &self,
        version: Option<String>,
        partitions: Option<String>,
        epoch: Option<String>,
    ) -> Result<(), StoreError> {
        let [version, partitions, epoch] = [version, partitions, epoch].map(Option::unwrap_or_default);
        if self.right.is_beside_views() && [CLOSED, RESTORING].contains(&version.as_str()) {
            return Err(RightLog::closed(&version));
        }
        if version != VERSION.to_string() {
            return Err(unfit(format!("the log has layout {version:?}, this program knows {VERSION}")));
        }
        let expected = self.keys.partitions;
        if partitions != expected.to_string() {
            return Err(unfit(format!(
                "the log has {partitions} partitions, this program was told {expected}; that never changes"
            )));
        }
        let Ok(epoch) = epoch.parse() else {
            return Err(unfit(format!("the log says {epoch:?} where its epoch belongs")));
        };
        self.right.check(&epoch)
    }

    /// Asks which log it is; see [`RightLog::check_again`].
    pub(super) fn ask_epoch(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("HGET").arg(self.keys.log()).arg(LOG_EPOCH);
    }

    /// Of a server that is connected: what it is by now and which log it has.
    pub(super) fn question(&self) -> Pipeline {
        let mut question = Profile::question();
        self.ask_epoch(&mut question);
        question
    }

    /// What the answers to [`Server::question`] say of the server, and whether it still fits.
    pub(super) fn is_as_before(&self, mut answers: Vec<Value>) -> (Profile, Result<(), StoreError>) {
        let epoch = answers.pop().map_or(Ok(None), redis::from_redis_value::<Option<String>>);
        let profile = Profile::of(answers);
        let fits = self
            .accepts(&profile)
            .and_then(|()| epoch.map_err(|error| unavailable(error.into())))
            .and_then(|epoch| self.right.check_again(epoch).map(drop));
        (profile, fits)
    }
}

/// Host, port and what else a URL says.
pub(super) fn parse(url: &str) -> Result<(String, u16, RedisConnectionInfo), StoreError> {
    // The parser's errors do not repeat the URL, which may hold a password.
    let info = url.into_connection_info().map_err(|error| unfit(format!("its URL: {error}")))?;
    let ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
        return Err(unfit("only redis:// URLs are supported".to_owned()));
    };
    Ok((host, port, info.redis_settings().clone()))
}

async fn in_time<T>(connect: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(LOG_CONNECT_TIMEOUT, connect)
        .await
        .unwrap_or_else(|late| Err(StoreError::unavailable(STORE, late)))
}

/// Version, partitions, epoch.
type Identity = (Option<String>, Option<String>, Option<String>);

fn unfit(what: String) -> StoreError {
    StoreError::Unfit { store: STORE, what }
}

pub(super) fn unexpected() -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "an answer of another shape than asked for").into()
}

pub(super) fn lost() -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was closed").into()
}

impl Connection {
    /// The answers of all commands; an error of one is the error of all.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        tokio::select! {
            biased;
            answer = pipeline.query_async(&mut self.commands) => answer,
            () = &mut self.driver => Err(lost()),
        }
    }

    /// The answers one by one.
    pub(super) async fn ask_each(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        tokio::select! {
            biased;
            answers = self.commands.send_packed_commands(pipeline, 0, pipeline.len()) => answers,
            () = &mut self.driver => Err(lost()),
        }
    }
}
