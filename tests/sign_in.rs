//! Signing in with a wallet's signature: what is signed, which signatures count, and that each counts
//! once. Contract section 2.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Dice, EthereumWallet, Reply, Server, SolanaWallet, eventually};

const URL: (&str, &str) = ("server.public_url", "https://fonana.me");
const PROOF: (&str, &str) = ("auth.wallet_proof", "signature");

const REQUIRED: &str = "Wallet signature required";
const INVALID: &str = "Invalid signature";
const OVER: &str = "Challenge expired or already used";

fn challenge(server: &Server, address: &str) -> Value {
    let body = json!({"wallet": address});
    let reply = server.json("POST", "/api/auth/challenge", &[], &body);
    reply.expect(200).json()
}

fn message(server: &Server, address: &str) -> String {
    let challenge = challenge(server, address);
    challenge["message"].as_str().unwrap().to_owned()
}

fn sign_in(server: &Server, body: &Value) -> Reply {
    server.json("POST", "/api/auth/wallet", &[], body)
}

#[track_caller]
fn is_refused(server: &Server, body: &Value, error: &str) {
    let reply = sign_in(server, body).expect(401).json();
    assert_eq!(reply["error"], error, "{body}");
}

#[track_caller]
fn is_in(server: &Server, body: &Value, address: &str) {
    let reply = sign_in(server, body).expect(200).json();
    assert_eq!(reply["success"], true);
    assert_eq!(reply["user"]["wallet"], address);
    let bearer = format!("Bearer {}", reply["token"].as_str().unwrap());
    let headers = [("Authorization", &*bearer)];
    let verified = server.http("GET", "/api/auth/wallet", &headers, "");
    assert_eq!(verified.expect(200).json()["wallet"], address);
}

#[test]
fn a_signed_challenge_is_a_sign_in_once() {
    let server = Server::start(&[PROOF, URL]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let address = wallet.address();
    let challenge = challenge(&server, &address);
    let text = |member: &str| challenge[member].as_str().unwrap();
    let input = |member: &str| challenge["input"][member].as_str().unwrap();
    let expected = format!(
        "fonana.me wants you to sign in with your Solana account:\n{address}\n\n\
         Sign in. This costs nothing and sends no transaction.\n\n\
         URI: https://fonana.me\nVersion: 1\nChain ID: mainnet\nNonce: {}\n\
         Issued At: {}\nExpiration Time: {}",
        text("nonce"),
        input("issuedAt"),
        text("expiresAt")
    );
    assert_eq!(text("message"), expected);

    let body = json!({
        "wallet": address,
        "message": expected,
        "signature": wallet.sign_text(&expected),
    });
    is_in(&server, &body, &address);
    is_refused(&server, &body, OVER);
    eventually("the line of the failure", Duration::from_secs(20), || {
        let log = server.event_log();
        let failures = log.iter().filter(|line| line["type"] == "auth_failure");
        let reasons: Vec<&Value> = failures.map(|line| &line["data"]["reason"]).collect();
        reasons == ["challenge"]
    });
}

#[test]
fn of_many_at_once_one_gets_in() {
    let server = Server::start(&[PROOF, URL]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let message = message(&server, &wallet.address());
    let signature = wallet.sign_text(&message);
    let body = json!({"wallet": wallet.address(), "message": message, "signature": signature});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| sign_in(&server, &body).status))
            .collect();
        attempts.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert!(statuses.iter().all(|status| [200, 401].contains(status)));
}

