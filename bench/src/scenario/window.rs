//! Memory of Redis while events are appended at a steady rate and a projector applies, archives and trims them: however
//! many there were, Redis holds what the hot window says.

use std::time::Duration;

use anyhow::Result;
use redis::InfoDict;
use tokio::time::Instant;

use crate::backlog::{Backlog, Spread};
use crate::findings::{Findings, Found};
use crate::stage::Stage;
use crate::usage;
use crate::views::Views;

const CONVERSATIONS: u64 = 10_000;
/// More than the seconds that are never trimmed, and a small part of all that is appended.
const WINDOW_BYTES: u64 = 64 << 20;
/// Two cores do all of it: append, apply, archive, read back.
const EVENTS_PER_SECOND: f64 = 4_000.0;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let url = stage.redis()?.url();
    let views = Views::start(stage).await?;
    stage.progress.expect(1);
    let name = stage.new_name("window");
    let key_prefix = format!("{name}:");
    views.make(&name)?;
    let window = ["--hot-window-bytes".to_owned(), WINDOW_BYTES.to_string()];
    let mut projector = views.start_projector("projector", (&key_prefix, &name), views.node(), &window)?;
    usage::settle(&[views.part()]).await?;

    let mut connection = redis::Client::open(url.as_str())?.get_connection()?;
    let before = used_bytes(&mut connection)?;
    let events = stage.settings.events;
    let backlog = Backlog { events, conversations: CONVERSATIONS, spread: Spread::Even };
    let (begun, mut growth_peak) = (Instant::now(), 0);
    let mut samples = tokio::time::interval(SAMPLE_EVERY);
    let mut put = std::pin::pin!(backlog.put(&url, &key_prefix, Some(EVENTS_PER_SECOND)));
    loop {
        tokio::select! {
            put = &mut put => break put?,
            _ = samples.tick() => {
                let growth = used_bytes(&mut connection)?.saturating_sub(before);
                growth_peak = growth_peak.max(growth);
                projector.wait_until(Duration::ZERO, || true)?;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let per_second = events as f64 / seconds;
    let mib = growth_peak as f64 / f64::from(1 << 20);
    stage.progress.step(&format!("{per_second:.0} events/s, {mib:.1} MiB more at the peak"));
    let mut findings = Findings::default();
    findings.record(1, "steady", "1 projector", Found { seconds, per_second, ..Found::default() });
    findings.figure("redis_growth_of_window", growth_peak as f64 / WINDOW_BYTES as f64);
    findings.figure("redis_growth_mib", mib);
    Ok(findings)
}

/// All that Redis has: streams, groups, heads, and what answers and commands take for a moment.
fn used_bytes(connection: &mut redis::Connection) -> Result<u64> {
    let info: InfoDict = redis::cmd("INFO").arg("memory").query(connection)?;
    Ok(info.get("used_memory").unwrap_or_default())
}
