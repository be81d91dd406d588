//! `GET /metrics`: the Prometheus text format 0.0.4.
//!
//! Names begin with `fanfare_`, units are seconds and bytes. No label has values that clients choose:
//! what is not in a table of ours is `other`. Nothing is per channel or per user.

mod page;
mod redis;

use prometheus::TEXT_FORMAT;

use crate::broker::Health;
use crate::event_log::Loss;
use crate::metrics::{ALERTS, Snapshot};
use crate::protocol::Close;
use page::{Page, Series, bounded, series};

/// The media type of [`metrics`].
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// The commands of the protocol: the message types that have a series of their own.
const COMMANDS: [&str; 7] = [
    "history",
    "ping",
    "presence",
    "publish",
    "refresh",
    "subscribe",
    "unsubscribe",
];

/// The methods of HTTP that have a series of their own.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// What becomes of questions of the rule `backend`; `opened` is when everything begins to be denied.
const ACCESS_OUTCOMES: [&str; 9] = [
    "allowed",
    "cached",
    "denied",
    "failed",
    "open",
    "opened",
    "overloaded",
    "shared",
    "timeout",
];

const OTHER: &str = "other";

/// The text.
pub fn metrics(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    about_the_process(snapshot, &mut page);
    about_sockets(snapshot, &mut page);
    about_requests(snapshot, &mut page);
    about_the_backend(snapshot, &mut page);
    about_alerts(snapshot, &mut page);
    if let Some(redis) = &snapshot.redis {
        redis::about_redis(redis, &mut page);
    }
    page.text()
}

fn about_the_process(s: &Snapshot, page: &mut Page) {
    let build = vec![series([("version", s.version), ("node", &*s.node)], 1.0)];
    page.gauges(
        "build_info",
        "The version that runs, and the name of the node.",
        build,
    );
    page.gauge(
        "draining",
        "Whether the server is stopping.",
        u8::from(s.draining),
    );
    page.gauge(
        "process_start_time_seconds",
        "When the process started, since the Unix epoch.",
        s.started_unix_ms as f64 / 1e3,
    );
    let process = &s.process;
    page.counter(
        "process_cpu_seconds_total",
        "User and system time of all threads.",
        process.cpu_seconds,
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Memory that is really there.",
        process.resident_bytes as f64,
    );
    page.gauge(
        "process_virtual_memory_bytes",
        "Address space.",
        process.virtual_bytes as f64,
    );
    page.gauge(
        "process_open_fds",
        "Open file descriptors.",
        process.open_fds as f64,
    );
    page.gauge(
        "process_max_fds",
        "File descriptors that the process may open.",
        process.max_fds.map_or(f64::INFINITY, |most| most as f64),
    );
    page.gauge("process_threads", "Threads.", process.threads as f64);
    page.counter(
        "event_log_lines_total",
        "Lines written to the event log.",
        s.event_log.written_lines as f64,
    );
    let losses =
        Loss::ALL.map(|why| series([("reason", why.name())], s.event_log.lost(why) as f64));
    page.counters(
        "event_log_dropped_lines_total",
        "Lines the event log lost: its queue or its day was full, the disk had too little left or refused them.",
        losses.into(),
    );
    page.counter(
        "event_log_io_errors_total",
        "Failed opens, writes, compressions and deletions of the event log.",
        s.event_log.io_errors as f64,
    );
}

