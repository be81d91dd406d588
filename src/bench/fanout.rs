//! One event to many: CPU per delivery, deliveries a second, latency, and what was lost.

use std::time::Duration;

use super::conditions::Conditions;
use super::door::Door;
use super::fleet::Fleet;
use super::host::Host;
use super::process::{Reading, Used};
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, stopwatch};

/// Before it counts: buffers grow, the scheduler finds its places.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);
/// How long the last deliveries may take.
const DRAIN: Duration = Duration::from_secs(5);

/// What holds if nothing goes wrong.
const CLAIM: &str = "every event arrived exactly once and in order; no connection failed";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Fanout {
    /// Subscribers, in all.
    pub subscribers: usize,
    /// Channels that they are spread over.
    pub channels: usize,
    /// Connections that publish. Of one, events must arrive in the order of publication; of several,
    /// in an order that is the same for all subscribers.
    pub publishers: usize,
    /// Each is measured by itself.
    pub loads: Vec<Load>,
    /// Of each measurement.
    pub duration: Duration,
    /// Measurements of each kind; the median counts.
    pub rounds: usize,
}

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many publications are under way all the time: the peak.
    Window(usize),
    /// So many a second.
    Rate(f64),
}

/// Measures it.
///
/// # Errors
/// When there is no server, or it refuses publications.
pub fn run(setup: &Setup, plan: &Fanout, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("fanout", CLAIM);
    let mut conditions = Conditions::default();
    let subscribers = conditions.sockets(plan.subscribers);
    let plan = Fanout {
        subscribers,
        channels: plan.channels.clamp(1, subscribers.max(1)),
        ..plan.clone()
    };
    let mut sections: Vec<Section> = plan
        .loads
        .iter()
        .map(|load| Section::new(title(&plan, setup, *load), "raw writes"))
        .collect();
    for round in 1..=plan.rounds {
        for of in [Of::Baseline, Of::Fanfare] {
            let host = match of {
                Of::Baseline => Host::raw(setup)?,
                Of::Fanfare => Host::under_test(setup, 0)?,
            };
            let keys = (0..plan.channels).map(|number| host.door.channel(&host.fleeting, number));
            let keys: Vec<String> = keys.collect();
            let subscribe = |channel: usize| vec![super::subscribe(&keys[channel], None)];
            let mut fleet = Fleet::new(plan.subscribers, keys.clone(), setup.event_bytes)?;
            progress.begin(format!("round {round}/{}, {}:", plan.rounds, name(of)));
            fleet.open(&host.door, &subscribe, &mut |ready| {
                progress.say(format_args!("{ready} subscribed"));
            })?;
            fleet.add_publishers(&host.door, plan.publishers)?;
            if plan.publishers > 1 {
                fleet.share_publishers();
            }
            fleet.begin();
            for (load, section) in plan.loads.iter().zip(&mut sections) {
                let (door, channels) = (&host.door, plan.channels);
                offer(&mut fleet, door, channels, *load, WARM_UP, progress)?;
                fleet.begin();
                let before = Reading::now(host.pid)?;
                offer(&mut fleet, door, channels, *load, plan.duration, progress)?;
                let used = Reading::now(host.pid)?.since(&before);
                conditions.note(&used);
                tell(section, of, &fleet, &used);
                report.add_faults(fleet.faults());
            }
            report.add_failed(fleet.failed, fleet.first_failure.as_deref());
        }
    }
    sections.into_iter().for_each(|section| report.add(section));
    report.add_warnings(conditions.warnings());
    Ok(report)
}

/// Publishes for so long on so many channels, then waits until everything has arrived.
pub(super) fn offer(
    fleet: &mut Fleet,
    door: &Door,
    channels: usize,
    load: Load,
    how_long: Duration,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let start = stopwatch::nanos();
    let end = start + stopwatch::of(how_long);
    let mut channels = (0..channels).cycle();
    let mut next = || channels.next().unwrap_or(0);
    match load {
        Load::Window(window) => {
            let mut now = start;
            while now < end {
                while fleet.ledger.outstanding < window && fleet.unanswered() < window {
                    fleet.publish(door, next(), stopwatch::nanos());
                }
                fleet.attend(Duration::from_millis(10), door)?;
                progress.say(format_args!("{} deliveries", fleet.ledger.delivered));
                now = stopwatch::nanos();
            }
        }
        Load::Rate(rate) => {
            let interval = Duration::from_secs_f64(1.0 / rate);
            fleet.wake_every(interval)?;
            let mut due = start + stopwatch::of(interval);
            while due <= end {
                while due <= stopwatch::nanos().min(end) {
                    // What is late counts from when it was due: a stall must not hide itself.
                    fleet.publish(door, next(), due);
                    due += stopwatch::of(interval);
                }
                fleet.attend(Duration::from_millis(100), door)?;
                progress.say(format_args!("{} deliveries", fleet.ledger.delivered));
            }
            fleet.wake_every(Duration::ZERO)?;
        }
    }
    fleet.drain(DRAIN, door)
}

fn tell(section: &mut Section, of: Of, fleet: &Fleet, used: &Used) {
    let delivered = fleet.ledger.delivered as f64;
    let latency = fleet.ledger.latency.latency();
    let cpu = used.server.map(|cpu| cpu * 1e6 / delivered);
    let percent = |cpu: f64| cpu * 100.0 / used.seconds;
    let figures = [
        ("cpu_us_per_delivery", "CPU per delivery, µs", cpu),
        (
            "deliveries_per_second",
            "deliveries per second",
            Some(delivered / used.seconds),
        ),
        ("latency_p50_ms", "latency p50, ms", Some(latency.p50_ms)),
        ("latency_p99_ms", "latency p99, ms", Some(latency.p99_ms)),
        (
            "server_cpu_percent",
            "server CPU, %",
            used.server.map(percent),
        ),
        (
            "client_cpu_percent",
            "client CPU, %",
            Some(percent(used.client)),
        ),
    ];
    for (key, label, value) in figures {
        section.note(of, key, label, value);
    }
}

fn title(plan: &Fanout, setup: &Setup, load: Load) -> String {
    let Fanout {
        subscribers,
        channels,
        publishers,
        rounds,
        ..
    } = plan;
    let load = named(load);
    let over = match channels {
        1 => String::new(),
        many => format!(" over {many} channels"),
    };
    let from = match publishers {
        1 => String::new(),
        many => format!(" from {many} publishers"),
    };
    format!(
        "fanout: {subscribers} subscribers{over}, {} bytes{from}, {load}; {rounds} × {:?}",
        setup.event_bytes, plan.duration
    )
}

/// How a load is called.
pub(super) fn named(load: Load) -> String {
    match load {
        Load::Window(window) => format!("saturated ({window} publications under way)"),
        Load::Rate(rate) => format!("{rate} events a second"),
    }
}

fn name(of: Of) -> &'static str {
    match of {
        Of::Baseline => "raw writes",
        Of::Fanfare => "fanfare",
    }
}
