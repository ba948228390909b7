//! What a scenario found: rounds as they were measured, their medians, and the few figures that goals name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::load::Measured;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) round: usize,
    /// Such as `64 connections`.
    pub(crate) load: String,
    /// Who was measured: the system, or a baseline.
    pub(crate) contender: String,
    #[serde(flatten)]
    pub(crate) found: Found,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Found {
    pub(crate) seconds: f64,
    /// Accepted requests.
    pub(crate) per_second: f64,
    /// Of accepted requests; open loop: from when they were due.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// `None` where the tool does not tell.
    pub(crate) p999_ms: Option<f64>,
    pub(crate) max_ms: f64,
    pub(crate) refused_per_second: f64,
    pub(crate) refusal_p99_ms: f64,
    /// Due, but not sent: all connections of the client were taken.
    pub(crate) skipped_per_second: f64,
    /// Neither accepted nor refused.
    pub(crate) failed: u64,
    /// By status; 0 stands for no answer.
    pub(crate) failed_by_status: BTreeMap<u16, u64>,
    /// Answers that said that they do not show all that they should.
    pub(crate) behind: u64,
    /// µs per answered request, by part.
    pub(crate) cpu_us: BTreeMap<&'static str, f64>,
}

impl Found {
    pub(crate) fn of(measured: &Measured) -> Self {
        let Measured { tally, seconds, cpu } = measured;
        let per_second = |count: u64| count as f64 / seconds;
        let answered = tally.answered().max(1) as f64;
        let mut cpu_us = BTreeMap::new();
        // Processes of one name are one part.
        for (part, seconds) in cpu {
            *cpu_us.entry(*part).or_default() += seconds * 1e6 / answered;
        }
        Self {
            seconds: *seconds,
            per_second: per_second(tally.accepted()),
            p50_ms: tally.accepted_ms(0.5),
            p99_ms: tally.accepted_ms(0.99),
            p999_ms: Some(tally.accepted_ms(0.999)),
            max_ms: tally.accepted_ms(1.0),
            refused_per_second: per_second(tally.refused()),
            refusal_p99_ms: tally.refused_ms(0.99),
            skipped_per_second: per_second(tally.skipped),
            failed: tally.failed(),
            failed_by_status: tally.failed_by_status().clone(),
            behind: tally.behind,
            cpu_us,
        }
    }

    /// One line for the progress.
    pub(crate) fn line(&self) -> String {
        let mut line =
            format!("{:.0}/s, p50 {:.2} ms, p99 {:.2} ms", self.per_second, self.p50_ms, self.p99_ms);
        if self.refused_per_second > 0.0 {
            line += &format!(", {:.0} refused/s", self.refused_per_second);
        }
        if self.behind > 0 {
            line += &format!(", {} BEHIND", self.behind);
        }
        if self.failed > 0 {
            line += &format!(", FAILED {:?}", self.failed_by_status);
        }
        line
    }
}

/// The medians of the rounds of one contender under one load, in the order in which they were first measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) load: String,
    pub(crate) contender: String,
    #[serde(flatten)]
    pub(crate) found: Found,
}

#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rounds: Vec<Round>,
    figures: Vec<(String, f64)>,
    nothings: Vec<(String, &'static str)>,
}

impl Findings {
    pub(crate) fn record(&mut self, round: usize, load: &str, contender: &str, found: Found) {
        self.rounds.push(Round { round, load: load.to_owned(), contender: contender.to_owned(), found });
    }

    /// A number that says something by itself. Unknown ones (no measurement to divide by) are left out: a goal
    /// on them is not met then.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        if value.is_finite() {
            self.figures.push((name.into(), value));
        }
    }

    /// A figure of what did not happen, and why there is none: neither reached nor missed.
    pub(crate) fn nothing(&mut self, name: impl Into<String>, why: &'static str) {
        self.nothings.push((name.into(), why));
    }

    pub(crate) fn why_nothing(&self, figure: &str) -> Option<&'static str> {
        self.nothings.iter().find(|(name, _)| name == figure).map(|(_, why)| *why)
    }

    pub(crate) fn figures(&self) -> &[(String, f64)] {
        &self.figures
    }

    pub(crate) fn value_of(&self, figure: &str) -> Option<f64> {
        self.figures.iter().find(|(name, _)| name == figure).map(|(_, value)| *value)
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut groups: Vec<((&str, &str), Vec<&Found>)> = Vec::new();
        for Round { load, contender, found, .. } in &self.rounds {
            let key = (load.as_str(), contender.as_str());
            match groups.iter_mut().find(|(group, _)| *group == key) {
                Some((_, founds)) => founds.push(found),
                None => groups.push((key, vec![found])),
            }
        }
        let row = |((load, contender), founds): ((&str, &str), Vec<&Found>)| Row {
            load: load.to_owned(),
            contender: contender.to_owned(),
            found: typical(&founds),
        };
        groups.into_iter().map(row).collect()
    }

    /// The medians of one contender under one load.
    pub(crate) fn typical(&self, load: &str, contender: &str) -> Option<Found> {
        self.rows()
            .into_iter()
            .find(|row| row.load == load && row.contender == contender)
            .map(|row| row.found)
    }

    /// What one is of another, each a contender under a load: the median over the rounds that both are in. A machine that
    /// others slow down for a while slows down both, so this stays where the medians of each for itself do not.
    pub(crate) fn ratio(&self, field: fn(&Found) -> f64, one: (&str, &str), other: (&str, &str)) -> f64 {
        let of = |(load, contender): (&str, &str), round| {
            let is_it = |found: &&Round| {
                (found.round, found.load.as_str(), found.contender.as_str()) == (round, load, contender)
            };
            self.rounds.iter().find(is_it).map(|round| field(&round.found))
        };
        let rounds: BTreeSet<_> = self.rounds.iter().map(|round| round.round).collect();
        median(rounds.into_iter().filter_map(|round| Some(of(one, round)? / of(other, round)?)))
    }

    /// Over all rounds of the system itself: a median would hide what failed once.
    pub(crate) fn failed(&self, contender: &str) -> u64 {
        self.rounds.iter().filter(|round| round.contender == contender).map(|round| round.found.failed).sum()
    }
}