fn about_sockets(s: &Snapshot, page: &mut Page) {
    page.gauge(
        "connections",
        "Authenticated connections that are open: WebSockets and event streams.",
        s.active_connections() as f64,
    );
    page.gauge(
        "event_streams",
        "Streams of server-sent events among them.",
        s.event_streams as f64,
    );
    page.gauge(
        "connections_max",
        "Connections that there may be; 0: any number.",
        s.bounds.connections as f64,
    );
    page.counter(
        "connections_opened_total",
        "Connections that were authenticated.",
        s.connections_opened as f64,
    );
    page.counter(
        "connections_closed_total",
        "Authenticated connections that ended.",
        s.connections_closed as f64,
    );
    let closes = bounded(&s.closes, |name| {
        Close::ALL
            .iter()
            .find(|close| format!("{} {}", close.code(), close.reason()) == name)
            .map_or(
                [("code", OTHER.into()), ("reason", OTHER.into())],
                |close| {
                    [
                        ("code", close.code().to_string()),
                        ("reason", close.reason().into()),
                    ]
                },
            )
    });
    page.counters("closes_total", "Closed connections by close code.", closes);
    page.gauge(
        "channels",
        "Channels with subscribers on this node.",
        s.channel_count as f64,
    );
    page.gauge(
        "subscriptions",
        "Subscriptions on this node.",
        s.subscriptions as f64,
    );
    let messages = bounded(&s.messages_by_type, |name| {
        [("type", known(name, &COMMANDS))]
    });
    page.counters("messages_total", "Messages that clients sent.", messages);
    page.counter(
        "error_replies_total",
        "Error replies to clients.",
        s.error_replies as f64,
    );
    page.counter(
        "received_bytes_total",
        "Bytes read from WebSockets and event streams.",
        s.received_bytes as f64,
    );
    page.counter(
        "sent_bytes_total",
        "Bytes written to WebSockets and event streams.",
        s.sent_bytes as f64,
    );
    page.counter(
        "writes_total",
        "Write calls that carried them.",
        s.writes as f64,
    );
    page.counter(
        "deliveries_total",
        "Events put into the queues of connections.",
        s.deliveries as f64,
    );
    page.histograms(
        "delivery_seconds",
        "From an event's publication on this node, or its arrival from Redis, until it was written to the sockets of a worker that wait for it: once for each worker.",
        vec![(Vec::new(), &s.delivery)],
    );
    page.counter(
        "dropped_events_total",
        "Events dropped from the queues of slow connections, by the rule of their channel.",
        s.dropped as f64,
    );
    page.counter(
        "gaps_total",
        "Events that did not fit into a worker's mailbox.",
        s.gaps as f64,
    );
    page.counter(
        "worker_turns_total",
        "Turns of all workers.",
        s.turns as f64,
    );
    let queues = s.queues.iter().enumerate();
    let queues =
        queues.map(|(worker, waiting)| series([("worker", worker.to_string())], *waiting as f64));
    page.gauges(
        "worker_queue_events",
        "Events in each worker's mailbox.",
        queues.collect(),
    );
}

fn about_requests(s: &Snapshot, page: &mut Page) {
    let responses = bounded(&s.http_responses, |name| {
        let mut parts = name.split(' ');
        let mut next = || parts.next().unwrap_or(OTHER);
        let (method, route, status) = (next(), next(), next());
        [
            ("method", known(method, &METHODS)),
            ("route", route.to_string()),
            ("status", status.to_string()),
        ]
    });
    page.counters(
        "http_responses_total",
        "HTTP responses by route.",
        responses,
    );
    let checks = bounded(&s.auth_failures, |check| [("check", check.to_string())]);
    page.counters(
        "auth_failures_total",
        "Refused tokens, keys and origins by the check that failed.",
        checks,
    );
    let limits = bounded(&s.limited, |limit| [("limit", limit.to_string())]);
    page.counters(
        "limited_total",
        "Requests and sockets refused by a limit.",
        limits,
    );
    let limits = bounded(&s.would_limit, |limit| [("limit", limit.to_string())]);
    page.counters(
        "would_limit_total",
        "What a limit would have refused, had limits.dry_run not been on.",
        limits,
    );
    page.counter(
        "tokens_issued_total",
        "Tokens issued.",
        s.tokens_issued as f64,
    );
    let variants = bounded(&s.token_variants, |name| {
        let (variant, event) = name.split_once(' ').unwrap_or((OTHER, OTHER));
        [
            ("variant", variant.to_string()),
            ("event", event.to_string()),
        ]
    });
    page.counters(
        "token_variants_total",
        "Tokens of each life that auth.token_ttl lists: issued, refreshes, expiries, auth_failures.",
        variants,
    );
    page.counter(
        "tokens_revoked_total",
        "Revocations of tokens, families and users.",
        s.tokens_revoked as f64,
    );
    let publications = bounded(&s.publications, |source| [("source", source.to_string())]);
    page.counters("publications_total", "Events published.", publications);
    page.counter(
        "notifications_total",
        "Notifications created.",
        s.notifications as f64,
    );
    let outcomes = bounded(&s.access_backend, |outcome| {
        [("outcome", known(outcome, &ACCESS_OUTCOMES))]
    });
    page.counters(
        "access_backend_total",
        "What became of questions to the application whether a client may subscribe or publish.",
        outcomes,
    );
    let outcomes = bounded(&s.handshakes, |outcome| [("outcome", outcome.to_string())]);
    page.counters(
        "tls_handshakes_total",
        "TLS handshakes on server.listen.",
        outcomes,
    );
    let ends = s.certificates.iter().map(|(listener, not_after_ms)| {
        series([("listener", *listener)], *not_after_ms as f64 / 1_000.0)
    });
    page.gauges(
        "tls_certificate_not_after_seconds",
        "When the certificate of a listener ends, in seconds since 1970.",
        ends.collect(),
    );
    let outcomes = bounded(&s.reloads, |outcome| [("outcome", outcome.to_string())]);
    page.counters(
        "reloads_total",
        "Readings of the configuration while the server ran.",
        outcomes,
    );
    let outcomes = bounded(&s.key_fetches, |outcome| {
        [("outcome", known(outcome, &["failed", "fetched"]))]
    });
    page.counters(
        "key_fetches_total",
        "Fetches of the keys that other issuers publish.",
        outcomes,
    );
    let outcomes = s
        .spans
        .map(|(outcome, count)| series([("outcome", outcome)], count as f64));
    page.counters(
        "trace_spans_total",
        "Spans by what became of them: the receiver took them or did not, or the queue was full.",
        outcomes.into(),
    );
    page.counter(
        "errors_total",
        "Faults of the server itself.",
        s.errors as f64,
    );
}

