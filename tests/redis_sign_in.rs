//! Signing in on several nodes that share a Redis: what one node gave, another takes; what one takes
//! back, no other believes; and the limits are one. Contract sections 2 and 6.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share
#![allow(
    clippy::disallowed_methods,
    reason = "the test of processes waits in real time"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::redis::{Redis, RedisServer, Topology, on_every_redis};
use support::{Client, Dice, EthereumWallet, Reply, Server, SolanaWallet};
use support::{eventually, within_a_second};

on_every_redis! {
    a_sign_in_goes_on_from_node_to_node
    what_one_node_takes_back_closes_the_sockets_of_the_other_within_a_second
    an_address_and_a_wallet_have_one_budget_on_all_nodes
}

const NODES: usize = 2;

fn nodes(redis: &Redis, settings: &[(&str, &str)]) -> [Server; NODES] {
    let common = [
        ("server.public_url", "https://fonana.me"),
        ("auth.wallet_proof", "signature"),
        ("auth.refresh_grace", "0s"),
    ];
    let settings = [&redis.settings()[..], &common, settings].concat();
    std::array::from_fn(|_| Server::start(&settings))
}

fn post(server: &Server, path: &str, body: &Value) -> Reply {
    server.json("POST", path, &[], body)
}

/// A challenge of one node, signed and shown to another.
fn sign_in(gives: &Server, takes: &Server, address: &str, sign: impl Fn(&str) -> String) -> Reply {
    let challenge = post(gives, "/api/auth/challenge", &json!({"wallet": address}));
    let challenge = challenge.expect(200).json();
    let message = challenge["message"].as_str().unwrap();
    let body = json!({"wallet": address, "message": message, "signature": sign(message)});
    let reply = post(takes, "/api/auth/wallet", &body);
    // Nowhere a second time.
    for server in [gives, takes] {
        let again = post(server, "/api/auth/wallet", &body).expect(401).json();
        assert_eq!(again["code"], "challenge_expired");
    }
    reply
}

fn refresh(server: &Server, token: &Value) -> Reply {
    post(server, "/api/auth/refresh", &json!({"refreshToken": token}))
}

fn socket(server: &Server, token: &Value) -> Client {
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    server
        .connect_with("/ws", &[("Authorization", &bearer)])
        .unwrap()
        .greeted()
}

fn verified(server: &Server, token: &Value) -> u16 {
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let headers = [("Authorization", &*bearer)];
    server.http("GET", "/api/auth/wallet", &headers, "").status
}

fn a_sign_in_goes_on_from_node_to_node(on: Topology) {
    let redis = on.shared();
    let [one, other] = &nodes(&redis, &[]);
    let mut dice = Dice::from_environment();
    let (solana, ethereum) = (SolanaWallet::new(&mut dice), EthereumWallet::new(&mut dice));
    let address = solana.address();
    let first = sign_in(one, other, &address, |message| solana.sign_text(message));
    let first = first.expect(200).json();
    let by_ethereum = sign_in(other, one, &ethereum.address(), |message| {
        ethereum.sign_text(message)
    });
    let by_ethereum = by_ethereum.expect(200).json();
    assert_ne!(by_ethereum["user"]["id"], first["user"]["id"]);

    let second = refresh(other, &first["refreshToken"]).expect(200).json();
    let third = refresh(one, &second["refreshToken"]).expect(200).json();
    assert_eq!(third["user"], first["user"]);
    let mut bystander = socket(other, &by_ethereum["token"]);
    let sockets = [socket(one, &first["token"]), socket(other, &third["token"])];
    // A stolen token, shown to the other node, ends it on both.
    let reused = refresh(other, &first["refreshToken"]).expect(401).json();
    assert_eq!(reused["code"], "refresh_token_reused");
    for mut socket in sockets {
        socket.expect_disconnect(4300, "revoked");
    }
    for server in [one, other] {
        eventually("no token is good", Duration::from_secs(10), || {
            let tokens = [&first, &second, &third].map(|reply| &reply["token"]);
            tokens.iter().all(|token| verified(server, token) == 401)
        });
        let over = refresh(server, &third["refreshToken"]).expect(401).json();
        assert_eq!(over["code"], "refresh_token_revoked");
        assert_eq!(verified(server, &by_ethereum["token"]), 200);
    }
    bystander.send(&json!({"type": "ping"}));
    bystander.next_of("pong");
}

