//! `/api/auth/wallet`: who gets a token, and which tokens are believed.

mod support;

use serde_json::{Value, json};
use support::{Dice, Reply, Server};

const WALLET: &str = "/api/auth/wallet";

fn sign_in(server: &Server, wallet: &str) -> Reply {
    server.json("POST", WALLET, &[], &json!({"wallet": wallet}))
}

fn verify(server: &Server, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    server.http("GET", WALLET, &[("Authorization", &bearer)], "")
}

#[test]
fn a_wallet_gets_a_token_that_verifies_and_keeps_its_user() {
    let mut server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let first = sign_in(&server, &wallet).expect(200).json();
    assert_eq!(first["success"], true);
    assert_eq!(first["expiresIn"], "30m");
    assert_eq!(first["user"]["wallet"], wallet);
    assert_eq!(first["user"]["nickname"], Value::Null);
    assert!(first["refreshToken"].as_str().unwrap().starts_with("ffr."));

    let verified = verify(&server, first["token"].as_str().unwrap())
        .expect(200)
        .json();
    assert_eq!(
        verified,
        json!({
            "valid": true,
            "userId": first["user"]["id"],
            "wallet": wallet,
            "expiresAt": first["expiresAt"],
        })
    );

    server.kill();
    server.restart();
    let again = sign_in(&server, &wallet).expect(200).json();
    assert_eq!(again["user"], first["user"]);
    assert_ne!(again["token"], first["token"]);
}

#[test]
fn what_is_no_wallet_gets_none() {
    let server = Server::start(&[]);
    let outcome = |body: &Value| {
        let reply = server.json("POST", WALLET, &[], body).expect(400).json();
        reply["error"].as_str().unwrap().to_owned()
    };
    for body in [
        json!({}),
        json!({"wallet": ""}),
        json!({"wallet": 7}),
        json!({"wallet": null}),
    ] {
        assert_eq!(outcome(&body), "Wallet address is required", "{body}");
    }
    for wallet in [
        "x",
        "0x52908400098527886E0F7030069857D2E4169Ee7",
        &"1".repeat(33),
        "É",
    ] {
        assert_eq!(
            outcome(&json!({"wallet": wallet})),
            "Invalid wallet address",
            "{wallet}"
        );
    }
}

#[test]
fn where_proof_is_asked_a_name_is_not_enough() {
    let server = Server::start(&[("auth.wallet_proof", "signature")]);
    let wallet = Dice::from_environment().wallet();
    let refused = sign_in(&server, &wallet).expect(401).json();
    assert_eq!(refused["error"], "Wallet signature required");
}

#[test]
fn strangers_are_not_made_users_unless_configured() {
    let server = Server::start(&[("auth.auto_provision", "false")]);
    let wallet = Dice::from_environment().wallet();
    assert_eq!(
        sign_in(&server, &wallet).expect(404).json()["error"],
        "User not found"
    );
    let user = json!({"id": "u-77", "wallet": wallet, "nickname": "Ann"});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    assert_eq!(sign_in(&server, &wallet).expect(200).json()["user"], user);
}

#[test]
fn each_refusal_has_its_text() {
    let server = Server::start(&[]);
    let text = |reply: Reply| {
        let reply = reply.expect(401);
        assert!(reply.header("www-authenticate").is_some());
        reply.json()["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        text(server.http("GET", WALLET, &[], "")),
        "No token provided"
    );
    let basic = server.http("GET", WALLET, &[("Authorization", "Basic dTpw")], "");
    assert_eq!(text(basic), "No token provided");
    assert_eq!(text(verify(&server, "a.b.c")), "Invalid token");

    let changed = |name: &str, value: Value| {
        let mut claims = server.claims("u1");
        claims[name] = value;
        text(verify(&server, &server.token_with(&claims)))
    };
    assert_eq!(changed("exp", json!(1_700_000_000)), "Token expired");
    assert_eq!(changed("exp", Value::Null), "Invalid token");
    assert_eq!(changed("iss", json!("somebody.else")), "Invalid token");
    assert_eq!(changed("aud", json!("somewhere-else")), "Invalid token");
    assert_eq!(changed("nbf", json!(4_000_000_000u64)), "Invalid token");
}

#[test]
fn a_backends_own_token_needs_neither_wallet_nor_jti() {
    let server = Server::start(&[]);
    let mut claims = server.claims("u1");
    for name in ["userId", "jti", "iat", "wallet"] {
        claims.as_object_mut().unwrap().remove(name);
    }
    let verified = verify(&server, &server.token_with(&claims))
        .expect(200)
        .json();
    assert_eq!(verified["userId"], "u1");
    assert_eq!(verified["wallet"], Value::Null);
}

#[test]
fn sign_ins_are_limited_by_address_and_only_a_trusted_proxy_may_name_it() {
    let server = Server::start(&[("limits.sign_in_per_minute", "3")]);
    let wallet = Dice::from_environment().wallet();
    let body = json!({"wallet": wallet});
    let from = |address: &str| server.json("POST", WALLET, &[("X-Forwarded-For", address)], &body);
    for _ in 0..3 {
        from("203.0.113.1").expect(200);
    }
    let limited = from("203.0.113.1").expect(429);
    assert_eq!(limited.json()["code"], "rate_limited");
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    // What stands to the left was written by the client itself.
    from("198.51.100.9, 203.0.113.1").expect(429);
    from("203.0.113.2").expect(200);
    for n in 0..3 {
        from(&format!("2001:db8::{n}")).expect(200);
    }
    from("2001:db8::ffff").expect(429);
    // Verifying is not signing in.
    verify(&server, &server.token("u1")).expect(200);

    let alone = Server::start(&[
        ("limits.sign_in_per_minute", "1"),
        ("server.trusted_proxies", ""),
    ]);
    let from = |address: &str| alone.json("POST", WALLET, &[("X-Forwarded-For", address)], &body);
    from("203.0.113.1").expect(200);
    from("203.0.113.2").expect(429);
}

#[test]
fn refusals_and_sign_ins_are_in_the_event_log_without_the_token() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let issued = sign_in(&server, &wallet).expect(200).json();
    let token = issued["token"].as_str().unwrap();
    verify(&server, &format!("{token}x")).expect(401);
    let find = |kind: &str| {
        server
            .event_log()
            .into_iter()
            .find(|line| line["type"] == kind)
    };
    support::eventually("both lines", std::time::Duration::from_secs(5), || {
        find("token_issued").is_some() && find("auth_failure").is_some()
    });
    let line = find("token_issued").unwrap();
    assert_eq!(line["data"]["userId"], issued["user"]["id"]);
    assert_eq!(line["data"]["wallet"], wallet);
    let line = find("auth_failure").unwrap();
    assert_eq!(line["data"]["ip"], "127.0.0.1");
    assert!(line["data"]["reason"].is_string());
    assert!(!format!("{:?}{}", server.event_log(), server.output()).contains(token));
}
