//! Coming in: CPU per accepted connection, and how long it takes until all are back after a cut.

use std::time::Duration;

use super::conditions::Conditions;
use super::fleet::Fleet;
use super::host::Host;
use super::process::Reading;
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, descriptors};

/// Channels that the clients share.
const CHANNELS: usize = 100;
/// How long the event that proves a storm over may take.
const DRAIN: Duration = Duration::from_secs(5);

/// What holds if nothing goes wrong.
const CLAIM: &str =
    "no connection failed; after each storm every client got its event exactly once";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Clients, each with a token and one subscription.
    pub clients: usize,
    /// How often all of them are cut off and come back at once.
    pub rounds: usize,
}

/// Measures it.
///
/// # Errors
/// When there is no server, or it takes nobody in.
pub fn run(setup: &Setup, plan: &Connect, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("connect", CLAIM);
    let mut conditions = Conditions::default();
    // During a storm the server may not have noticed yet that the old sockets are gone; if there is no
    // room for both, it has to.
    descriptors::make_room(plan.clients.saturating_mul(2));
    let clients = conditions.sockets(plan.clients);
    let title = format!(
        "connect: {clients} clients with a token, a greeting and one subscription; {} storms",
        plan.rounds
    );
    let mut section = Section::new(title, "raw writes");
    for of in [Of::Baseline, Of::Fanfare] {
        let host = match of {
            Of::Baseline => Host::raw(setup)?,
            Of::Fanfare => Host::under_test(setup, 0)?,
        };
        let keys = (0..CHANNELS.min(clients)).map(|n| host.door.channel(&host.fleeting, n));
        let keys: Vec<String> = keys.collect();
        let subscribe = |channel: usize| vec![super::subscribe(&keys[channel], None)];
        let mut fleet = Fleet::new(clients, keys.clone(), setup.event_bytes)?;
        fleet.add_publishers(&host.door, 1)?;
        for round in 0..=plan.rounds {
            progress.begin(format!("round {round}/{}:", plan.rounds));
            let before = Reading::now(host.pid)?;
            fleet.leave();
            let seconds = fleet.open(&host.door, &subscribe, &mut |ready| {
                progress.say(format_args!("{ready} of {clients} in"));
            })?;
            let used = Reading::now(host.pid)?.since(&before);
            conditions.note(&used);
            let each = used.server.map(|cpu| cpu * 1e6 / clients as f64);
            if round == 0 {
                let label = "CPU per accepted connection, µs";
                section.note(of, "cpu_us_per_connection", label, each);
                let per_second = clients as f64 / seconds;
                let label = "connections per second";
                section.note(of, "connections_per_second", label, Some(per_second));
            } else {
                let label = "storm: until all are back, s";
                section.note(of, "storm_seconds", label, Some(seconds));
                let label = "storm: CPU per client, leaving included, µs";
                section.note(of, "storm_cpu_us_per_client", label, each);
            }
            fleet.begin();
            // Nobody was forgotten if everybody gets this.
            for channel in 0..keys.len() {
                let now = super::stopwatch::nanos();
                fleet.publish(&host.door, channel, now);
            }
            fleet.drain(DRAIN, &host.door)?;
            report.add_faults(fleet.faults());
        }
        report.add_failed(fleet.failed, fleet.first_failure.as_deref());
    }
    report.add(section);
    report.add_warnings(conditions.warnings());
    Ok(report)
}
