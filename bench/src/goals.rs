//! The goals of `goals.toml`, a small part of TOML: sections, and lines of `figure = ">= number"`.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

const GOALS: &str = include_str!("../goals.toml");

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Goal {
    pub(crate) figure: String,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// A figure that was not measured is not reached.
    pub(crate) fn is_met_by(&self, value: Option<f64>) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => value.is_some_and(|value| value >= bound),
            Bound::AtMost(bound) => value.is_some_and(|value| value <= bound),
        }
    }
}

/// `>= 0.8`.
impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Bound::AtLeast(bound) => write!(f, ">= {bound}"),
            Bound::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

/// What a scenario must reach on a target, in the order of the file.
pub(crate) fn of(scenario: &str, target: &str) -> Result<Vec<Goal>> {
    let both = format!("{scenario}.{target}");
    let goals = parse(GOALS).context("goals.toml")?;
    let belongs = |section: &str| section == scenario || section == both;
    Ok(goals.into_iter().filter(|(section, _)| belongs(section)).map(|(_, goal)| goal).collect())
}

/// Sections and goals. Anything else is refused: a goal with a typing error must not be a goal less.
fn parse(text: &str) -> Result<Vec<(String, Goal)>> {
    let mut goals = Vec::new();
    let mut section = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = Some(name.strip_suffix(']').with_context(|| format!("line {}: no ]", at + 1))?);
            continue;
        }
        let section = section.with_context(|| format!("line {}: no section before it", at + 1))?;
        let goal = goal(line).with_context(|| format!("line {}: {line:?}", at + 1))?;
        goals.push((section.to_owned(), goal));
    }
    Ok(goals)
}

fn goal(line: &str) -> Result<Goal> {
    let (figure, bound) = line.split_once(" = ").context("no ` = `")?;
    let bound =
        bound.strip_prefix('"').and_then(|bound| bound.strip_suffix('"')).context("no quoted bound")?;
    let (comparison, number) = bound.split_once(' ').context("no space between comparison and number")?;
    let number: f64 = number.parse()?;
    let bound = match comparison {
        ">=" => Bound::AtLeast(number),
        "<=" => Bound::AtMost(number),
        _ => bail!("{comparison:?} is neither >= nor <="),
    };
    Ok(Goal { figure: figure.to_owned(), bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goals_of_a_target_and_of_all_targets() {
        let figures = |scenario, target| -> Vec<String> {
            of(scenario, target).unwrap().into_iter().map(|goal| goal.figure).collect()
        };
        let real = figures("append", "real");
        assert!(real.contains(&"share_of_script_at_64".to_owned()));
        assert!(real.contains(&"half_of_peak_p99_ms".to_owned()));
        assert!(!real.contains(&"share_of_fjall_at_64".to_owned()));
        assert!(figures("nothing", "real").is_empty());
    }

    #[test]
    fn bounds() {
        let least = goal(r#"share = ">= 0.80""#).unwrap();
        assert_eq!(least.to_string(), ">= 0.8");
        for (value, met) in [(Some(0.8), true), (Some(0.79), false), (None, false), (Some(f64::NAN), false)] {
            assert_eq!(least.is_met_by(value), met, "{value:?}");
        }
        let most = goal(r#"p99 = "<= 15""#).unwrap();
        assert!(most.is_met_by(Some(15.0)) && !most.is_met_by(Some(15.1)) && !most.is_met_by(None));
    }

    #[test]
    fn what_is_no_goal_is_refused() {
        for text in [
            "x = \">= 1\"",
            "[a]\nx = 1",
            "[a]\nx = \"> 1\"",
            "[a]\nx = \">= one\"",
            "[a\nx = \">= 1\"",
            "[a]\nx",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("# nothing\n\n[a]\n").unwrap(), []);
    }
}
