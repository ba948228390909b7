//! The script of the baseline, called by Redis' own tool: what Redis gives without any HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;
use xtask::servers::Process;

use crate::baseline::{EVENTS_KEY, ONCE_KEY_PREFIX, SCRIPT};
use crate::findings::Found;
use crate::usage::Part;

pub(crate) const NAME: &str = "redis-benchmark";
const POLL: Duration = Duration::from_millis(5);
/// It takes a number of calls, not a time, so it is asked for some calls first.
const TRIAL_CALLS: u64 = 1_000;
/// As long as the body of a send.
const PAYLOAD_CHARS: usize = 140;

/// Calls the script over so many connections for about so long.
pub(crate) async fn run(
    dir: &Path,
    redis: &Part,
    port: u16,
    connections: usize,
    time: Duration,
) -> Result<Found> {
    let mut client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?.get_connection()?;
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut client)?;
    let trial = call(dir, &sha, port, connections, TRIAL_CALLS).await?;
    let calls = (trial.per_second * time.as_secs_f64()) as u64;
    let calls = calls.max(TRIAL_CALLS);
    let (cpu_before, begun) = (redis.cpu_seconds()?, Instant::now());
    let mut found = call(dir, &sha, port, connections, calls).await?;
    let used = redis.cpu_seconds()? - cpu_before;
    found.seconds = begun.elapsed().as_secs_f64();
    found.cpu_us = BTreeMap::from([(redis.name, used * 1e6 / calls as f64)]);
    Ok(found)
}

async fn call(dir: &Path, sha: &str, port: u16, connections: usize, calls: u64) -> Result<Found> {
    let log = dir.join("redis-benchmark.csv");
    let mut command = Process::command("redis-benchmark");
    command.args([
        "--csv",
        "-p",
        &port.to_string(),
        "-c",
        &connections.to_string(),
        "-n",
        &calls.to_string(),
    ]);
    // Makes of each `__rand_int__` a number of its own.
    command.args(["-r", "1000000000", "EVALSHA", sha, "2", EVENTS_KEY]);
    command.arg(format!("{ONCE_KEY_PREFIX}__rand_int__")).arg("x".repeat(PAYLOAD_CHARS));
    drop(fs::remove_file(&log));
    let mut process = Process::spawn(NAME, command, &log)?;
    while process.is_running() {
        tokio::time::sleep(POLL).await;
    }
    let output = fs::read_to_string(&log)?;
    read(&output).with_context(|| format!("{NAME} said:\n{output}"))
}

/// The last line ends with requests per second and avg, min, p50, p95, p99, max in ms, each in quotes; before
/// them stands the command, which may hold anything.
fn read(csv: &str) -> Result<Found> {
    let line = csv.lines().last().context("nothing")?;
    let numbers: Result<Vec<f64>, _> =
        line.rsplit(',').take(7).map(|field| field.trim_matches('"').parse()).collect();
    let numbers = numbers.context("the last line has no numbers")?;
    let [max_ms, p99_ms, _p95, p50_ms, _min, _average, per_second] = numbers[..] else {
        bail!("the last line has too few fields");
    };
    Ok(Found { per_second, p50_ms, p99_ms, max_ms, ..Found::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_last_line_is_understood() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\"\n\
                   \"EVALSHA a,b \"\"x\"\"\",\"25000.00\",\"2.10\",\"0.40\",\"1.90\",\"4.00\",\"5.10\",\"9.90\"\n";
        let found = read(csv).unwrap();
        assert_eq!(found.per_second, 25_000.0);
        assert_eq!((found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms), (1.9, 5.1, None, 9.9));
        for text in ["", "Could not connect to Redis", "a,b,c"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
