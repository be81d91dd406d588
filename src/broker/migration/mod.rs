//! Taking everything that is kept from one backend to the other, while no server runs.
//!
//! A [`Source`] tells what it keeps as [`Record`]s, a [`Target`] takes them; [`run`] copies, compares, and
//! only then lets servers in. Both directions are the same code, and neither side knows the other.
//!
//! Not for: presence, which is of the moment, and whatever is configured.

mod batch;
mod record;
mod run;
mod tally;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::protocol::Epoch;

pub use batch::Batch;
pub use record::{ChannelState, Given, HistoryEvent, KeptAnswer, KeptValue, Kind, Record};
pub use run::{Finished, Step, run};
pub use tally::{Report, Row};

/// Why a migration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// It may not be begun: why, and what to do. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// A side cannot be reached: why.
    #[error("{0}")]
    Unreachable(String),
    /// The source failed.
    #[error("the source: {0}")]
    Source(Error),
    /// The target failed.
    #[error("the target: {0}")]
    Target(Error),
    /// A server wrote to the source meanwhile.
    #[error("a server ran on the source meanwhile, so the copy is not what is there now")]
    Changed,
    /// The two sides tell of different things.
    #[error("what was copied is not what is there")]
    Differs(Box<Report>),
}

/// What is told of a batch: its records, and where to go on after it, if that is a place where one can.
pub type Take<'a> = &'a mut dyn FnMut(Vec<Record>, Option<String>) -> Result<(), MigrationError>;

/// A backend that things are taken from. No server uses it.
pub trait Source {
    /// What tells this source, as it is now, from every other and from itself after the next change.
    fn identity(&mut self) -> Result<String, MigrationError>;

    /// Whom it was retired for ([`Source::retire`]), if nothing happened to it since.
    fn retired(&mut self) -> Result<Option<String>, MigrationError>;

    /// How many records of a kind there are, if that is cheaply known.
    fn count(&mut self, kind: Kind) -> Option<u64>;

    /// Tells all records of a kind that are there beyond `beyond_ms` (those without a time always), after
    /// the place `from` of an earlier walk. A channel comes before its events, and these in their order
    /// and without a hole up to its last one. A record may be told twice.
    fn walk(
        &mut self,
        kind: Kind,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError>;

    /// The epoch of the channels that nobody has published to, where they share one.
    fn ground(&mut self) -> Result<Option<Epoch>, MigrationError>;

    /// Ends all epochs here: from now on the target goes on with them, and no position may ever stand
    /// for two events. What is kept stays.
    fn retire(&mut self, identity: &str) -> Result<(), MigrationError>;
}

/// A backend that takes everything. Until it is finished, no server starts on it.
pub trait Target {
    /// How far an unfinished migration to here has come; `None`: it is empty. Refuses if there is
    /// anything else in it.
    fn found(&mut self) -> Result<Option<Checkpoint>, MigrationError>;

    /// Takes away what an unfinished migration has brought.
    fn wipe(&mut self) -> Result<(), MigrationError>;

    /// Puts records in place, instead of those that are there already; then, if one is given, the
    /// checkpoint. Durable when a checkpoint was given.
    fn put(
        &mut self,
        records: &[Record],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), MigrationError>;

    /// For each record what is here in its place.
    fn look_up(&mut self, records: &[Record]) -> Result<Vec<Option<Record>>, MigrationError>;

    /// What tells it from itself after a loss of what it had acknowledged.
    fn identity(&mut self) -> Result<String, MigrationError>;

    /// Lets servers in. Whoever holds the position 0 of `ground` missed nothing of a channel that has had
    /// no event since.
    fn finish(&mut self, checkpoint: &Checkpoint) -> Result<(), MigrationError>;
}

/// How far a migration has come; kept in the target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// [`Source::identity`]
    pub source: String,
    /// [`Target::identity`]
    pub target: String,
    /// Milliseconds since 1970.
    pub begun_ms: u64,
    /// What is being copied; `None`: all is.
    pub kind: Option<Kind>,
    /// Where the walk goes on.
    pub from: Option<String>,
    /// Once both sides were compared: what came out, and the source's ground.
    pub compared: Option<(Report, Option<String>)>,
}

impl Checkpoint {
    /// Whether nothing was copied yet.
    pub fn is_first(&self) -> bool {
        self.kind == Some(Kind::ALL[0]) && self.from.is_none()
    }
}
