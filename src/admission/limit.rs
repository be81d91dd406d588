//! The limits, as they are asked for, and as they are answered.

use std::fmt;
use std::time::Duration;

use crate::budget::Rate;
use crate::config::Limits;

/// Sign-ins that fail come back so many times slower than others.
const FAILURES_SLOWER: u32 = 4;

/// What is allowed at the moment.
pub(super) struct Bounds {
    /// Nobody is refused but where descriptors run out.
    pub(super) dry_run: bool,
    pub(super) sign_ins: Option<Rate>,
    pub(super) failures: Option<Rate>,
    pub(super) requests: Option<Rate>,
    pub(super) accepts: Option<Rate>,
    pub(super) on_node: usize,
    pub(super) by_address: usize,
    pub(super) by_user: usize,
}

impl Bounds {
    pub(super) fn of(limits: &Limits) -> Self {
        let second = Duration::from_secs(1);
        let minute = Duration::from_secs(60);
        let requests = limits.requests_per_second;
        let sign_ins = limits.sign_in_per_minute;
        Self {
            dry_run: limits.dry_run,
            sign_ins: Rate::new(sign_ins, minute, sign_ins),
            failures: Rate::new(sign_ins, minute * FAILURES_SLOWER, sign_ins),
            requests: Rate::new(requests, second, requests),
            accepts: Rate::new(limits.accepts_per_second, second, limits.accepts_per_second),
            on_node: limits.connections,
            by_address: limits.connections_per_address,
            by_user: limits.connections_per_user,
        }
    }
}

/// A limit that a dry run lets past.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    SignIns,
    Requests,
    Accepts,
    ByAddress,
    ByUser,
}

impl Limit {
    /// Its key below `limits`.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::SignIns => "sign_in_per_minute",
            Self::Requests => "requests_per_second",
            Self::Accepts => "accepts_per_second",
            Self::ByAddress => "connections_per_address",
            Self::ByUser => "connections_per_user",
        }
    }
}

/// How long to wait, in whole seconds, at least 1: the value of `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(pub u64);

impl RetryAfter {
    pub(super) fn from_nanos(nanos: u64) -> Self {
        Self(nanos.div_ceil(1_000_000_000).max(1))
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