/// Field by field, so that one disturbed percentile does not choose the round. Failures are summed.
fn typical(founds: &[&Found]) -> Found {
    let of = |field: fn(&Found) -> f64| median(founds.iter().map(|found| field(found)));
    let mut failed_by_status = BTreeMap::new();
    for (status, count) in founds.iter().flat_map(|found| &found.failed_by_status) {
        *failed_by_status.entry(*status).or_default() += count;
    }
    let parts = founds.iter().flat_map(|found| found.cpu_us.keys().copied());
    let cpu = |part| median(founds.iter().filter_map(|found| found.cpu_us.get(part).copied()));
    let p999_ms = median(founds.iter().filter_map(|found| found.p999_ms));
    Found {
        seconds: of(|found| found.seconds),
        per_second: of(|found| found.per_second),
        p50_ms: of(|found| found.p50_ms),
        p99_ms: of(|found| found.p99_ms),
        p999_ms: p999_ms.is_finite().then_some(p999_ms),
        max_ms: of(|found| found.max_ms),
        refused_per_second: of(|found| found.refused_per_second),
        refusal_p99_ms: of(|found| found.refusal_p99_ms),
        skipped_per_second: of(|found| found.skipped_per_second),
        failed: founds.iter().map(|found| found.failed).sum(),
        failed_by_status,
        behind: founds.iter().map(|found| found.behind).sum(),
        cpu_us: parts.map(|part| (part, cpu(part))).collect(),
    }
}

/// NaN of nothing.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!(median([].into_iter()).is_nan());
        for (values, expected) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert_eq!(median(values.into_iter()), expected);
        }
    }

    #[test]
    fn rows_are_medians_field_by_field() {
        let mut findings = Findings::default();
        for (round, per_second, p99_ms) in [(1, 10.0, 3.0), (2, 30.0, 1.0), (3, 20.0, 2.0)] {
            let cpu_us = BTreeMap::from([("api", per_second)]);
            let found = Found { per_second, p99_ms, failed: 1, cpu_us, ..Found::default() };
            findings.record(round, "64 connections", "system", found);
            findings.record(round, "64 connections", "bare", Found::default());
        }
        let rows = findings.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].contender.as_str(), rows[1].contender.as_str()), ("system", "bare"));
        let found = &rows[0].found;
        assert_eq!((found.per_second, found.p99_ms, found.failed), (20.0, 2.0, 3));
        assert_eq!(found.cpu_us["api"], 20.0);
        assert_eq!(found.p999_ms, None);
        assert_eq!(findings.failed("system"), 3);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_ratios() {
        let mut findings = Findings::default();
        for (round, system, bare) in [(1, 8.0, 10.0), (2, 2.0, 4.0), (3, 27.0, 30.0)] {
            for (who, per_second) in [("system", system), ("bare", bare)] {
                findings.record(round, "64", who, Found { per_second, ..Found::default() });
            }
        }
        findings.record(4, "64", "system", Found { per_second: 1.0, ..Found::default() });
        let share = |who| findings.ratio(|found| found.per_second, ("64", "system"), ("64", who));
        assert_eq!(share("bare"), 0.8);
        assert!(share("nobody").is_nan());
    }

    #[test]
    fn a_figure_without_a_value_is_no_figure() {
        let mut findings = Findings::default();
        findings.figure("share", f64::NAN);
        findings.figure("rate", 2.0);
        assert_eq!((findings.value_of("share"), findings.value_of("rate")), (None, Some(2.0)));
    }
}
