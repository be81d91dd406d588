//! The series of a broker that is a Redis.

use super::{Page, series};
use crate::broker::figures::{RedisFigures, ServerFigures};

pub(super) fn about_redis(redis: &RedisFigures, page: &mut Page) {
    page.counter(
        "redis_connections_total",
        "Connections made to Redis servers; the first ones are counted, too.",
        redis.connections as f64,
    );
    page.counter(
        "redis_malformed_messages_total",
        "Messages of pub/sub that were dropped because they are no events.",
        redis.malformed as f64,
    );
    page.counter(
        "redis_holes_total",
        "Times that an event came without the one before it, which was then read from the history.",
        redis.holes as f64,
    );
    page.counter(
        "redis_channel_gaps_total",
        "Channels whose subscribers were told to come again because events may have been lost.",
        redis.gaps as f64,
    );
    page.counter(
        "redis_unreplicated_writes_total",
        "Writes that were refused because too few replicas confirmed them in time.",
        redis.unreplicated as f64,
    );
    page.gauge(
        "redis_commands_in_flight",
        "Commands that wait for their answers.",
        redis.in_flight as f64,
    );
    page.histograms(
        "redis_pubsub_lag_seconds",
        "How long messages of pub/sub took from any node to this one, by the clocks of the nodes.",
        vec![(Vec::new(), &redis.lag)],
    );
    let of_servers = |value: fn(&ServerFigures) -> u64| {
        let servers = redis.servers.iter();
        let all = servers.map(|one| series([("server", one.server.as_str())], value(one) as f64));
        all.collect::<Vec<_>>()
    };
    page.gauges(
        "redis_used_memory_bytes",
        "Memory that a Redis server uses.",
        of_servers(|one| one.used_bytes),
    );
    page.gauges(
        "redis_maximum_memory_bytes",
        "Memory that a Redis server may use; 0 is no limit.",
        of_servers(|one| one.max_bytes),
    );
    page.counters(
        "redis_evicted_keys_total",
        "Keys that a Redis server has thrown away to make room.",
        of_servers(|one| one.evicted_keys),
    );
    let operations = redis.operations.iter();
    let timings = operations.clone().map(|one| {
        let (labels, _) = series([("operation", one.operation)], 0.0);
        (labels, &one.timing)
    });
    page.histograms(
        "redis_operation_seconds",
        "How long answers took, failures included.",
        timings.collect(),
    );
    let failures =
        operations.map(|one| series([("operation", one.operation)], one.failures as f64));
    page.counters(
        "redis_operation_failures_total",
        "Operations that failed.",
        failures.collect(),
    );
}
