//! What a run says at its end: a table for people, the same with every round as JSON for programs, and whether
//! the goals were reached.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::findings::{Findings, Round, Row};
use crate::goals::Goal;
use crate::machine::{Machine, Versions};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: String,
    target: String,
    machine: Machine,
    versions: Versions,
    settings: Value,
    medians: Vec<Row>,
    figures: Map<String, Value>,
    goals: Vec<Checked>,
    rounds: Vec<Round>,
}

/// A goal beside what was measured.
#[derive(Debug, Serialize)]
struct Checked {
    #[serde(flatten)]
    goal: Goal,
    /// `None`: not measured.
    value: Option<f64>,
    verdict: Verdict,
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Met,
    Short,
    /// There was nothing to measure, and why.
    Nothing(&'static str),
}

impl Report {
    pub(crate) fn new(
        scenario: &str,
        target: &str,
        (machine, versions): (Machine, Versions),
        settings: Value,
        findings: Findings,
        goals: Vec<Goal>,
    ) -> Self {
        let checked = |goal: Goal| {
            let value = findings.value_of(&goal.figure);
            let verdict = match findings.why_nothing(&goal.figure) {
                Some(why) => Verdict::Nothing(why),
                None if goal.is_met_by(value) => Verdict::Met,
                None => Verdict::Short,
            };
            Checked { goal, value, verdict }
        };
        Self {
            scenario: scenario.to_owned(),
            target: target.to_owned(),
            machine,
            versions,
            settings,
            medians: findings.rows(),
            figures: findings
                .figures()
                .iter()
                .map(|(name, value)| (name.clone(), Value::from(*value)))
                .collect(),
            goals: goals.into_iter().map(checked).collect(),
            rounds: findings.rounds,
        }
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            Ok(file.flush()?)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// What falls short, one line each.
    pub(crate) fn shortfalls(&self) -> Vec<String> {
        let short = self.goals.iter().filter(|checked| checked.verdict == Verdict::Short);
        let line = |Checked { goal, value, .. }: &Checked| match value {
            Some(value) => format!("{} is {}, must be {goal}", goal.figure, number(*value)),
            None => format!("{} was not measured, must be {goal}", goal.figure),
        };
        short.map(line).collect()
    }

    /// Markdown, so that it can be shown as it is.
    pub(crate) fn print(&self, to: &mut impl Write) -> io::Result<()> {
        let Machine { cpu, cores, memory_mib, disk, kernel } = &self.machine;
        let Versions { commit, rust, redis } = &self.versions;
        writeln!(to, "\n{} on {}, commit {commit}", self.scenario, self.target)?;
        writeln!(to, "{cores} × {cpu}, {memory_mib} MiB, {disk}, {kernel}")?;
        writeln!(to, "{rust}; {redis}\n")?;
        self.print_medians(to)?;
        writeln!(to, "\n| figure | value | goal | |\n|---|---:|---|---|")?;
        for (name, value) in &self.figures {
            let checked = self.goals.iter().find(|checked| checked.goal.figure == *name);
            let goal = checked.map(|checked| checked.goal.to_string()).unwrap_or_default();
            let verdict = checked.map_or("", |checked| checked.verdict.text());
            writeln!(to, "| {name} | {} | {goal} | {verdict} |", number(value.as_f64().unwrap_or(f64::NAN)))?;
        }
        for Checked { goal, verdict, .. } in &self.goals {
            if matches!(verdict, Verdict::Nothing(_)) {
                writeln!(to, "| {} | – | {goal} | {} |", goal.figure, verdict.text())?;
            }
        }
        Ok(())
    }

    fn print_medians(&self, to: &mut impl Write) -> io::Result<()> {
        let mut parts: Vec<&str> =
            self.medians.iter().flat_map(|row| row.found.cpu_us.keys().copied()).collect();
        parts.sort_unstable();
        parts.dedup();
        let mut head =
            "| load | who | per s | p50 ms | p99 ms | p99.9 ms | refused/s | p99 ms | not sent/s | failed |"
                .to_owned();
        let mut line = "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|".to_owned();
        for part in &parts {
            head += &format!(" {part} µs |");
            line += "---:|";
        }
        writeln!(to, "{head}\n{line}")?;
        for Row { load, contender, found } in &self.medians {
            write!(
                to,
                "| {load} | {contender} | {:.0} | {} | {} |",
                found.per_second,
                latency(found.p50_ms),
                latency(found.p99_ms)
            )?;
            let p999 = latency(found.p999_ms.unwrap_or_default());
            let refused = found.refused_per_second;
            let refusal =
                if refused > 0.0 { format!("{:.2}", found.refusal_p99_ms) } else { "–".to_owned() };
            write!(to, " {p999} | {refused:.0} | {refusal} |")?;
            write!(to, " {:.0} | {} |", found.skipped_per_second, found.failed)?;
            for part in &parts {
                let used = found.cpu_us.get(part).map_or_else(|| "–".to_owned(), |used| format!("{used:.1}"));
                write!(to, " {used} |")?;
            }
            writeln!(to)?;
        }
        Ok(())
    }
}

impl Verdict {
    fn text(&self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Short => "SHORT",
            Self::Nothing(why) => why,
        }
    }
}

/// In ms; 0 where there was no request.
fn latency(ms: f64) -> String {
    if ms > 0.0 { format!("{ms:.2}") } else { "–".to_owned() }
}

/// Three digits of small numbers, whole ones of large.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value == value.trunc() { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::findings::Found;
    use crate::goals;

