//! Figures of a broker that is a Redis, for the metrics: plain numbers, as they were at one moment.

/// Upper ends of the buckets of a [`Timing`], in microseconds.
pub const BOUNDS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 3_000_000,
];

/// What is counted of Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisFigures {
    /// Connections made to servers, the first ones included.
    pub connections: u64,
    /// Messages that were no events or notices.
    pub malformed: u64,
    /// Times that an event came with one missing before it, which was then read.
    pub holes: u64,
    /// Channels whose subscribers had to be told that something is lost.
    pub gaps: u64,
    /// Writes that too few replicas confirmed in time.
    pub unreplicated: u64,
    /// Commands that are under way.
    pub in_flight: u64,
    /// How long messages of pub/sub take from any node to this one, by the nodes' own clocks.
    pub lag: Timing,
    /// The servers that take writes.
    pub servers: Vec<ServerFigures>,
    /// By kind of operation, but for those that never were.
    pub operations: Vec<OperationFigures>,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFigures {
    /// Its address.
    pub server: String,
    /// Memory that it uses.
    pub used_bytes: u64,
    /// Memory that it may use; 0: no limit.
    pub max_bytes: u64,
    /// Keys that it has thrown away to make room, since it was started.
    pub evicted_keys: u64,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFigures {
    /// Its name; one of a few.
    pub operation: &'static str,
    /// How long it took.
    pub timing: Timing,
    /// How many failed.
    pub failures: u64,
}

/// How long something took, each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timing {
    /// How many took at most as long as [`BOUNDS_US`] says; the last is all of them.
    pub cumulative: [u64; BOUNDS_US.len() + 1],
    /// All together.
    pub sum_us: u64,
}

impl Timing {
    /// How often.
    pub fn count(&self) -> u64 {
        self.cumulative[BOUNDS_US.len()]
    }
}
