//! `GET /stats`: the nine members of the predecessor, and beside them `server` with the rest.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::broker::figures::RedisFigures;
use crate::broker::{Health, StoreFigures};
use crate::clock;
use crate::event_log::Loss;
use crate::metrics::{Process, Snapshot};

/// The JSON text.
pub fn stats(snapshot: &Snapshot) -> String {
    // Plain members with string keys: nothing here can fail to serialize.
    serde_json::to_string(&Stats::of(snapshot)).unwrap_or_default()
}

/// `26h 3m`, as the predecessor wrote it: hours are not folded into days.
pub fn uptime(uptime_ms: u64) -> String {
    let minutes = uptime_ms / 60_000;
    format!("{}h {}m", minutes / 60, minutes % 60)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    total_connections: u64,
    active_connections: u64,
    total_messages: u64,
    auth_failures: u64,
    errors: u64,
    uptime: String,
    connections_by_channel: Map<'a>,
    messages_by_type: Map<'a>,
    average_messages_per_minute: serde_json::Number,
    server: Server<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server<'a> {
    version: &'a str,
    node: &'a str,
    started_at: String,
    uptime_seconds: u64,
    draining: bool,
    broker: State<'a>,
    store: Store<'a>,
    workers: usize,
    /// Events waiting in each worker's mailbox.
    queues: &'a [usize],
    channels: u64,
    subscriptions: u64,
    event_streams: u64,
    deliveries: u64,
    gaps: u64,
    dropped: u64,
    turns: u64,
    writes: u64,
    received_bytes: u64,
    sent_bytes: u64,
    error_replies: u64,
    closes_by_reason: Map<'a>,
    auth_failures_by_check: Map<'a>,
    limited: Map<'a>,
    http_responses: Map<'a>,
    publications: Map<'a>,
    notifications: u64,
    tokens_issued: u64,
    tokens_revoked: u64,
    event_log: EventLog,
    alerts: Vec<&'static str>,
    canary: Canary,
    process: Resources,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Redis<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redis<'a> {
    connections: u64,
    commands_in_flight: u64,
    failures: u64,
    holes: u64,
    gaps: u64,
    malformed: u64,
    unreplicated_writes: u64,
    servers: Vec<RedisServer<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RedisServer<'a> {
    server: &'a str,
    role: &'static str,
    used_bytes: u64,
    max_bytes: u64,
    evicted_keys: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Canary {
    rounds: u64,
    failures: u64,
    latency_ms: Option<f64>,
}

#[derive(Serialize)]
struct State<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Store<'a> {
    #[serde(flatten)]
    state: State<'a>,
    bytes: u64,
    queued_writes: u64,
    commits: u64,
    writes: u64,
    failures: u64,
    history_channels: u64,
    history_events: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventLog {
    state: &'static str,
    written_lines: u64,
    dropped_lines: u64,
    dropped_by_reason: BTreeMap<&'static str, u64>,
    io_errors: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    resident_bytes: u64,
    cpu_seconds: f64,
    open_fds: u64,
    threads: u64,
}

impl<'a> Stats<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            total_connections: snapshot.connections_opened,
            active_connections: snapshot.active_connections(),
            total_messages: snapshot.messages,
            auth_failures: snapshot.all_auth_failures(),
            errors: snapshot.errors_and_malformed(),
            uptime: uptime(snapshot.uptime_ms),
            connections_by_channel: Map(&snapshot.channels),
            messages_by_type: Map(&snapshot.messages_by_type),
            average_messages_per_minute: per_minute(snapshot.messages, snapshot.uptime_ms),
            server: Server::of(snapshot),
        }
    }
}

impl<'a> Server<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let Process {
            resident_bytes,
            cpu_seconds,
            open_fds,
            threads,
            ..
        } = snapshot.process;
        Self {
            version: snapshot.version,
            node: &snapshot.node,
            started_at: clock::rfc3339(snapshot.started_unix_ms),
            uptime_seconds: snapshot.uptime_ms / 1_000,
            draining: snapshot.draining,
            broker: state(&snapshot.broker),
            store: store(&snapshot.store, &snapshot.store_figures),
            workers: snapshot.queues.len(),
            queues: &snapshot.queues,
            channels: snapshot.channel_count,
            subscriptions: snapshot.subscriptions,
            event_streams: snapshot.event_streams,
            deliveries: snapshot.deliveries,
            gaps: snapshot.gaps,
            dropped: snapshot.dropped,
            turns: snapshot.turns,
            writes: snapshot.writes,
            received_bytes: snapshot.received_bytes,
            sent_bytes: snapshot.sent_bytes,
            error_replies: snapshot.error_replies,
            closes_by_reason: Map(&snapshot.closes),
            auth_failures_by_check: Map(&snapshot.auth_failures),
            limited: Map(&snapshot.limited),
            http_responses: Map(&snapshot.http_responses),
            publications: Map(&snapshot.publications),
            notifications: snapshot.notifications,
            tokens_issued: snapshot.tokens_issued,
            tokens_revoked: snapshot.tokens_revoked,
            event_log: EventLog {
                written_lines: snapshot.event_log.written_lines,
                state: snapshot.event_log.state.name(),
                dropped_lines: snapshot.event_log.dropped_lines(),
                dropped_by_reason: Loss::ALL
                    .map(|why| (why.name(), snapshot.event_log.lost(why)))
                    .into(),
                io_errors: snapshot.event_log.io_errors,
            },
            alerts: snapshot.alerts.iter().copied().collect(),
            canary: Canary {
                rounds: snapshot.canary_rounds,
                failures: snapshot.canary_failures,
                latency_ms: snapshot.canary_latency_ms,
            },
            process: Resources {
                resident_bytes,
                cpu_seconds,
                open_fds,
                threads,
            },
            redis: snapshot.redis.as_ref().map(redis),
        }
    }
}

