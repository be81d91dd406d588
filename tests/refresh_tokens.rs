//! Refresh tokens: each works once, a lost reply is given again, and a stolen one ends the sign-in.
//! Contract section 2.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Dice, Reply, Server, eventually, within_a_second};

const NO_GRACE: (&str, &str) = ("auth.refresh_grace", "0s");

struct Tokens {
    access: String,
    refresh: String,
    user: Value,
}

fn tokens(reply: Reply) -> Tokens {
    let reply = reply.expect(200).json();
    let text = |member: &str| reply[member].as_str().unwrap().to_owned();
    assert_eq!(reply["success"], true);
    assert_eq!(reply["expiresIn"], "30m");
    assert!(text("refreshExpiresAt") > text("expiresAt"));
    Tokens {
        access: text("token"),
        refresh: text("refreshToken"),
        user: reply["user"].clone(),
    }
}

fn sign_in(server: &Server, wallet: &str) -> Tokens {
    let body = json!({"wallet": wallet});
    tokens(server.json("POST", "/api/auth/wallet", &[], &body))
}

fn refresh(server: &Server, token: &str) -> Reply {
    let body = json!({"refreshToken": token});
    server.json("POST", "/api/auth/refresh", &[], &body)
}

#[track_caller]
fn is_refused(server: &Server, token: &str, error: &str) {
    let refused = refresh(server, token).expect(401).json();
    assert_eq!(refused["error"], error);
}

fn verify(server: &Server, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", &*bearer)];
    server.http("GET", "/api/auth/wallet", &headers, "").status
}

fn socket(server: &Server, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    server
        .connect_with("/ws", &[("Authorization", &bearer)])
        .unwrap()
        .greeted()
}

#[track_caller]
fn is_open(client: &mut Client) {
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
}

#[test]
fn a_sign_in_goes_on_without_a_signature() {
    let mut server = Server::start(&[]);
    let first = sign_in(&server, &Dice::from_environment().wallet());
    let mut client = socket(&server, &first.access);
    let second = tokens(refresh(&server, &first.refresh));
    assert_eq!(second.user, first.user);
    assert_ne!(second.refresh, first.refresh);
    // The old access token is good until it expires; the socket goes on with the new one.
    assert_eq!(
        (
            verify(&server, &first.access),
            verify(&server, &second.access)
        ),
        (200, 200)
    );
    client.send(&json!({"type": "refresh", "token": second.access}));
    client.next_of("refreshed");
    server.kill();
    server.restart();
    let third = tokens(refresh(&server, &second.refresh));
    assert_eq!(verify(&server, &third.access), 200);
    // Nicknames are as they are now.
    let user = first.user["id"].as_str().unwrap();
    let named = json!({"id": user, "nickname": "Ann"});
    server.as_backend("PUT", "/api/users", &named).expect(200);
    let fourth = tokens(refresh(&server, &third.refresh));
    assert_eq!(fourth.user["nickname"], "Ann");
    eventually("the lines of all four", Duration::from_secs(20), || {
        let log = server.event_log();
        let issued = log.iter().filter(|line| line["type"] == "token_issued");
        let reasons: Vec<&Value> = issued.map(|line| &line["data"]["reason"]).collect();
        // The kill may have taken lines that waited.
        reasons.ends_with(&[&json!("refresh"), &json!("refresh")])
    });
}

#[test]
fn a_client_whose_reply_was_lost_is_not_logged_out() {
    let server = Server::start(&[]);
    let first = sign_in(&server, &Dice::from_environment().wallet());
    let lost = tokens(refresh(&server, &first.refresh));
    let again = tokens(refresh(&server, &first.refresh));
    assert_eq!(again.refresh, lost.refresh);
    assert_eq!(verify(&server, &again.access), 200);
    // Two pages that ask at once get the same.
    let both: Vec<String> = std::thread::scope(|scope| {
        let pages: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| tokens(refresh(&server, &again.refresh)).refresh))
            .collect();
        pages.into_iter().map(|page| page.join().unwrap()).collect()
    });
    assert!(both.iter().all(|token| *token == both[0]), "{both:?}");
    tokens(refresh(&server, &both[0]));
}

#[test]
fn a_stolen_token_ends_the_sign_in_and_its_sockets() {
    let server = Server::start(&[]);
    let mut dice = Dice::from_environment();
    let wallet = dice.wallet();
    let stolen = sign_in(&server, &wallet);
    let other = sign_in(&server, &wallet);
    let owner = tokens(refresh(&server, &stolen.refresh));
    let owners = [
        socket(&server, &stolen.access),
        socket(&server, &owner.access),
    ];
    let mut other_device = socket(&server, &other.access);
    let next = tokens(refresh(&server, &owner.refresh));
    // The thief comes with the first one, whose successor was used.
    is_refused(&server, &stolen.refresh, "Refresh token already used");
    for mut client in owners {
        client.expect_disconnect(4300, "revoked");
    }
    for token in [&stolen.access, &owner.access, &next.access] {
        assert_eq!(verify(&server, token), 401);
    }
    is_refused(&server, &next.refresh, "Refresh token revoked");
    is_refused(&server, &stolen.refresh, "Refresh token revoked");
    // What the same user has elsewhere is another sign-in.
    is_open(&mut other_device);
    tokens(refresh(&server, &other.refresh));
    for kind in ["auth_failure", "token_revoked"] {
        eventually(kind, Duration::from_secs(20), || {
            server.event_log().iter().any(|line| {
                line["type"] == kind
                    && line["data"]["reason"] == "refresh_reused"
                    && line["data"]["ip"] == "127.0.0.1"
            })
        });
    }
}

