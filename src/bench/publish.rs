//! Publishing into history: answered when it is on disk, so the disk's own flush is the measure.

use std::time::Duration;

use super::conditions::Conditions;
use super::fleet::Fleet;
use super::host::Host;
use super::process::Reading;
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, descriptors, disk, stopwatch};

/// Events that a channel keeps.
const HISTORY: usize = 100;
/// How long the last answers may take.
const DRAIN: Duration = Duration::from_secs(5);

/// What holds if nothing goes wrong.
const CLAIM: &str = "every publication was answered with success";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Publishers at once, each waiting for its answer before it goes on; each number by itself.
    pub publishers: Vec<usize>,
    /// Of each measurement.
    pub duration: Duration,
}

/// Measures it.
///
/// # Errors
/// When there is no server, or it refuses publications.
pub fn run(setup: &Setup, plan: &Publish, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("publish", CLAIM);
    let mut conditions = Conditions::default();
    if setup.target.is_none() && disk::is_memory(&setup.scratch) {
        conditions.warn(format!(
            "{} is in memory: name a folder on a disk with --scratch",
            setup.scratch.display()
        ));
    }
    for &wanted in &plan.publishers {
        let publishers = descriptors::make_room(wanted).max(1);
        progress.begin("the disk alone");
        let flushing = disk::flushing(&setup.scratch, setup.event_bytes, plan.duration / 2)?;
        let host = Host::under_test(setup, HISTORY)?;
        let title = format!(
            "publish: {publishers} at once, {} bytes into history, {:?}",
            setup.event_bytes, plan.duration
        );
        let mut section = Section::new(title, "append+fdatasync");
        let keys = (0..publishers).map(|number| host.door.channel(&host.kept, number));
        let mut fleet = Fleet::new(0, keys.collect(), setup.event_bytes)?;
        fleet.add_publishers(&host.door, publishers)?;
        progress.begin(format!("{publishers} publishers:"));
        let before = Reading::now(host.pid)?;
        let end = stopwatch::nanos() + stopwatch::of(plan.duration);
        while stopwatch::nanos() < end {
            for publisher in (0..publishers)
                .filter(|&one| fleet.waiting(one) == 0)
                .collect::<Vec<_>>()
            {
                fleet.publish(&host.door, publisher, stopwatch::nanos());
            }
            fleet.attend(Duration::from_millis(100), &host.door)?;
            progress.say(format_args!("{} answered", fleet.answered));
        }
        fleet.drain(DRAIN, &host.door)?;
        let used = Reading::now(host.pid)?.since(&before);
        conditions.note(&used);
        let why = "a publication was not answered";
        report.add_failed(
            fleet.unanswered() as u64,
            Some(why).filter(|_| fleet.unanswered() > 0),
        );

        let answered = fleet.answered as f64;
        let latency = fleet.answers.latency();
        let per_second = answered / used.seconds;
        let cpu = used.server.map(|cpu| cpu * 1e6 / answered);
        let figures = [
            (
                "publishes_per_second",
                "per second",
                Some(per_second),
                Some(flushing.per_second),
            ),
            (
                "answer_p50_ms",
                "answered after, p50, ms",
                Some(latency.p50_ms),
                Some(flushing.latency.p50_ms),
            ),
            (
                "answer_p99_ms",
                "answered after, p99, ms",
                Some(latency.p99_ms),
                Some(flushing.latency.p99_ms),
            ),
            ("cpu_us_per_publish", "CPU per publish, µs", cpu, None),
        ];
        for (key, label, ours, disks) in figures {
            section.note(Of::Fanfare, key, label, ours);
            section.note(Of::Baseline, key, label, disks);
        }
        report.add(section);
    }
    report.add_warnings(conditions.warnings());
    Ok(report)
}
