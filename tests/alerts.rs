//! Alerts of the server about itself, and its canary: told to the log, the metrics and a webhook.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::redis::RedisServer;
use support::{Application, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
const KEY: &str = "a key of the webhook alone, longer than 32 bytes";

fn fires(server: &Server, alert: &str) -> bool {
    let page = server.metrics("/metrics").expect(200);
    let line = format!("fanfare_alert_firing{{alert=\"{alert}\"}} 1");
    page.text().lines().any(|known| known == line)
}

fn told(server: &Server, message: &str, alert: &str) -> usize {
    let mut lines = server.event_log();
    lines.retain(|line| line["data"]["message"] == message && line["data"]["reason"] == alert);
    lines.len()
}

#[test]
fn many_refusals_are_told_once_and_again_until_the_webhook_has_it() {
    let webhook = Application::start("{}");
    webhook.answer(500, "not now");
    let server = Server::start_with(
        &[
            ("alerts.auth_failures_per_minute", "5"),
            ("alerts.webhook_url", &webhook.url()),
        ],
        &[("FANFARE_ALERTS__WEBHOOK_SECRET", KEY)],
    );
    for _ in 0..20 {
        let bad = [("Authorization", "Bearer nonsense")];
        server
            .http("GET", "/api/auth/wallet", &bad, b"")
            .expect(401);
    }
    eventually("the alert", PATIENCE, || fires(&server, "auth_failures"));
    eventually("the first attempt", PATIENCE, || {
        !webhook.asked().is_empty()
    });
    webhook.answer(200, "{}");
    eventually("a second attempt", PATIENCE, || webhook.asked().len() >= 2);
    let asked = webhook.asked();
    let alert = asked[1].json();
    assert_eq!(asked[0].json()["id"], alert["id"], "the same one");
    assert_eq!(
        (&alert["type"], &alert["alert"], &alert["state"]),
        (&json!("alert"), &json!("auth_failures"), &json!("firing"))
    );
    assert!(alert["value"].as_f64().unwrap() >= 5.0, "{alert}");
    assert!(asked[1].header("x-fanfare-signature").starts_with("t="));
    assert_eq!(told(&server, "alert firing", "auth_failures"), 1);
    let stats = server.stats();
    assert_eq!(stats["server"]["alerts"], json!(["auth_failures"]));
}

#[test]
fn the_canary_measures_what_a_user_would_see() {
    let server = Server::start(&[
        ("alerts.canary_interval", "1s"),
        ("alerts.canary_latency", "0s"),
    ]);
    let rounds = || {
        server.stats()["server"]["canary"]["rounds"]
            .as_u64()
            .unwrap()
    };
    eventually("two rounds", PATIENCE, || rounds() >= 2);
    let canary = server.stats()["server"]["canary"].clone();
    assert_eq!(canary["failures"], 0, "{canary}");
    assert!(canary["latencyMs"].as_f64().unwrap() > 0.0, "{canary}");
    server.http("GET", "/ready", &[], b"").expect(200);
}

#[test]
fn over_tls_the_canary_sings_and_the_end_of_the_certificate_is_seen_coming() {
    // The certificate is good for thirty days.
    let server = Server::start_tls(
        "[auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
         [alerts]\ncanary_interval = \"1s\"\ncertificate = \"60d\"\n",
    );
    eventually("the alert", PATIENCE, || {
        fires(&server, "certificate_expiring")
    });
    let canary = || server.stats()["server"]["canary"].clone();
    eventually("a round", PATIENCE, || canary()["rounds"] != 0);
    assert_eq!(canary()["failures"], 0, "{}", canary());
}

#[test]
fn a_canary_that_nobody_hears_makes_the_server_unready() {
    // Nobody may open a socket from this address any more, the canary included.
    let server = Server::start(&[
        ("alerts.canary_interval", "1s"),
        ("alerts.canary_latency", "1s"),
        ("limits.connections_per_address", "1"),
    ]);
    let _only = server.connect("ann");
    eventually("not ready", PATIENCE, || {
        let reply = server.http("GET", "/ready", &[], b"");
        reply.status == 503
    });
    let reply = server.http("GET", "/ready", &[], b"").expect(503);
    assert!(
        reply.json()["checks"]["canary"].is_string(),
        "{}",
        reply.text()
    );
    eventually("the alert", PATIENCE, || fires(&server, "canary_slow"));
}

#[test]
fn an_alert_ends_when_all_has_been_well_for_a_while() {
    // An empty store takes a quarter of a mebibyte.
    let with = |percent: u32| {
        format!(
            "[auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n[limits]\nstore_bytes = \"1MiB\"\n\
             [alerts]\nclear_after = \"1s\"\nstore_percent = {percent}\n"
        )
    };
    let server = Server::start_from(&with(10));
    let alert = "store_nearly_full";
    eventually("the alert", PATIENCE, || fires(&server, alert));
    server.write_config(&with(99));
    server.signal(rustix::process::Signal::HUP);
    eventually("the end", PATIENCE, || !fires(&server, alert));
    eventually("the line of the log", PATIENCE, || {
        told(&server, "alert resolved", alert) == 1
    });
}

#[test]
fn a_redis_that_fills_up_and_one_that_is_gone_are_told() {
    let mut redis = RedisServer::start(&[]);
    let server = Server::start(&[
        ("broker.backend", "redis"),
        ("broker.redis.url", &redis.url()),
        ("alerts.broker_down", "1s"),
        ("alerts.clear_after", "0s"),
    ]);
    // An empty one takes about a mebibyte.
    redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    eventually("the alert", PATIENCE, || {
        fires(&server, "store_nearly_full")
    });
    redis.command(&["CONFIG", "SET", "maxmemory", "1gb"]);
    eventually("its end", PATIENCE, || !fires(&server, "store_nearly_full"));
    assert!(!fires(&server, "broker_down"));
    redis.kill();
    eventually("the alert", PATIENCE, || fires(&server, "broker_down"));
    redis.restart();
    eventually("its end", PATIENCE, || !fires(&server, "broker_down"));
}
