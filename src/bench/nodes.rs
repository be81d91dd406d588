//! Several nodes on one Redis beside one node on it: deliveries a second, what a delivery costs the nodes
//! and Redis, and how long a publication takes until it is answered and until it has arrived.

use std::time::Duration;

use super::conditions::Conditions;
use super::fanout::{self, Load, WARM_UP};
use super::fleet::Fleet;
use super::host::{Host, Keys};
use super::process::{Reading, Used};
use super::redis_server::{RedisServer, RedisUsed};
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup};

/// Events that a channel keeps, as with default settings.
const HISTORY: usize = 100;

/// What holds if nothing goes wrong.
const CLAIM: &str =
    "every event arrived exactly once and in order on every node; no connection failed";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// Nodes that are compared with one.
    pub nodes: usize,
    /// Subscribers, in all, spread evenly over the nodes.
    pub subscribers: usize,
    /// A Redis that runs already; `None`: one of our own.
    pub redis: Option<String>,
    /// Each is measured by itself.
    pub loads: Vec<Load>,
    /// Of each measurement.
    pub duration: Duration,
    /// Measurements of each kind; the median counts.
    pub rounds: usize,
}

/// Measures it.
///
/// # Errors
/// When there is no Redis or no node, or publications are refused.
pub fn run(setup: &Setup, plan: &Nodes, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("nodes", CLAIM);
    let mut conditions = Conditions::default();
    let subscribers = conditions.sockets(plan.subscribers);
    let title = |load: &Load| {
        format!(
            "{} nodes and one, on one Redis: {subscribers} subscribers of a channel with history, {} bytes, \
             {}; {} × {:?}",
            plan.nodes,
            setup.event_bytes,
            fanout::named(*load),
            plan.rounds,
            plan.duration
        )
    };
    let sections = plan
        .loads
        .iter()
        .map(|load| Section::new(title(load), "one node"));
    let mut sections: Vec<Section> = sections.collect();
    for round in 1..=plan.rounds {
        for (of, count) in [(Of::Baseline, 1), (Of::Fanfare, plan.nodes)] {
            let redis = RedisServer::ready(setup, plan.redis.as_deref())?;
            let keys = Keys::random();
            let settings = redis.settings();
            let nodes = (0..count).map(|_| Host::node(setup, HISTORY, &keys, &settings));
            let mut nodes = nodes.collect::<Result<Vec<Host>, Failure>>()?;
            let others = nodes[1..].iter().map(|node| node.door.address).collect();
            nodes[0].door.others = others;
            let door = &nodes[0].door;
            let channel = door.channel(&nodes[0].kept, 0);
            let subscribe = |_| vec![super::subscribe(&channel, None)];
            let mut fleet = Fleet::new(subscribers, vec![channel.clone()], setup.event_bytes)?;
            progress.begin(format!("round {round}/{}, {count} nodes:", plan.rounds));
            fleet.open(door, &subscribe, &mut |ready| {
                progress.say(format_args!("{ready} subscribed"));
            })?;
            fleet.add_publishers(door, 1)?;
            fleet.begin();
            for (load, section) in plan.loads.iter().zip(&mut sections) {
                fanout::offer(&mut fleet, door, 1, *load, WARM_UP, progress)?;
                fleet.begin();
                let readings = || -> std::io::Result<Vec<Reading>> {
                    nodes.iter().map(|node| Reading::now(node.pid)).collect()
                };
                let (redis_before, before) = (redis.reading()?, readings()?);
                fanout::offer(&mut fleet, door, 1, *load, plan.duration, progress)?;
                let after = readings()?;
                let of_redis = redis.reading()?.since(&redis_before);
                let used: Vec<Used> = after
                    .iter()
                    .zip(&before)
                    .map(|(after, before)| after.since(before))
                    .collect();
                let together = sum(&used, &of_redis);
                conditions.note(&together);
                tell(section, of, &fleet, &together, &of_redis);
                report.add_faults(fleet.faults());
            }
            report.add_failed(fleet.failed, fleet.first_failure.as_deref());
        }
    }
    sections.into_iter().for_each(|section| report.add(section));
    report.add_warnings(conditions.warnings());
    Ok(report)
}

/// What all nodes have used; the client and the rest of the machine are in each reading.
fn sum(used: &[Used], of_redis: &RedisUsed) -> Used {
    let first = used.first().copied().unwrap_or_default();
    let servers = used.iter().filter_map(|used| used.server);
    let servers: f64 = servers.sum();
    let apart = servers - first.server.unwrap_or(0.0) + of_redis.seconds;
    Used {
        server: Some(servers),
        others: (first.others - apart).max(0.0),
        ..first
    }
}

fn tell(section: &mut Section, of: Of, fleet: &Fleet, used: &Used, of_redis: &RedisUsed) {
    let delivered = fleet.ledger.delivered as f64;
    let published = fleet.answered as f64;
    let arrival = fleet.ledger.latency.latency();
    let answer = fleet.answers.latency();
    let figures = [
        (
            "deliveries_per_second",
            "deliveries per second",
            delivered / used.seconds,
        ),
        (
            "cpu_us_per_delivery",
            "CPU of the nodes per delivery, µs",
            used.server.unwrap_or(0.0) * 1e6 / delivered,
        ),
        (
            "redis_cpu_us_per_delivery",
            "CPU of Redis per delivery, µs",
            of_redis.seconds * 1e6 / delivered,
        ),
        (
            "redis_cpu_us_per_publish",
            "CPU of Redis per publication, µs",
            of_redis.seconds * 1e6 / published,
        ),
        (
            "redis_calls_per_publish",
            "calls of Redis per publication",
            of_redis.calls as f64 / published,
        ),
        ("answer_p50_ms", "answered after, p50, ms", answer.p50_ms),
        ("answer_p99_ms", "answered after, p99, ms", answer.p99_ms),
        ("latency_p50_ms", "arrived after, p50, ms", arrival.p50_ms),
        ("latency_p99_ms", "arrived after, p99, ms", arrival.p99_ms),
    ];
    for (key, label, value) in figures {
        section.note(of, key, label, Some(value));
    }
}