fn redis(figures: &RedisFigures) -> Redis<'_> {
    Redis {
        connections: figures.connections,
        commands_in_flight: figures.in_flight,
        failures: figures.operations.iter().map(|one| one.failures).sum(),
        holes: figures.holes,
        gaps: figures.gaps,
        malformed: figures.malformed,
        unreplicated_writes: figures.unreplicated,
        servers: figures
            .servers
            .iter()
            .map(|one| RedisServer {
                server: &one.server,
                // Only those that take writes are looked at.
                role: "master",
                used_bytes: one.used_bytes,
                max_bytes: one.max_bytes,
                evicted_keys: one.evicted_keys,
            })
            .collect(),
    }
}

fn state(health: &Health) -> State<'_> {
    let (state, reason) = match health {
        Health::Up => ("up", None),
        Health::Degraded(reason) => ("degraded", Some(reason.as_str())),
        Health::Down(reason) => ("down", Some(reason.as_str())),
    };
    State { state, reason }
}

fn store<'a>(health: &'a Health, figures: &StoreFigures) -> Store<'a> {
    Store {
        state: state(health),
        bytes: figures.bytes,
        queued_writes: figures.queued_writes,
        commits: figures.commits,
        writes: figures.writes,
        failures: figures.failures,
        history_channels: figures.history_channels,
        history_events: figures.history_events,
    }
}

/// Messages a minute since the start, to two decimals, and `0` rather than `0.0`. The first minute
/// counts as a whole one: a single message after a second is not sixty a minute.
fn per_minute(messages: u64, uptime_ms: u64) -> serde_json::Number {
    let average = messages as f64 * 60_000.0 / uptime_ms.max(60_000) as f64;
    let rounded = (average * 100.0).round() / 100.0;
    if rounded.fract() == 0.0 {
        serde_json::Number::from(rounded as u64)
    } else {
        serde_json::Number::from_f64(rounded).unwrap_or_else(|| 0.into())
    }
}

/// Numbers under names as a JSON object, in the given order.
struct Map<'a>(&'a [(String, u64)]);

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, count)| (name, count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_server_looks_as_the_predecessor_did() {
        let text = stats(&Snapshot::default());
        assert!(
            text.starts_with(concat!(
                r#"{"totalConnections":0,"activeConnections":0,"totalMessages":0,"authFailures":0,"#,
                r#""errors":0,"uptime":"0h 0m","connectionsByChannel":{},"messagesByType":{},"#,
                r#""averageMessagesPerMinute":0,"server":{"version":"#
            )),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 10);
    }

    #[test]
    fn averages_and_uptimes() {
        assert_eq!(per_minute(7, 1_000).to_string(), "7");
        assert_eq!(per_minute(7, 180_000).to_string(), "2.33");
        assert_eq!(per_minute(0, u64::MAX).to_string(), "0");
        assert_eq!(uptime(59_999), "0h 0m");
        assert_eq!(uptime(93_784_000), "26h 3m");
    }

    #[test]
    fn what_is_wrong_has_its_reason() {
        let snapshot = Snapshot {
            broker: Health::Down("no \"route\"".into()),
            store: Health::Degraded("nearly full".into()),
            closes: vec![("4102 too slow".into(), 3)],
            auth_failures: vec![("expired".into(), 2), ("origin".into(), 1)],
            connections_opened: 3,
            connections_closed: 5,
            ..Snapshot::default()
        };
        let value: serde_json::Value = serde_json::from_str(&stats(&snapshot)).unwrap();
        assert_eq!(value["activeConnections"], 0);
        assert_eq!(value["authFailures"], 3);
        let server = &value["server"];
        assert_eq!(
            server["broker"],
            serde_json::json!({"state":"down","reason":"no \"route\""})
        );
        assert_eq!(server["store"]["state"], "degraded");
        assert_eq!(server["closesByReason"]["4102 too slow"], 3);
        assert_eq!(server["authFailuresByCheck"]["origin"], 1);
    }
}
