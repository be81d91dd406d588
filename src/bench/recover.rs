//! Coming back: subscribers are cut off, miss events, return with the place where they were and have to
//! get exactly what they missed.

use std::time::Duration;

use serde::Deserialize;

use super::conditions::Conditions;
use super::fleet::Fleet;
use super::host::Host;
use super::process::Reading;
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, stopwatch};

/// Events of each channel that arrive live before the cut, and again after it.
const LIVE: usize = 5;
/// Publications under way while the subscribers are away.
const WINDOW: usize = 64;
/// How long nothing may happen before what is missing counts as lost.
const DRAIN: Duration = Duration::from_secs(5);

/// What holds if nothing goes wrong.
const CLAIM: &str =
    "every subscriber was told that it recovered, and got every event exactly once and in order";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Recover {
    /// Subscribers.
    pub subscribers: usize,
    /// Channels with history that they are spread over.
    pub channels: usize,
    /// Events of each channel that they miss.
    pub missed: usize,
}

/// Where a channel stands, as an answer to a publication has it.
#[derive(Deserialize)]
struct Position {
    epoch: String,
    offset: u64,
}

/// Measures it.
///
/// # Errors
/// When there is no server, it refuses publications or keeps no history.
pub fn run(setup: &Setup, plan: &Recover, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("recover", CLAIM);
    let mut conditions = Conditions::default();
    let subscribers = conditions.sockets(plan.subscribers);
    let channels = plan.channels.clamp(1, subscribers.max(1));
    let missed = plan.missed;
    let title = format!(
        "recover: {subscribers} subscribers over {channels} channels miss {missed} events each of \
         {} bytes",
        setup.event_bytes
    );
    let mut section = Section::new(title, "raw writes, live");
    for of in [Of::Baseline, Of::Fanfare] {
        let host = match of {
            Of::Baseline => Host::raw(setup)?,
            Of::Fanfare => Host::under_test(setup, missed + 4 * LIVE)?,
        };
        let keys = (0..channels).map(|number| host.door.channel(&host.kept, number));
        let keys: Vec<String> = keys.collect();
        let mut fleet = Fleet::new(subscribers, keys.clone(), setup.event_bytes)?;
        let fresh = |channel: usize| vec![super::subscribe(&keys[channel], None)];
        progress.begin("recover:");
        fleet.open(&host.door, &fresh, &mut |ready| {
            progress.say(format_args!("{ready} subscribed"));
        })?;
        fleet.begin();
        fleet.add_publishers(&host.door, 1)?;
        if of == Of::Baseline {
            let before = Reading::now(host.pid)?;
            publish(&mut fleet, &host, channels, missed, true)?;
            let used = Reading::now(host.pid)?.since(&before);
            tell(&mut section, of, &fleet, used.seconds, used.server);
            report.add_faults(fleet.faults());
            continue;
        }

        let mut positions = Vec::with_capacity(channels);
        for channel in 0..channels {
            for _ in 0..LIVE {
                fleet.publish(&host.door, channel, stopwatch::nanos());
            }
            fleet.drain(DRAIN, &host.door)?;
            let position: Position = serde_json::from_slice(&fleet.last_answer).map_err(|_| {
                Failure::Server("the channels of this server keep no history".to_owned())
            })?;
            positions.push(position);
        }
        fleet.leave();
        progress.begin("recover: publishing while they are away");
        publish(&mut fleet, &host, channels, missed, false)?;

        progress.begin("recover:");
        let delivered_live = fleet.ledger.delivered;
        let again = |channel: usize| {
            vec![super::subscribe(
                &keys[channel],
                positions.get(channel).map(|p| (p.epoch.as_str(), p.offset)),
            )]
        };
        let before = Reading::now(host.pid)?;
        fleet.open(&host.door, &again, &mut |ready| {
            progress.say(format_args!("{ready} back"));
        })?;
        fleet.drain(DRAIN, &host.door)?;
        let used = Reading::now(host.pid)?.since(&before);
        conditions.note(&used);
        fleet.ledger.delivered -= delivered_live;
        tell(&mut section, of, &fleet, used.seconds, used.server);

        // They are live again, too, and nothing that was replayed comes a second time.
        publish(&mut fleet, &host, channels, LIVE, true)?;
        report.add_faults(fleet.faults());
        report.add_unrecovered((subscribers as u64).saturating_sub(fleet.recovered));
        report.add_failed(fleet.failed, fleet.first_failure.as_deref());
    }
    report.add(section);
    report.add_warnings(conditions.warnings());
    Ok(report)
}

/// Publishes `count` events on each channel; with `delivered`, until they have arrived.
fn publish(
    fleet: &mut Fleet,
    host: &Host,
    channels: usize,
    count: usize,
    delivered: bool,
) -> Result<(), Failure> {
    for number in 0..count * channels {
        fleet.publish(&host.door, number % channels, stopwatch::nanos());
        while fleet.unanswered() >= WINDOW {
            fleet.attend(Duration::from_millis(100), &host.door)?;
        }
    }
    while fleet.unanswered() > 0 {
        fleet.attend(Duration::from_millis(100), &host.door)?;
    }
    if delivered {
        fleet.drain(DRAIN, &host.door)?;
    }
    Ok(())
}

fn tell(section: &mut Section, of: Of, fleet: &Fleet, seconds: f64, cpu: Option<f64>) {
    let events = fleet.ledger.delivered as f64;
    let figures = [
        ("seconds", "until all have all, s", Some(seconds)),
        (
            "events_per_second",
            "events per second",
            Some(events / seconds),
        ),
        (
            "cpu_us_per_event",
            "CPU per event, coming back included, µs",
            cpu.map(|cpu| cpu * 1e6 / events),
        ),
    ];
    for (key, label, value) in figures {
        section.note(of, key, label, value);
    }
}
