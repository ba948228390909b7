//! Password hashing on a bounded pool: a hash takes 25 ms of a core, so a flood of logins must not starve the
//! sends. Argon2id, 19 MiB, two passes (OWASP Password Storage Cheat Sheet).

use std::sync::Arc;
use std::time::Instant;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shared::limits::PASSWORD_HASHES_QUEUED_MAX;
use shared::process::problem::{Code, Outcome, Problem};
use shared::process::telemetry::Metrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory in KiB, passes, lanes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    /// Verified against when there is no such user, so that the answer takes as long.
    nobody: Arc<str>,
    pool: Pool,
}

/// At most so many run at once and so many wait.
#[derive(Debug, Clone)]
struct Pool {
    in_flight: usize,
    /// Running and waiting together.
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
    durations: Histogram,
    refused: Counter,
}

impl Passwords {
    /// On half of the cores: logins leave room for sends.
    #[must_use]
    pub fn for_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)))
    }

    /// At most `in_flight` hashes run at once, and [`PASSWORD_HASHES_QUEUED_MAX`] wait.
    ///
    /// # Panics
    /// When the parameters above do not fit together, or the system gives no random bytes.
    #[must_use]
    pub fn new(in_flight: usize) -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the constants are valid");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody =
            argon2.hash_password(b"nobody has this password").expect("the system gives random bytes");
        Self { argon2, nobody: nobody.to_string().into(), pool: Pool::new(in_flight) }
    }

    /// Shows how busy the pool is.
    pub fn register_metrics(&self, metrics: &Metrics) {
        let pool = self.pool.clone();
        metrics.register(|registry| {
            let help = "From the start of a hash to its end, in seconds";
            registry.register("password_hash_duration_seconds", help, pool.durations.clone());
            registry.register("password_hashes_refused", "Hashes refused as busy", pool.refused.clone());
            registry.register_collector(Box::new(pool));
        });
    }

    /// A place for one hash, running or waiting.
    ///
    /// # Errors
    /// 503 `busy` at once when the queue is full.
    pub fn place(&self) -> Result<Place, Problem> {
        self.pool.place()
    }

    /// A PHC string with a salt of its own.
    ///
    /// # Errors
    /// 503 `busy` at once when the queue is full.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let argon2 = self.argon2.clone();
        self.pool
            .run(self.place()?, move || {
                argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string()).ok()
            })
            .await?
            .ok_or_else(failed)
    }

    /// Whether `password` is the one of `hash`; takes as long when there is no hash, or none that can be, and is not. A hash that was
    /// made with less than today's memory or passes is made anew while the password is at hand.
    ///
    /// # Errors
    /// 500 when hashing fails.
    pub async fn verify(
        &self,
        place: Place,
        password: String,
        hash: Option<String>,
    ) -> Result<Verified, Problem> {
        let argon2 = self.argon2.clone();
        let nobody = self.nobody.clone();
        self.pool
            .run(place, move || {
                let password = password.as_bytes();
                let known = hash.and_then(|hash| PasswordHash::new(&hash).ok());
                let is_known = known.is_some();
                let stored = known.or_else(|| PasswordHash::new(&nobody).ok());
                let matches = |stored: &PasswordHash| argon2.verify_password(password, stored).is_ok();
                match stored.filter(matches).filter(|_| is_known) {
                    None => Verified::No,
                    Some(stored) if is_weak(&stored) => {
                        let better = argon2.hash_password(password);
                        Verified::Yes { better_hash: better.map(|hash| hash.to_string()).ok() }
                    }
                    Some(_) => Verified::Yes { better_hash: None },
                }
            })
            .await
    }
}

impl Pool {
    fn new(in_flight: usize) -> Self {
        Self {
            in_flight,
            places: Arc::new(Semaphore::new(in_flight + PASSWORD_HASHES_QUEUED_MAX)),
            running: Arc::new(Semaphore::new(in_flight)),
            // 4 ms to 4 s.
            durations: Histogram::new(exponential_buckets(0.004, 2.0, 11)),
            refused: Counter::default(),
        }
    }