#[test]
fn what_is_not_signed_by_the_wallet_is_refused() {
    let server = Server::start(&[PROOF, URL]);
    let mut dice = Dice::from_environment();
    let (wallet, thief) = (SolanaWallet::new(&mut dice), SolanaWallet::new(&mut dice));
    let (address, other) = (wallet.address(), thief.address());
    let message = message(&server, &address);
    let good = wallet.sign_text(&message);
    let attempt = |wallet: &str, message: &str, signature: &str| json!({"wallet": wallet, "message": message, "signature": signature});
    for missing in [
        json!({"wallet": address}),
        json!({"wallet": address, "message": message}),
        json!({"wallet": address, "signature": good}),
        json!({"wallet": address, "message": "", "signature": ""}),
        json!({"wallet": address, "message": null, "signature": null}),
        json!({"wallet": address, "message": [message], "signature": good}),
    ] {
        is_refused(&server, &missing, REQUIRED);
    }
    let resigned = |from: &str, to: &str| {
        let changed = message.replacen(from, to, 1);
        assert_ne!(changed, message);
        attempt(&address, &changed, &wallet.sign_text(&changed))
    };
    for wrong in [
        attempt(&address, &message, &thief.sign_text(&message)),
        attempt(&other, &message, &good),
        attempt(&other, &message, &thief.sign_text(&message)),
        attempt(&address, &format!("{message}\n"), &good),
        attempt(&address, &message, "x"),
        attempt(&address, &message, &"1".repeat(88)),
        attempt(&address, &message, &"A".repeat(100_000)),
        // The owner signs, but something else than what was asked for.
        resigned("https://fonana.me", "https://fonana.my"),
        resigned("Expiration Time: 2", "Expiration Time: 3"),
        resigned("fonana.me wants", "evil.example wants"),
        resigned("Sign in.", "Sign up."),
        resigned(&address, &other),
        resigned("\nNonce", "\nURI: https://evil.example\nNonce"),
    ] {
        is_refused(&server, &wrong, INVALID);
    }
    // A text of the wallet's own, or one that nobody gave.
    is_refused(
        &server,
        &attempt(&address, "hello", &wallet.sign_text("hello")),
        OVER,
    );
    is_refused(&server, &resigned("Nonce: ", "Nonce: a"), OVER);
    // A wrong attempt does not use it up.
    is_in(&server, &attempt(&address, &message, &good), &address);

    // Whose key everybody has: the address of the system program.
    let nobody = "11111111111111111111111111111111";
    let message = crate::message(&server, nobody);
    is_refused(
        &server,
        &attempt(nobody, &message, &"1".repeat(64)),
        INVALID,
    );
}