    fn about() -> (Machine, Versions) {
        let machine =
            Machine { cpu: "C".into(), cores: 2, memory_mib: 1, disk: "D".into(), kernel: "K".into() };
        (machine, Versions { commit: "abc".into(), rust: "R".into(), redis: "S".into() })
    }

    fn report(share: f64) -> Report {
        let mut findings = Findings::default();
        let cpu_us = BTreeMap::from([("api", 12.34)]);
        findings.record(
            1,
            "64 connections",
            "system",
            Found { per_second: 1234.5, cpu_us, ..Found::default() },
        );
        findings.record(1, "64 connections", "bare", Found::default());
        findings.figure("share_of_fjall_at_64", share);
        let goals = goals::of("append", "standalone").unwrap();
        Report::new("append", "standalone", about(), Value::Null, findings, goals)
    }

    #[test]
    fn shortfalls_are_named() {
        let named = |share| report(share).shortfalls().join("\n");
        assert!(named(0.5).contains("share_of_fjall_at_64 is 0.500, must be >= 0.8"), "{}", named(0.5));
        assert!(!named(0.9).contains("share_of_fjall_at_64"));
        assert!(named(0.9).contains("half_of_peak_p99_ms was not measured, must be <= 15"));
    }

    #[test]
    fn the_table_has_a_row_per_contender_and_a_column_per_part() {
        let mut text = Vec::new();
        report(0.5).print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("| api µs |"), "{text}");
        assert!(text.contains("| 64 connections | system | 1234 |") && text.contains("| 12.3 |"), "{text}");
        assert!(text.contains("| 64 connections | bare | 0 |"), "{text}");
        assert!(text.contains("| share_of_fjall_at_64 | 0.500 | >= 0.8 | SHORT |"), "{text}");
    }

    #[test]
    fn the_json_holds_every_round() {
        let json = serde_json::to_value(report(0.5)).unwrap();
        assert_eq!(json["rounds"].as_array().unwrap().len(), 2);
        assert_eq!(json["rounds"][0]["per_second"], 1234.5);
        assert_eq!(json["figures"]["share_of_fjall_at_64"], 0.5);
        assert_eq!(json["goals"][0]["verdict"], "short");
    }

    #[test]
    fn what_did_not_happen_is_neither_met_nor_short() {
        let report = |findings| {
            let goals = goals::of("overload", "real").unwrap();
            Report::new("overload", "real", about(), Value::Null, findings, goals)
        };
        assert!(
            report(Findings::default()).shortfalls().join("\n").contains("refusal_p99_ms was not measured")
        );
        let mut findings = Findings::default();
        findings.nothing("refusal_p99_ms", "nothing was refused");
        let report = report(findings);
        let mut text = Vec::new();
        report.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("| refusal_p99_ms | – | <= 20 | nothing was refused |"), "{text}");
        assert!(!report.shortfalls().join("\n").contains("refusal_p99_ms"));
    }
}
