//! Sockets that do nothing: how much memory each holds, and whether the server is at rest.

use std::time::Duration;

use super::conditions::Conditions;
use super::fleet::Fleet;
use super::host::Host;
use super::process::{Reading, resident_bytes};
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, stopwatch};

/// Channels that the sockets share; each has its own notifications besides.
const CHANNELS: usize = 100;

/// What holds if nothing goes wrong.
const CLAIM: &str = "no connection failed";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Idle {
    /// Sockets, each with a token, an identity and two subscriptions.
    pub sockets: usize,
    /// How long they are left alone before memory is read.
    pub settle: Duration,
    /// Over how long CPU is read after that.
    pub duration: Duration,
}

/// Measures it.
///
/// # Errors
/// When there is no server.
pub fn run(setup: &Setup, plan: &Idle, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("idle", CLAIM);
    let mut conditions = Conditions::default();
    let sockets = conditions.sockets(plan.sockets);
    let title = format!(
        "idle: {sockets} sockets with a token and two subscriptions, read after {:?}",
        plan.settle
    );
    let mut section = Section::new(title, "raw writes");
    for of in [Of::Baseline, Of::Fanfare] {
        let host = match of {
            Of::Baseline => Host::raw(setup)?,
            Of::Fanfare => Host::under_test(setup, 0)?,
        };
        let resident = || host.pid.map(resident_bytes).transpose();
        let empty = resident()?;
        let keys = (0..CHANNELS.min(sockets)).map(|n| host.door.channel(&host.fleeting, n));
        let keys: Vec<String> = keys.collect();
        let subscribe = |channel: usize| {
            vec![
                super::subscribe("notifications", None),
                super::subscribe(&keys[channel], None),
            ]
        };
        let mut fleet = Fleet::new(sockets, keys.clone(), setup.event_bytes)?;
        progress.begin("idle:");
        fleet.open(&host.door, &subscribe, &mut |ready| {
            progress.say(format_args!("{ready} subscribed"));
        })?;
        progress.begin("idle: settling");
        let settled = stopwatch::nanos() + stopwatch::of(plan.settle);
        fleet.attend_until(settled, &host.door)?;
        let full = resident()?;
        let before = Reading::now(host.pid)?;
        let end = stopwatch::nanos() + stopwatch::of(plan.duration);
        fleet.attend_until(end, &host.door)?;
        let used = Reading::now(host.pid)?.since(&before);
        conditions.note(&used);

        let growth = full
            .zip(empty)
            .map(|(full, empty)| full.saturating_sub(empty));
        let each = growth.map(|bytes| bytes as f64 / sockets as f64);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let figures = [
            (
                "rss_bytes_per_connection",
                "resident bytes per connection",
                each,
            ),
            ("rss_mib_empty", "resident before, MiB", empty.map(mib)),
            ("rss_mib", "resident with all of them, MiB", full.map(mib)),
            (
                "idle_cpu_percent",
                "server CPU, % of one core",
                used.server.map(|cpu| cpu * 100.0 / used.seconds),
            ),
        ];
        for (key, label, value) in figures {
            section.note(of, key, label, value);
        }
        report.add_failed(fleet.failed, fleet.first_failure.as_deref());
    }
    report.add(section);
    report.add_warnings(conditions.warnings());
    Ok(report)
}
