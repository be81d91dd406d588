//! The migration itself: copy, compare, retire the source, let servers in.
//!
//! Whatever ends it in between, running it again goes on: the target has a checkpoint, everything is
//! put in place rather than added, and what a checkpoint does not fit to any more is begun anew.

use super::{Checkpoint, Kind, MigrationError, Record, Report, Source, Target};
use crate::clock::Clock;

/// Records between two checkpoints.
const CHECKPOINT_RECORDS: u64 = 10_000;
/// What ends so soon is copied, but not compared: it may go while both sides are read.
const SOON_MS: u64 = 10_000;
/// How often the comparison is begun anew because it took longer than that.
const COMPARISONS_MAX: u32 = 6;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Of this kind so many were copied, of so many if that is known.
    Copying(Kind, u64, Option<u64>),
    /// So many records were compared.
    Comparing(u64),
    /// The source's epochs are being ended.
    Retiring,
}

/// What a migration did.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Both sides.
    pub report: Report,
    /// Whether it went on with one that was interrupted.
    pub resumed: bool,
    /// Records that this run copied.
    pub copied: u64,
    /// How long copying took.
    pub copying_ms: u64,
    /// How long comparing took.
    pub comparing_ms: u64,
}

/// Takes everything from `source` to `target`.
///
/// # Errors
/// [`MigrationError`]. But for [`MigrationError::Refused`], the target is then unfinished, no server
/// starts on it, and running this again goes on.
pub fn run(
    source: &mut dyn Source,
    target: &mut dyn Target,
    clock: &Clock,
    tell: &mut dyn FnMut(Step),
) -> Result<Finished, MigrationError> {
    let found = target.found()?;
    let identity = source.identity()?;
    let mut checkpoint = match &found {
        Some(found) if fits(found, &identity, source, target)? => found.clone(),
        _ => {
            if found.is_some() {
                target.wipe()?;
            }
            Checkpoint {
                source: identity.clone(),
                target: target.identity()?,
                begun_ms: clock.unix_ms(),
                kind: Some(Kind::ALL[0]),
                from: None,
                compared: None,
            }
        }
    };
    target.put(&[], Some(&checkpoint))?;
    let mut finished = Finished {
        report: Report::default(),
        resumed: found.is_some_and(|found| found.begun_ms == checkpoint.begun_ms),
        copied: 0,
        copying_ms: 0,
        comparing_ms: 0,
    };
    if checkpoint.compared.is_none() {
        let began_ms = clock.now().mono_ms;
        finished.copied = copy(source, target, &mut checkpoint, clock, tell)?;
        let copied_ms = clock.now().mono_ms;
        finished.copying_ms = copied_ms - began_ms;
        let report = compare(source, target, clock, finished.copying_ms, tell)?;
        finished.comparing_ms = clock.now().mono_ms - copied_ms;
        if !report.agrees() {
            // Whatever went wrong: the next run begins anew.
            checkpoint.source.clear();
            target.put(&[], Some(&checkpoint))?;
            return Err(MigrationError::Differs(Box::new(report)));
        }
        if source.identity()? != identity || target.identity()? != checkpoint.target {
            return Err(MigrationError::Changed);
        }
        let ground = source.ground()?;
        checkpoint.compared = Some((report, ground.map(|epoch| epoch.as_str().to_owned())));
        target.put(&[], Some(&checkpoint))?;
    }
    tell(Step::Retiring);
    if source.retired()?.as_deref() != Some(checkpoint.source.as_str()) {
        source.retire(&checkpoint.source)?;
    }
    target.finish(&checkpoint)?;
    finished.report = checkpoint
        .compared
        .map(|(report, _)| report)
        .unwrap_or_default();
    Ok(finished)
}

/// Whether an unfinished migration can be gone on with: from the same source, on which nothing has
/// happened, to a target that has lost nothing.
fn fits(
    found: &Checkpoint,
    identity: &str,
    source: &mut dyn Source,
    target: &mut dyn Target,
) -> Result<bool, MigrationError> {
    if found.target != target.identity()? {
        return Ok(false);
    }
    let was_retired =
        found.compared.is_some() && source.retired()?.as_deref() == Some(found.source.as_str());
    Ok(found.source == identity || was_retired)
}

fn copy(
    source: &mut dyn Source,
    target: &mut dyn Target,
    checkpoint: &mut Checkpoint,
    clock: &Clock,
    tell: &mut dyn FnMut(Step),
) -> Result<u64, MigrationError> {
    let now_ms = clock.unix_ms();
    let (mut copied, mut since) = (0, 0);
    let Some(first) = checkpoint.kind else {
        return Ok(0);
    };
    for kind in Kind::ALL.into_iter().filter(|kind| *kind >= first) {
        let from = checkpoint.from.take();
        checkpoint.kind = Some(kind);
        let all = source.count(kind);
        let mut of_kind = 0;
        source.walk(kind, from.as_deref(), now_ms, &mut |records, place| {
            of_kind += records.len() as u64;
            since += records.len() as u64;
            let is_due = since >= CHECKPOINT_RECORDS && place.is_some();
            if is_due {
                since = 0;
                checkpoint.from = place;
            }
            target.put(&records, is_due.then_some(&*checkpoint))?;
            tell(Step::Copying(kind, of_kind, all));
            Ok(())
        })?;
        checkpoint.from = None;
        copied += of_kind;
    }
    checkpoint.kind = None;
    target.put(&[], Some(checkpoint))?;
    Ok(copied)
}

/// Reads both sides, each with its own eyes.
fn compare(
    source: &mut dyn Source,
    target: &mut dyn Target,
    clock: &Clock,
    copying_ms: u64,
    tell: &mut dyn FnMut(Step),
) -> Result<Report, MigrationError> {
    let mut soon_ms = SOON_MS.max(copying_ms.saturating_mul(2));
    for _ in 0..COMPARISONS_MAX {
        let beyond_ms = clock.unix_ms().saturating_add(soon_ms);
        let mut report = Report::default();
        let mut compared = 0;
        for kind in Kind::ALL {
            source.walk(kind, None, beyond_ms, &mut |records, _| {
                let found = target.look_up(&records)?;
                compared += records.len() as u64;
                for (record, found) in records.iter().zip(&found) {
                    report.compare(
                        record,
                        found.as_ref().map(|it| settled(record, it)).as_ref(),
                    );
                }
                tell(Step::Comparing(compared));
                Ok(())
            })?;
        }
        if clock.unix_ms() < beyond_ms {
            return Ok(report);
        }
        soon_ms = soon_ms.saturating_mul(4);
    }
    Err(MigrationError::Changed)
}

/// What was found, its end taken for the one that was asked for if it is as near as a Redis of before
/// version 7 can tell.
fn settled(record: &Record, found: &Record) -> Record {
    const NEAR_MS: u64 = 1_000;
    let near = |one: u64, other: u64| one.abs_diff(other) <= NEAR_MS;
    let mut found = found.clone();
    match (record, &mut found) {
        (Record::Value(ours), Record::Value(theirs)) => {
            if let (Some(one), Some(other)) = (ours.expire_ms, theirs.expire_ms)
                && near(one, other)
            {
                theirs.expire_ms = ours.expire_ms;
            }
        }
        (Record::Answer(ours), Record::Answer(theirs))
            if near(ours.expire_ms, theirs.expire_ms) =>
        {
            theirs.expire_ms = ours.expire_ms;
        }
        _ => {}
    }
    found
}