fn about_the_backend(s: &Snapshot, page: &mut Page) {
    const STATE: &str = "1 for the state it is in: up, degraded or down.";
    page.gauges("broker_state", STATE, states(&s.broker));
    page.gauges("store_state", STATE, states(&s.store));
    let store = &s.store_figures;
    page.gauge(
        "store_bytes",
        "Bytes that count against the limit.",
        store.bytes as f64,
    );
    page.gauge(
        "store_max_bytes",
        "The limit; 0: none.",
        s.bounds.store_bytes as f64,
    );
    page.gauge(
        "store_queued_writes",
        "Writes waiting to be committed.",
        store.queued_writes as f64,
    );
    page.counter("store_commits_total", "Commits.", store.commits as f64);
    page.counter(
        "store_writes_total",
        "Committed writes.",
        store.writes as f64,
    );
    page.counter(
        "store_write_failures_total",
        "Failed writes.",
        store.failures as f64,
    );
    page.gauge(
        "history_channels",
        "Channels that have history.",
        store.history_channels as f64,
    );
    page.gauge(
        "history_events",
        "Events in all histories.",
        store.history_events as f64,
    );
}

fn about_alerts(s: &Snapshot, page: &mut Page) {
    let firing = ALERTS.map(|alert| {
        let fires = s.alerts.contains(alert);
        series([("alert", alert)], f64::from(u8::from(fires)))
    });
    page.gauges("alert_firing", "1 for an alert that fires.", firing.into());
    if let Some(latency_ms) = s.canary_latency_ms {
        page.gauge(
            "canary_latency_seconds",
            "The last round trip of the server's own client.",
            latency_ms / 1e3,
        );
    }
    page.counter(
        "canary_rounds_total",
        "Round trips of the server's own client.",
        s.canary_rounds as f64,
    );
    page.counter(
        "canary_failures_total",
        "Round trips that did not come to an end.",
        s.canary_failures as f64,
    );
}

fn states(health: &Health) -> Vec<Series> {
    let now = match health {
        Health::Up => "up",
        Health::Degraded(_) => "degraded",
        Health::Down(_) => "down",
    };
    ["up", "degraded", "down"]
        .map(|state| series([("state", state)], f64::from(u8::from(state == now))))
        .into()
}

fn known(name: &str, table: &[&str]) -> String {
    String::from(if table.contains(&name) { name } else { OTHER })
}
