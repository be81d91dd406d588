//! Every key, changed while a server runs: it is in force afterwards, or named as one that needs a restart.

use std::collections::BTreeSet;

use super::*;

/// A value that is another one than the default, for every key of the manual. Secrets, and what is of use
/// only together, have tests of their own below.
const CHANGES: &[(&str, &str)] = &[
    ("data_dir", "elsewhere"),
    ("server.listen", "127.0.0.1:3003"),
    ("server.workers", "3"),
    ("server.public_url", "https://rt.example.com"),
    ("server.allowed_origins", "https://example.com"),
    ("server.trusted_proxies", "10.0.0.0/8"),
    ("server.shutdown_grace", "3s"),
    ("server.test_page", "true"),
    ("auth.issuer", "me"),
    ("auth.audience", "you"),
    ("auth.token_ttl", "31m"),
    ("auth.refresh_ttl", "31d"),
    ("auth.refresh_ttl_max", "91d"),
    ("auth.refresh_grace", "11s"),
    ("auth.revocation_ttl", "91d"),
    ("auth.wallet_proof", "none"),
    ("auth.statement", "Come in."),
    ("auth.solana_chain", "devnet"),
    ("auth.ethereum_chain", "5"),
    ("auth.auto_provision", "false"),
    ("auth.legacy_wallet_identity", "true"),
    ("broker.backend", "redis"),
    ("broker.redis.prefix", "x:"),
    ("broker.redis.wait_replicas", "1"),
    ("broker.redis.wait_timeout", "20ms"),
    ("control.socket", "/run/other.sock"),
    ("alerts.auth_failures_per_minute", "7"),
    ("alerts.queue_percent", "7"),
    ("alerts.store_percent", "7"),
    ("alerts.broker_down", "7s"),
    ("alerts.certificate", "7d"),
    ("alerts.canary_latency", "2s"),
    ("alerts.clear_after", "7s"),
    ("alerts.webhook_url", "https://example.com/hook"),
    ("alerts.canary_interval", "7s"),
    ("metrics.listen", "127.0.0.1:9091"),
    ("logs.dir", "elsewhere"),
    ("logs.keep_days", "7"),
    ("logs.day_bytes", "7MiB"),
    ("logs.free_bytes", "7MiB"),
    ("logs.level", "warn"),
    ("stats.console_interval", "7s"),
    ("traces.otlp_url", "http://127.0.0.1:4318"),
    ("channels.post.subscribe", "token"),
    ("channels.post.publish", "any"),
    ("channels.post.history", "7"),
    ("channels.post.history_ttl", "7h"),
    ("channels.post.durability", "relaxed"),
    ("channels.post.presence", "true"),
    ("channels.post.slow", "drop_oldest"),
    ("limits.connections", "7"),
    ("limits.connections_per_user", "7"),
    ("limits.connections_per_address", "7"),
    ("limits.accepts_per_second", "7"),
    ("limits.sign_in_per_minute", "7"),
    ("limits.requests_per_second", "7"),
    ("limits.commands_per_second", "7"),
    ("limits.dry_run", "true"),
    ("limits.message_bytes", "7KiB"),
    ("limits.event_bytes", "7KiB"),
    ("limits.body_bytes", "7KiB"),
    ("limits.channels_per_connection", "7"),
    ("limits.channel_key_bytes", "77"),
    ("limits.queue_bytes", "7KiB"),
    ("limits.queue_age", "7s"),
    ("limits.header_timeout", "7s"),
    ("limits.body_timeout", "7s"),
    ("limits.notifications_per_user", "7"),
    ("limits.store_bytes", "7MiB"),
    ("limits.history_bytes", "7MiB"),
];

/// Of a secret or a file only the content counts, or it has to stand beside another key.
/// `tests/reload.rs` changes them in a running server.
const ELSEWHERE: &[&str] = &[
    "server.tls.cert",
    "server.tls.key",
    "metrics.tls.cert",
    "metrics.tls.key",
    "auth.secret",
    "auth.secret_file",
    "auth.previous_secret",
    "auth.previous_secret_file",
    "auth.previous_until",
    "auth.signing_key",
    "auth.api_keys",
    "auth.api_keys_file",
    "broker.redis.url",
    "broker.redis.url_file",
    "broker.redis.pubsub_url",
    "broker.redis.pubsub_url_file",
    "broker.redis.ca_file",
    "outgoing.ca_file",
    "alerts.webhook_secret",
    "alerts.webhook_secret_file",
    "metrics.token",
    "metrics.token_file",
    "traces.headers",
    "traces.headers_file",
    "traces.service_name",
    "traces.sample",
    "traces.per_second",
    "channels.backend.url",
    "channels.backend.secret",
    "channels.backend.secret_file",
    "channels.backend.timeout",
    "channels.backend.cache_ttl",
    "channels.post.join_leave",
];

#[test]
fn every_key_is_in_force_at_once_or_named_as_one_that_needs_a_restart() {
    let before = inspect(&Sources::default()).unwrap();
    let in_force = |config: &Config| format!("{config:?}");
    for (key, value) in CHANGES {
        let sources = Sources {
            flags: vec![set(key, value)],
            ..Sources::default()
        };
        let after = inspect(&sources).unwrap_or_else(|mistakes| panic!("{key}: {mistakes}"));
        let (loaded, Difference(changes)) = after.over(&before.config, &before.changed);
        assert_eq!(changes.len(), 1, "{key}: {changes:?}");
        let needs_restart = changes[0].needs_restart;
        let is_changed = in_force(&loaded.config) != in_force(&before.config);
        assert_ne!(is_changed, needs_restart, "{key}");
        let is_fixed = key.starts_with("broker.")
            || [
                "data_dir",
                "server.listen",
                "server.workers",
                "metrics.listen",
                "control.socket",
            ]
            .contains(key);
        assert_eq!(needs_restart, is_fixed, "{key}");
    }
}

#[test]
fn no_key_is_forgotten() {
    let all: BTreeSet<String> = keys::defaults().values.into_keys().collect();
    let looked_at: BTreeSet<&str> = CHANGES
        .iter()
        .map(|(key, _)| *key)
        .chain(ELSEWHERE.iter().copied())
        .collect();
    let is_other_type = |key: &str| {
        ["notifications", "feed", "creator"]
            .iter()
            .any(|kind| key.starts_with(&format!("channels.{kind}.")))
    };
    let forgotten: Vec<&String> = all
        .iter()
        .filter(|key| !is_other_type(key) && !looked_at.contains(key.as_str()))
        .collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}
