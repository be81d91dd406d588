//! The configuration that tests of handlers share; routes against their description.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::broker::Retention;
use crate::config::{
    Access, AllowedOrigins, Auth, Backend, Broker, ChannelRule, ChannelRules, Durability, Limits,
    Logs, Metrics, Redis, Secret, Server, Slow, WalletProof,
};

/// Channels `notifications` (with history) and `post` (without); the default limits.
pub fn config() -> Config {
    let rule = |history| ChannelRule {
        subscribe: Access::Any,
        publish: Access::None,
        history,
        presence: false,
        join_leave: false,
        slow: Slow::Close,
    };
    let history = Some(Retention {
        entries: 100,
        ttl: Duration::from_secs(86_400),
        durability: Durability::Commit,
    });
    Config {
        dev: false,
        server: Server {
            listen: ([127, 0, 0, 1], 0).into(),
            workers: 1,
            public_url: String::new(),
            allowed_origins: AllowedOrigins::SameHostAnd(Vec::new()),
            trusted_proxies: Vec::new(),
            shutdown_grace: Duration::from_secs(10),
            test_page: false,
            tls: None,
        },
        data_dir: "data".into(),
        control_socket: None,
        alerts: crate::config::Alerts::default(),
        canary: None,
        traces: None,
        auth: Auth {
            secret: None,
            issuer: "fonana.me".into(),
            audience: "fonana-websocket".into(),
            token_ttl: crate::config::TokenTtl::One(Duration::from_secs(1_800)),
            refresh_ttl: Duration::from_secs(86_400),
            refresh_ttl_max: Duration::from_secs(86_400),
            statement: "Sign in.".into(),
            solana_chain: "mainnet",
            ethereum_chain: 1,
            revocation_ttl: Duration::from_secs(86_400),
            refresh_grace: Duration::from_secs(10),
            wallet_proof: WalletProof::None,
            auto_provision: true,
            legacy_wallet_identity: false,
            previous_secret: None,
            keys: Vec::new(),
            signing_key: None,
            issuers: Vec::new(),
            api_keys: Vec::new(),
        },
        broker: Broker {
            backend: Backend::Embedded,
            redis: Redis {
                url: Secret::new(*b"redis://127.0.0.1"),
                pubsub_url: None,
                prefix: "ws:".into(),
                authorities: None,
                wait_replicas: 0,
                wait_timeout: Duration::from_secs(1),
            },
        },
        metrics: Metrics {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            tokens: Vec::new(),
        },
        logs: Logs {
            dir: "logs".into(),
            keep_days: 14,
            day_bytes: u64::MAX,
            free_bytes: 0,
            level: "info".into(),
        },
        console_interval: None,
        channels: ChannelRules(BTreeMap::from([
            ("notifications".to_owned(), rule(history)),
            ("post".to_owned(), rule(None)),
        ])),
        access_backend: None,
        limits: Limits {
            connections: usize::MAX,
            connections_per_user: 64,
            connections_per_address: 256,
            accepts_per_second: 2_000,
            sign_in_per_minute: 10,
            requests_per_second: 50,
            commands_per_second: 50,
            dry_run: false,
            message_bytes: 65_536,
            event_bytes: 65_536,
            body_bytes: 1 << 20,
            channels_per_connection: 128,
            channel_key_bytes: 255,
            queue_bytes: 1 << 20,
            queue_age: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            notifications_per_user: 1_000,
            store_bytes: 1 << 30,
            history_bytes: 256 << 20,
        },
    }
}

fn document() -> Value {
    serde_json::from_str(status::OPENAPI).expect("openapi.json is JSON")
}

#[test]
fn everything_served_is_described_and_nothing_else() {
    let served: BTreeSet<String> = routes::TABLE
        .iter()
        .flat_map(|row| {
            row.methods
                .iter()
                .map(|method| format!("{} {}", method.as_str().to_lowercase(), row.pattern))
        })
        .collect();
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods
                .filter(|name| *name != "parameters")
                .map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(served, described);
}

#[test]
fn the_description_refers_only_to_what_it_has() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.push(target.clone());
                }
                members
                    .values()
                    .for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            assert!(
                operation["responses"]
                    .as_object()
                    .is_some_and(|r| !r.is_empty())
            );
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{id} twice");
        }
    }
}

#[test]
fn labels_have_nothing_from_outside() {
    let odd = Method::from_bytes(b"BREW").unwrap();
    assert_eq!((known(&odd), known(&Method::GET)), ("OTHER", "GET"));
}
