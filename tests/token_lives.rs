//! A trial of several lives of tokens: `auth.token_ttl` with weights.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::{Dice, Server, eventually};

const WALLET: &str = "/api/auth/wallet";

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// `fanfare_token_variants_total` by variant and event.
fn counted(server: &Server) -> BTreeMap<(String, String), u64> {
    let metrics = server.metrics("/metrics").expect(200);
    let lines = metrics.text().lines();
    let found = lines.filter_map(|line| {
        let rest = line.strip_prefix("fanfare_token_variants_total{")?;
        let (labels, count) = rest.split_once("} ")?;
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        Some(((label("variant")?, label("event")?), count.parse().unwrap()))
    });
    found.collect()
}

#[test]
fn a_user_always_falls_into_the_same_variant_and_what_happens_is_counted() {
    let settings = [("auth.token_ttl", "20m:1, 7m:1")];
    let (one, other) = (Server::start(&settings), Server::start(&settings));
    let mut dice = Dice::from_environment();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for nth in 0..24 {
        let wallet = dice.wallet();
        let user = json!({"id": format!("user-{nth}"), "wallet": wallet});
        let mut variants = Vec::new();
        for server in [&one, &other, &one] {
            server.as_backend("PUT", "/api/users", &user).expect(200);
            let body = json!({"wallet": wallet});
            let issued = server.json("POST", WALLET, &[], &body).expect(200).json();
            let claims = claims(issued["token"].as_str().unwrap());
            let variant = claims["variant"].as_str().unwrap().to_owned();
            assert_eq!(issued["expiresIn"].as_str().unwrap(), variant);
            let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
            assert_eq!(life, if variant == "20m" { 1_200 } else { 420 });
            variants.push(variant);
        }
        assert!(variants.iter().all(|variant| *variant == variants[0]));
        *seen.entry(variants.remove(0)).or_default() += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    for (variant, users) in seen {
        let key = (variant, "issued".to_owned());
        assert_eq!(counted(&one)[&key], 2 * users);
    }
}

#[test]
fn refreshes_expiries_and_failures_are_counted_by_variant() {
    let server = Server::start(&[("auth.token_ttl", "20m:1, 7m:1")]);
    let count = |event: &str| {
        let key = ("7m".to_owned(), event.to_owned());
        counted(&server).get(&key).copied().unwrap_or(0)
    };
    let with = |variant: &str, seconds: i64| {
        let mut claims = server.claims("u1");
        claims["variant"] = json!(variant);
        claims["exp"] = json!(claims["iat"].as_i64().unwrap() + seconds);
        server.token_with(&claims)
    };
    let mut client = server
        .connect_with(&format!("/ws?token={}", with("7m", 60)), &[])
        .unwrap()
        .greeted();
    client.send(&json!({"type": "refresh", "token": with("7m", 7)}));
    client.next_of("refreshed");
    client.set_patience(Duration::from_secs(20));
    assert_eq!((count("refreshes"), count("expiries")), (1, 0));
    client.expect_disconnect(4101, "token expired");
    eventually("the expiry is counted", Duration::from_secs(5), || {
        count("expiries") == 1
    });
    let bearer = format!("Bearer {}", with("7m", -5));
    let reply = server.http("GET", WALLET, &[("Authorization", &bearer)], "");
    assert_eq!(reply.expect(401).json()["error"], "Token expired");
    assert_eq!(count("auth_failures"), 1);
    // Whoever signs tokens cannot make up series of ours.
    let bearer = format!("Bearer {}", with("made up", -5));
    server
        .http("GET", WALLET, &[("Authorization", &bearer)], "")
        .expect(401);
    let forged = format!("Bearer {}x", with("7m", 60));
    server
        .http("GET", WALLET, &[("Authorization", &forged)], "")
        .expect(401);
    assert_eq!(count("auth_failures"), 1);
    assert!(
        counted(&server)
            .keys()
            .all(|(variant, _)| variant == "7m" || variant == "20m")
    );
}

#[test]
fn without_a_trial_there_is_no_variant() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let body = json!({"wallet": wallet});
    let issued = server.json("POST", WALLET, &[], &body).expect(200).json();
    assert_eq!(
        claims(issued["token"].as_str().unwrap()).get("variant"),
        None
    );
    assert!(counted(&server).is_empty());
}