    fn place(&self) -> Result<Place, Problem> {
        self.places.clone().try_acquire_owned().map(Place).map_err(|_| {
            self.refused.inc();
            Problem::new(Code::Busy, "too many logins are waiting").with_outcome(Outcome::NotApplied)
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.running.clone().acquire_owned().await.map_err(|_| failed())?;
        // The job runs to its end even if the client leaves, so it keeps its places until then.
        let durations = self.durations.clone();
        let job = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let result = job();
            durations.observe(begun.elapsed().as_secs_f64());
            drop((turn, place));
            result
        });
        job.await.map_err(|_| failed())
    }
}

/// For one hash, which nobody else can take: with it a hash is not refused any more.
#[must_use = "the place is free again when this is dropped"]
pub struct Place(#[expect(dead_code, reason = "it is held, not used")] OwnedSemaphorePermit);

/// What [`Passwords::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    No,
    Yes {
        /// To be stored in place of one that is weaker than what is made today.
        better_hash: Option<String>,
    },
}

fn is_weak(hash: &PasswordHash) -> bool {
    let today = (hash.algorithm.as_str(), hash.version) == ("argon2id", Some(Version::V0x13.into()));
    let enough =
        Params::try_from(hash).is_ok_and(|params| params.m_cost() >= MEMORY_KIB && params.t_cost() >= PASSES);
    !(today && enough)
}

/// Taken from the semaphores when it is asked for, so it holds whatever became of a request.
impl Collector for Pool {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let running = self.in_flight - self.running.available_permits();
        let taken = self.in_flight + PASSWORD_HASHES_QUEUED_MAX - self.places.available_permits();
        let waiting = taken.saturating_sub(running);
        for (name, help, count) in [
            ("password_hashes_running", "Hashes that run", running),
            ("password_hashes_waiting", "Hashes that wait for a turn", waiting),
        ] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

fn failed() -> Problem {
    Problem::new(Code::Internal, "hashing failed").with_outcome(Outcome::NotApplied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_somebody_matches() {
        let passwords = Passwords::new(1);
        let hash = passwords.hash("password123".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let verify = |password: &str, hash: Option<String>| {
            passwords.verify(passwords.place().unwrap(), password.to_owned(), hash)
        };
        let yes = Verified::Yes { better_hash: None };
        assert_eq!(verify("password123", Some(hash.clone())).await.unwrap(), yes);
        assert_eq!(verify("password124", Some(hash)).await.unwrap(), Verified::No);
        assert_eq!(verify("nobody has this password", None).await.unwrap(), Verified::No);
        assert_eq!(verify("password123", Some("garbage".to_owned())).await.unwrap(), Verified::No);
    }

    #[tokio::test]
    async fn a_weak_hash_is_made_anew_once() {
        let passwords = Passwords::new(1);
        let verify = |password: &str, hash: &str| {
            passwords.verify(passwords.place().unwrap(), password.to_owned(), Some(hash.to_owned()))
        };
        for (algorithm, memory, passes) in [
            (Algorithm::Argon2id, MEMORY_KIB / 2, PASSES),
            (Algorithm::Argon2id, MEMORY_KIB, PASSES - 1),
            (Algorithm::Argon2i, MEMORY_KIB, PASSES),
        ] {
            let params = Params::new(memory, passes, LANES, None).unwrap();
            let weak = Argon2::new(algorithm, Version::V0x13, params);
            let weak = weak.hash_password(b"password123").unwrap().to_string();
            assert_eq!(verify("password124", &weak).await.unwrap(), Verified::No);
            let Verified::Yes { better_hash: Some(better) } = verify("password123", &weak).await.unwrap()
            else {
                panic!("{weak}")
            };
            assert!(better.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{better}");
            let again = verify("password123", &better).await.unwrap();
            assert_eq!(again, Verified::Yes { better_hash: None });
        }
        let params = Params::new(MEMORY_KIB * 2, PASSES + 1, LANES, None).unwrap();
        let strong = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let strong = strong.hash_password(b"password123").unwrap().to_string();
        assert_eq!(verify("password123", &strong).await.unwrap(), Verified::Yes { better_hash: None });
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let passwords = Passwords::new(1);
        let all = u32::try_from(PASSWORD_HASHES_QUEUED_MAX + 1).unwrap();
        let metrics = Metrics::default();
        passwords.register_metrics(&metrics);
        let _taken = passwords.pool.places.acquire_many(all).await.unwrap();
        assert_eq!(passwords.hash("password123".to_owned()).await.unwrap_err().code, Code::Busy);
        let text = metrics.text();
        for line in ["password_hashes_refused_total 1\n", "password_hashes_waiting 33\n"] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
