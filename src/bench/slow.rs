//! What the others notice of subscribers that read no more, for each policy of `channels.*.slow`: latency
//! and CPU per delivery with and without them.

use std::time::Duration;

use super::conditions::Conditions;
use super::fanout::{self, Load, WARM_UP};
use super::fleet::Fleet;
use super::host::{Host, Keys};
use super::process::{Reading, Used};
use super::report::{Of, Report, Section};
use super::stalled::Aftermath;
use super::{Failure, Progress, Setup};

/// The values of `channels.*.slow`, with what becomes of a socket that stalls.
const POLICIES: [(&str, bool); 3] = [
    ("close", true),
    ("drop_oldest", false),
    ("latest_only", false),
];
/// `limits.queue_bytes`, so that a queue is full soon.
const QUEUE: &str = "64KiB";

/// What holds if nothing goes wrong.
const CLAIM: &str = "every event arrived exactly once and in order at all who read; who did not was closed, \
                     or was told how many were dropped";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Slow {
    /// Subscribers that read.
    pub subscribers: usize,
    /// Subscribers of the same channel that do not.
    pub stalled: usize,
    /// Events a second.
    pub rate: f64,
    /// Of each measurement.
    pub duration: Duration,
    /// Measurements of each kind; the median counts.
    pub rounds: usize,
}

/// Measures it.
///
/// # Errors
/// When there is no server, or it refuses publications.
pub fn run(setup: &Setup, plan: &Slow, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("slow", CLAIM);
    let mut conditions = Conditions::default();
    let wanted = plan.subscribers + plan.stalled;
    let subscribers = conditions.sockets(wanted);
    let plan = Slow {
        subscribers: subscribers.saturating_sub(plan.stalled).max(1),
        ..plan.clone()
    };
    for (policy, closes) in POLICIES {
        let mut section = Section::new(title(&plan, setup, policy), "none stalled");
        for round in 1..=plan.rounds {
            for (of, stalled) in [(Of::Baseline, 0), (Of::Fanfare, plan.stalled)] {
                progress.begin(format!(
                    "slow = \"{policy}\", round {round}/{}, {stalled} stalled:",
                    plan.rounds
                ));
                let (fleet, used, aftermath) = measure(setup, &plan, policy, stalled, progress)?;
                conditions.note(&used);
                tell(&mut section, of, &fleet, &used, &aftermath);
                report.add_faults(fleet.faults().and(aftermath.faults));
                report.add_failed(fleet.failed, fleet.first_failure.as_deref());
                let kept = stalled - aftermath.closed;
                if closes && kept > 0 {
                    conditions.warn(format!(
                        "{kept} stalled sockets were not closed: their queues were not full in {:?}; \
                         more with -r, --size or -t",
                        plan.duration
                    ));
                }
                if !closes && aftermath.closed > 0 {
                    let why = format!("closed in spite of slow = \"{policy}\"");
                    report.add_failed(aftermath.closed as u64, Some(&why));
                }
            }
        }
        report.add(section);
    }
    report.add_warnings(conditions.warnings());
    Ok(report)
}

fn measure(
    setup: &Setup,
    plan: &Slow,
    policy: &str,
    stalled: usize,
    progress: &mut Progress,
) -> Result<(Fleet, Used, Aftermath), Failure> {
    let settings = [
        ("channels.bench.slow", policy),
        ("limits.queue_bytes", QUEUE),
        // Only the bytes count: whoever takes nothing for so long is closed by every policy.
        ("limits.queue_age", "1h"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let host = Host::node(setup, 0, &Keys::random(), &settings)?;
    let key = host.door.channel(&host.fleeting, 0);
    let subscribe = |_| vec![super::subscribe(&key, None)];
    let subscribers = plan.subscribers + stalled;
    let mut fleet = Fleet::new(subscribers, vec![key.clone()], setup.event_bytes)?;
    fleet.appoint_stalled(stalled);
    fleet.open(&host.door, &subscribe, &mut |ready| {
        progress.say(format_args!("{ready} subscribed"));
    })?;
    fleet.add_publishers(&host.door, 1)?;
    fleet.begin();
    let load = Load::Rate(plan.rate);
    fanout::offer(&mut fleet, &host.door, 1, load, WARM_UP, progress)?;
    fleet.stall()?;
    fleet.begin();
    let before = Reading::now(host.pid)?;
    fanout::offer(&mut fleet, &host.door, 1, load, plan.duration, progress)?;
    let used = Reading::now(host.pid)?.since(&before);
    let aftermath = fleet.read_again(&host.door)?;
    Ok((fleet, used, aftermath))
}

fn tell(section: &mut Section, of: Of, fleet: &Fleet, used: &Used, aftermath: &Aftermath) {
    let delivered = fleet.ledger.delivered as f64;
    let latency = fleet.ledger.latency.latency();
    let cpu = used.server.map(|cpu| cpu * 1e6 / delivered);
    let figures = [
        (
            "latency_p50_ms",
            "latency p50 of the others, ms",
            Some(latency.p50_ms),
        ),
        (
            "latency_p99_ms",
            "latency p99 of the others, ms",
            Some(latency.p99_ms),
        ),
        ("cpu_us_per_delivery", "CPU per delivery, µs", cpu),
        (
            "deliveries_per_second",
            "deliveries per second",
            Some(delivered / used.seconds),
        ),
        (
            "stalled_closed",
            "stalled sockets closed",
            Some(aftermath.closed as f64),
        ),
        (
            "stalled_dropped",
            "events dropped, as gaps told",
            Some(aftermath.dropped as f64),
        ),
    ];
    for (key, label, value) in figures {
        section.note(of, key, label, value);
    }
}

fn title(plan: &Slow, setup: &Setup, policy: &str) -> String {
    let Slow {
        subscribers,
        stalled,
        rate,
        rounds,
        duration,
    } = plan;
    format!(
        "slow = \"{policy}\": {subscribers} subscribers that read, {stalled} that stall, {} bytes, \
         {rate} events a second, limits.queue_bytes = \"{QUEUE}\"; {rounds} × {duration:?}",
        setup.event_bytes
    )
}
