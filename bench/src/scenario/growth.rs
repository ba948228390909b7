//! A send must cost the same however many users and conversations there are. Every size is a system of its own on
//! the same Redis, so that they take turns in every round. It is of a service that has run for a while: each
//! conversation was sent to once, as a name that is met for the first time has to be asked for.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;

use super::PEAK_CONNECTIONS;
use crate::connection::Connection;
use crate::findings::Findings;
use crate::load::Pace;
use crate::sends::{self, Population};
use crate::stage::{Contender, SYSTEM, Stage};

/// Sends go to all users: with them grow the conversations.
const BY_USERS: [u64; 3] = [100, 10_000, 1_000_000];
/// Fewer conversations among the most users.
const FEW_CONVERSATIONS: u64 = 100;
/// In a quick run, a million is so many.
const QUICK_MOST: u64 = 20_000;

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let most = if stage.settings.quick { QUICK_MOST } else { u64::MAX };
    let by_users = BY_USERS.map(|count| count.min(most)).map(|count| Population {
        users: count,
        conversations: count,
        ..Population::USUAL
    });
    let by_conversations = [Population { conversations: FEW_CONVERSATIONS, ..by_users[2] }, by_users[2]];

    let mut systems = Vec::new();
    for population in by_users.into_iter().chain([by_conversations[0]]) {
        let Population { users, conversations, .. } = population;
        stage.progress.say(&format!("preparing {users} users and {conversations} conversations"));
        let system = stage.start_system(population).await?;
        send_to_all(&system, population).await?;
        systems.push((population, system));
    }
    stage.progress.expect(stage.settings.rounds * systems.len());
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        for (population, system) in &systems {
            let label = label(population);
            stage.measure(system, (PEAK_CONNECTIONS, Pace::Closed), (round, &label), &mut findings).await?;
        }
        // Redis fills up meanwhile, and what that costs must not always meet the same size.
        systems.reverse();
    }
    let (users, conversations) =
        (least_of_most(&findings, &by_users), least_of_most(&findings, &by_conversations));
    findings.figure("least_of_most_users", users);
    findings.figure("least_of_most_conversations", conversations);
    Ok(findings)
}

/// One message in each conversation.
async fn send_to_all(system: &Contender, population: Population) -> Result<()> {
    let sends = (0..).zip(&system.tokens).map(async |(sender, token)| {
        let mut connection = Connection::open(system.address).await?;
        for nth in 0..population.peers_per_sender() {
            let request = sends::send(token, "", population.peer(sender, nth));
            let answer = connection.exchange(request.as_bytes()).await?;
            ensure!(answer == 201, "a send was answered {answer}");
        }
        Ok(())
    });
    try_join_all(sends).await?;
    Ok(())
}

fn label(population: &Population) -> String {
    format!("{} users, {} conversations", population.users, population.conversations)
}

/// The lowest rate as a share of the highest.
fn least_of_most(findings: &Findings, populations: &[Population]) -> f64 {
    let rate = |one: &Population| findings.typical(&label(one), SYSTEM).map(|found| found.per_second);
    let rates = || populations.iter().filter_map(rate);
    rates().fold(f64::INFINITY, f64::min) / rates().fold(0.0, f64::max)
}