#[test]
fn a_theft_closes_the_sockets_within_a_second_of_the_answer() {
    let server = Server::start(&[NO_GRACE]);
    let wallet = Dice::from_environment().wallet();
    within_a_second("reuse of a refresh token", || {
        let first = sign_in(&server, &wallet);
        let second = tokens(refresh(&server, &first.refresh));
        let sockets: Vec<Client> = [&first.access, &second.access]
            .into_iter()
            .flat_map(|token| (0..4).map(|_| socket(&server, token)))
            .collect();
        is_refused(&server, &first.refresh, "Refresh token already used");
        let answered = Instant::now();
        sockets.into_iter().for_each(is_closed);
        answered.elapsed()
    });
}

#[test]
fn without_a_grace_the_second_use_is_a_theft() {
    let mut server = Server::start(&[NO_GRACE]);
    let first = sign_in(&server, &Dice::from_environment().wallet());
    let second = tokens(refresh(&server, &first.refresh));
    is_refused(&server, &first.refresh, "Refresh token already used");
    is_refused(&server, &second.refresh, "Refresh token revoked");
    server.kill();
    server.restart();
    is_refused(&server, &second.refresh, "Refresh token revoked");
    assert_eq!(verify(&server, &second.access), 401);
}

#[test]
fn a_refresh_token_ends_with_its_time_with_logging_out_and_with_revoking() {
    let server = Server::start(&[("auth.refresh_ttl", "1s"), ("auth.token_ttl", "2s")]);
    let wallet = Dice::from_environment().wallet();
    let body = json!({"wallet": wallet});
    let reply = server
        .json("POST", "/api/auth/wallet", &[], &body)
        .expect(200);
    let token = reply.json()["refreshToken"].as_str().unwrap().to_owned();
    eventually("its end", Duration::from_secs(20), || {
        refresh(&server, &token).status == 401
    });
    drop(server);

    let server = Server::start(&[]);
    let log_out = |headers: &[(&str, &str)], body: &Value| {
        server.json("POST", "/api/auth/logout", headers, body)
    };
    let first = sign_in(&server, &wallet);
    let bearer = format!("Bearer {}", first.access);
    let own = [("Authorization", &*bearer)];
    let client = socket(&server, &first.access);
    log_out(&own, &Value::Null).expect(200);
    is_closed(client);
    is_refused(&server, &first.refresh, "Refresh token revoked");
    // With the refresh token alone, when the access token is over, and of another device.
    let second = sign_in(&server, &wallet);
    let third = sign_in(&server, &wallet);
    let client = socket(&server, &third.access);
    log_out(&[], &json!({"refreshToken": third.refresh})).expect(200);
    is_closed(client);
    assert_eq!(verify(&server, &third.access), 401);
    assert_eq!(verify(&server, &second.access), 200);
    // One that proves nothing ends nothing.
    let parts: Vec<&str> = second.refresh.split('.').collect();
    let forged = format!("{}.{}.{}.{}", parts[0], parts[1], parts[2], "A".repeat(43));
    log_out(&[], &json!({"refreshToken": forged})).expect(401);
    is_refused(&server, &forged, "Invalid refresh token");
    let second = tokens(refresh(&server, &second.refresh));
    // All that a user has.
    let user = json!({"userId": second.user["id"]});
    server
        .as_backend("POST", "/api/auth/revoke", &user)
        .expect(200);
    is_refused(&server, &second.refresh, "Refresh token revoked");
    let fourth = sign_in(&server, &wallet);
    let fourth = tokens(refresh(&server, &fourth.refresh));
    // One sign-in, by its name.
    let claims = fourth.access.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    let family = json!({"family": claims["family"]});
    server
        .as_backend("POST", "/api/auth/revoke", &family)
        .expect(200);
    assert_eq!(verify(&server, &fourth.access), 401);
    is_refused(&server, &fourth.refresh, "Refresh token revoked");
}

#[track_caller]
fn is_closed(mut client: Client) {
    client.expect_disconnect(4300, "revoked");
}

#[test]
fn what_is_no_refresh_token_is_said_to_be_none() {
    let server = Server::start(&[]);
    let access = sign_in(&server, &Dice::from_environment().wallet()).access;
    for nonsense in ["x", "ffr.a.0.b", &access, &"x".repeat(10_000)] {
        is_refused(&server, nonsense, "Invalid refresh token");
    }
    for body in [
        json!({}),
        json!({"refreshToken": 7}),
        json!({"refreshToken": ""}),
    ] {
        let reply = server
            .json("POST", "/api/auth/refresh", &[], &body)
            .expect(400);
        assert_eq!(reply.json()["error"], "Refresh token is required");
    }
}

#[test]
fn a_refresh_token_is_nowhere_on_disk() {
    let mut server = Server::start(&[]);
    let first = sign_in(&server, &Dice::from_environment().wallet());
    let second = tokens(refresh(&server, &first.refresh));
    server.terminate();
    let database = std::fs::read(server.data_dir().join("fanfare.redb")).unwrap();
    for token in [&first.refresh, &second.refresh] {
        let tag = token.rsplit_once('.').unwrap().1.as_bytes();
        assert!(!database.windows(tag.len()).any(|window| window == tag));
    }
}