fn what_one_node_takes_back_closes_the_sockets_of_the_other_within_a_second(on: Topology) {
    let redis = on.shared();
    let [one, other] = &nodes(&redis, &[]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let signed_in = || {
        let sign = |message: &str| wallet.sign_text(message);
        sign_in(one, one, &wallet.address(), sign)
            .expect(200)
            .json()
    };
    for way in ["logout", "revoke", "reuse"] {
        within_a_second(way, || {
            let first = signed_in();
            let second = refresh(one, &first["refreshToken"]).expect(200).json();
            let sockets: Vec<Client> = (0..4).map(|_| socket(other, &second["token"])).collect();
            match way {
                "logout" => {
                    let body = json!({"refreshToken": second["refreshToken"]});
                    post(one, "/api/auth/logout", &body).expect(200);
                }
                "revoke" => {
                    let body = json!({"userId": first["user"]["id"]});
                    one.as_backend("POST", "/api/auth/revoke", &body)
                        .expect(200);
                }
                _ => drop(refresh(one, &first["refreshToken"]).expect(401)),
            }
            let answered = Instant::now();
            for mut socket in sockets {
                socket.expect_disconnect(4300, "revoked");
            }
            answered.elapsed()
        });
    }
}

fn an_address_and_a_wallet_have_one_budget_on_all_nodes(on: Topology) {
    let redis = on.shared();
    let servers = nodes(&redis, &[("limits.sign_in_per_minute", "6")]);
    let mut dice = Dice::from_environment();
    let wallet = dice.wallet();
    let bad = json!({"wallet": wallet, "message": "let me in", "signature": "1111"});
    let from = |nth: usize, address: &str, path: &str, body: &Value| {
        let server = &servers[nth % NODES];
        server.json("POST", path, &[("X-Forwarded-For", address)], body)
    };
    // Of an address: six from both together, and the seventh is refused by either.
    let body = json!({"wallet": dice.wallet()});
    for nth in 0..6 {
        from(nth, "203.0.113.1", "/api/auth/challenge", &body).expect(200);
    }
    for nth in 0..4 {
        let reply = from(nth, "203.0.113.1", "/api/auth/challenge", &body).expect(429);
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
        assert_eq!(reply.json()["code"], "rate_limited");
    }
    // The neighbours in its /64 are one, too.
    for nth in 0..6 {
        let neighbour = format!("2001:db8::{nth}");
        from(nth, &neighbour, "/api/auth/challenge", &body).expect(200);
    }
    from(1, "2001:db8::ffff", "/api/auth/challenge", &body).expect(429);
    from(1, "2001:db8:0:1::1", "/api/auth/challenge", &body).expect(200);

    // Of a wallet: six failures, each from another address and at the next node.
    let statuses: Vec<u16> = (0..10)
        .map(|nth| {
            let address = format!("198.51.100.{nth}");
            from(nth, &address, "/api/auth/wallet", &bad).status
        })
        .collect();
    assert_eq!(statuses[..6], [401; 6], "{statuses:?}");
    assert_eq!(statuses[6..], [429; 4], "{statuses:?}");
    // Who proves another one is let in by both.
    for (nth, server) in servers.iter().enumerate() {
        let wallet = SolanaWallet::new(&mut dice);
        let address = format!("192.0.2.{nth}");
        let headers = [("X-Forwarded-For", &*address)];
        let body = json!({"wallet": wallet.address()});
        let challenge = server.json("POST", "/api/auth/challenge", &headers, &body);
        let challenge = challenge.expect(200).json();
        let message = challenge["message"].as_str().unwrap();
        let signature = wallet.sign_text(message);
        let body = json!({"wallet": wallet.address(), "message": message, "signature": signature});
        server
            .json("POST", "/api/auth/wallet", &headers, &body)
            .expect(200);
    }
    // Budgets that are full again are nowhere.
    let mut names = Vec::new();
    for server in redis.servers() {
        let keys = server.command(&["KEYS", &format!("{}{{b:*", redis.prefix())]);
        let of_ours = keys.lines().filter(|line| line.starts_with(redis.prefix()));
        names.extend(of_ours.map(str::to_owned));
    }
    assert!(
        names.iter().any(|name| name.contains("203.0.113.1")),
        "{names:?}"
    );
    for name in names {
        let ttl = redis.command(&["PTTL", &name]);
        let ttl: i64 = ttl.trim().trim_start_matches(":").parse().unwrap();
        assert!((-2..=240_000).contains(&ttl) && ttl != -1, "{name}: {ttl}");
    }
}

#[test]
fn without_its_redis_nobody_signs_in_and_it_says_so() {
    let mut redis = RedisServer::start(&[]);
    let url = redis.url();
    let server = Server::start(&[
        ("broker.backend", "redis"),
        ("broker.redis.url", &url),
        ("server.public_url", "https://fonana.me"),
        ("auth.wallet_proof", "signature"),
    ]);
    redis.kill();
    let body = json!({"wallet": Dice::from_environment().wallet()});
    for path in ["/api/auth/challenge", "/api/auth/wallet"] {
        let reply = post(&server, path, &body).expect(503);
        assert!(reply.header("retry-after").is_some());
        assert_eq!(reply.json()["code"], "unavailable");
    }
}