#[test]
fn the_output_of_a_wallet_is_as_good() {
    let server = Server::start(&[PROOF, URL]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let address = wallet.address();
    let output = |forms: fn(&[u8]) -> Value| {
        let message = message(&server, &address);
        json!({
            "account": {"address": address},
            "signedMessage": forms(message.as_bytes()),
            "signature": forms(&wallet.sign(message.as_bytes())),
        })
    };
    let numbers = |bytes: &[u8]| json!(bytes);
    let indexed = |bytes: &[u8]| -> Value {
        let members = bytes.iter().enumerate();
        members
            .map(|(n, byte)| (n.to_string(), json!(byte)))
            .collect()
    };
    is_in(
        &server,
        &json!({"wallet": address, "output": output(numbers)}),
        &address,
    );
    is_in(&server, &json!({"output": output(indexed)}), &address);
    let mut foreign = output(numbers);
    foreign["account"]["address"] = json!("11111111111111111111111111111111");
    is_refused(
        &server,
        &json!({"wallet": address, "output": foreign}),
        INVALID,
    );
    is_refused(&server, &json!({"wallet": address, "output": {}}), INVALID);
    let unread = sign_in(&server, &json!({"output": {"signedMessage": [300]}})).expect(400);
    assert_eq!(unread.json()["error"], "Wallet address is required");
}

#[test]
fn a_wallet_of_ethereum_signs_in_the_same_way() {
    let server = Server::start(&[PROOF, URL]);
    let mut dice = Dice::from_environment();
    let (wallet, thief) = (
        EthereumWallet::new(&mut dice),
        EthereumWallet::new(&mut dice),
    );
    let small = wallet.address();
    let challenge = challenge(&server, &small);
    let message = challenge["message"].as_str().unwrap();
    let address = challenge["input"]["address"].as_str().unwrap();
    assert_eq!(address.to_lowercase(), small);
    assert!(message.starts_with(&format!(
        "fonana.me wants you to sign in with your Ethereum account:\n{address}\n\n"
    )));
    assert!(message.contains("\nChain ID: 1\n"));
    let attempt =
        |signature: String| json!({"wallet": small, "message": message, "signature": signature});
    is_refused(&server, &attempt(thief.sign_text(message)), INVALID);
    is_refused(&server, &attempt(wallet.sign_text("another")), INVALID);
    // However the address is written, it is the same user, under the same spelling.
    is_in(&server, &attempt(wallet.sign_text(message)), address);
    is_refused(&server, &attempt(wallet.sign_text(message)), OVER);
    let again = self::message(&server, address);
    let body = json!({"wallet": address, "message": again, "signature": wallet.sign_text(&again)});
    is_in(&server, &body, address);
    eventually("the lines of both", Duration::from_secs(20), || {
        let log = server.event_log();
        let issued = log.iter().filter(|line| line["type"] == "token_issued");
        let users: Vec<&Value> = issued.map(|line| &line["data"]["userId"]).collect();
        users.len() == 2 && users[0] == users[1]
    });
}

#[test]
fn a_challenge_survives_a_crash_but_not_its_use() {
    let mut server = Server::start(&[PROOF, URL]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let message = message(&server, &wallet.address());
    let signature = wallet.sign_text(&message);
    let body = json!({"wallet": wallet.address(), "message": message, "signature": signature});
    server.kill();
    server.restart();
    is_in(&server, &body, &wallet.address());
    server.kill();
    server.restart();
    is_refused(&server, &body, OVER);
}

#[test]
fn without_a_public_url_the_message_names_the_host_of_the_request() {
    let server = Server::start(&[PROOF]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let body = json!({"wallet": wallet.address()});
    let ask = |headers: &[(&str, &str)]| server.json("POST", "/api/auth/challenge", headers, &body);
    let input = |headers: &[(&str, &str)]| ask(headers).expect(200).json()["input"].clone();
    let local = input(&[("Host", "localhost:3002")]);
    assert_eq!(
        (&local["domain"], &local["uri"]),
        (&json!("localhost:3002"), &json!("http://localhost:3002"))
    );
    let public = input(&[("Host", "rt.example")]);
    assert_eq!(public["uri"], "https://rt.example");
    let proxied = input(&[("Host", "rt.example"), ("X-Forwarded-Proto", "http")]);
    assert_eq!(proxied["uri"], "http://rt.example");
    for strange in ["a b", "a/b", "user@host"] {
        let refused = ask(&[("Host", strange)]);
        assert_eq!(refused.status, 400, "{strange}");
    }
}

#[test]
fn who_is_unknown_stays_out_where_users_are_not_made() {
    let server = Server::start(&[PROOF, URL, ("auth.auto_provision", "false")]);
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let address = wallet.address();
    let signed = || {
        let message = message(&server, &address);
        let signature = wallet.sign_text(&message);
        json!({"wallet": address, "message": message, "signature": signature})
    };
    let unknown = sign_in(&server, &signed()).expect(404).json();
    assert_eq!(unknown["error"], "User not found");
    let user = json!({"id": "u1", "wallet": address});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    is_in(&server, &signed(), &address);
}

#[test]
fn challenges_are_rationed_with_sign_ins() {
    let server = Server::start(&[PROOF, URL, ("limits.sign_in_per_minute", "3")]);
    let wallet = json!({"wallet": "So11111111111111111111111111111111111111112"});
    let ask = |path: &str| server.json("POST", path, &[], &wallet);
    ask("/api/auth/challenge").expect(200);
    ask("/api/auth/wallet").expect(401);
    ask("/api/auth/refresh").expect(400);
    for path in [
        "/api/auth/challenge",
        "/api/auth/wallet",
        "/api/auth/refresh",
    ] {
        let refused = ask(path).expect(429);
        assert!(
            refused
                .header("retry-after")
                .unwrap()
                .parse::<u64>()
                .unwrap()
                > 0
        );
    }
    for (body, error) in [
        (json!({}), "Wallet address is required"),
        (json!({"wallet": "x"}), "Invalid wallet address"),
    ] {
        let server = Server::start(&[]);
        let reply = server.json("POST", "/api/auth/challenge", &[], &body);
        assert_eq!(reply.expect(400).json()["error"], error);
    }
}
