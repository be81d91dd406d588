//! Budgets that all nodes share.
//!
//! Not for: what has one, or how large it is (`admission`).

pub use crate::budget::Rate;

/// One of the buckets of an owner, and what is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Its name among those of the owner.
    pub bucket: &'static str,
    /// How it fills.
    pub rate: Rate,
    /// Whether one is taken from it; else it only has to have one.
    pub is_taken: bool,
}
