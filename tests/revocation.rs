//! Tokens that are taken back: by their owner, by a backend; at once, everywhere, for as long as they
//! would have lived. Contract sections 2 and 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Dice, Reply, Server, eventually, within_a_second};

const WALLET: &str = "/api/auth/wallet";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn verify(server: &Server, token: &str) -> Reply {
    server.http("GET", WALLET, &[("Authorization", &bearer(token))], "")
}

#[track_caller]
fn is_good(server: &Server, token: &str) {
    verify(server, token).expect(200);
}

#[track_caller]
fn is_revoked(server: &Server, token: &str) {
    let refused = verify(server, token).expect(401).json();
    let told = json!({"error": "Token revoked", "code": "token_revoked"});
    assert_eq!(refused, told);
    let headers = [("Authorization", &*bearer(token))];
    server
        .http("GET", "/api/user/notifications", &headers, "")
        .expect(401);
    let mut socket = server.connect_with("/ws", &headers).unwrap();
    assert_eq!(socket.expect_close(), (1008, "Unauthorized".to_string()));
}

#[track_caller]
fn revoke(server: &Server, what: &Value) {
    let answer = server.as_backend("POST", "/api/auth/revoke", what);
    assert_eq!(answer.expect(200).json(), json!({"success": true}));
}

/// A token of this user with this `jti`.
fn token(server: &Server, user: &str, jti: &str) -> String {
    let mut claims = server.claims(user);
    claims["jti"] = json!(jti);
    server.token_with(&claims)
}

fn socket(server: &Server, token: &str) -> Client {
    server
        .connect_with("/ws", &[("Authorization", &bearer(token))])
        .unwrap()
        .greeted()
}

#[track_caller]
fn is_closed(mut client: Client) {
    let told = client.expect_disconnect(4300, "revoked");
    assert_eq!(told["data"]["reconnect"], false);
}

#[track_caller]
fn is_open(client: &mut Client) {
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
}

#[test]
fn a_token_is_revoked_by_its_id_and_stays_so() {
    let mut server = Server::start(&[]);
    let (bad, good) = (token(&server, "u1", "bad"), token(&server, "u1", "good"));
    let (closing, mut staying) = (socket(&server, &bad), socket(&server, &good));
    is_good(&server, &bad);
    revoke(&server, &json!({"jti": "bad"}));
    is_closed(closing);
    is_revoked(&server, &bad);
    is_good(&server, &good);
    is_open(&mut staying);
    // Nor does it come in through an open socket.
    staying.send(&json!({"type": "refresh", "token": bad}));
    assert_eq!(staying.next_of("error")["data"]["code"], "invalid_token");
    is_open(&mut staying);
    // Again is no error, and neither is one that nobody has.
    revoke(&server, &json!({"jti": "bad"}));
    revoke(&server, &json!({"jti": "nobody's"}));
    for (kind, reason) in [
        ("token_revoked", "backend"),
        ("auth_failure", "revoked"),
        ("disconnect", "revoked"),
    ] {
        eventually(kind, Duration::from_secs(20), || {
            server
                .event_log()
                .iter()
                .any(|line| line["type"] == kind && line["data"]["reason"] == reason)
        });
    }

    server.kill();
    server.restart();
    is_revoked(&server, &bad);
    is_good(&server, &good);
    assert_eq!(server.stats()["server"]["tokensRevoked"], 0);
}

#[test]
fn sockets_end_within_a_second_of_the_answer() {
    let server = Server::start(&[]);
    let mut bystander = socket(&server, &token(&server, "other", "other"));
    let mut attempts = 0;
    // By each of the ways to take something back, with several sockets on every worker.
    for (what, body) in [
        ("a token", json!({"jti": null})),
        ("a user", json!({"userId": null})),
        ("logging out", Value::Null),
    ] {
        within_a_second(what, || {
            attempts += 1;
            let id = format!("of-{attempts}");
            let token = token(&server, &id, &id);
            let sockets: Vec<Client> = (0..8).map(|_| socket(&server, &token)).collect();
            let mut body = body.clone();
            for named in body
                .as_object_mut()
                .into_iter()
                .flat_map(|it| it.values_mut())
            {
                *named = json!(id);
            }
            if body.is_null() {
                let headers = [("Authorization", &*bearer(&token))];
                server
                    .http("POST", "/api/auth/logout", &headers, "")
                    .expect(200);
            } else {
                revoke(&server, &body);
            }
            let answered = Instant::now();
            sockets.into_iter().for_each(is_closed);
            answered.elapsed()
        });
    }
    is_open(&mut bystander);
}

#[test]
fn all_tokens_of_a_user_are_revoked_and_new_ones_are_good() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let sign_in = || {
        let answer = server.json("POST", WALLET, &[], &json!({"wallet": wallet}));
        let answer = answer.expect(200).json();
        let text = |member: &Value| member.as_str().unwrap().to_owned();
        (text(&answer["token"]), text(&answer["user"]["id"]))
    };
    let (first, user) = sign_in();
    let other = server.token("somebody-else");
    let by_backend = server.token(&user);
    let mut ageless = server.claims(&user);
    ageless.as_object_mut().unwrap().remove("iat");
    let ageless = server.token_with(&ageless);
    let sockets = [&first, &by_backend, &ageless].map(|token| socket(&server, token));
    let mut bystander = socket(&server, &other);
    for _ in 0..3 {
        revoke(&server, &json!({"userId": user}));
        // In the same second, to the millisecond.
        let (next, _) = sign_in();
        is_good(&server, &next);
        let _ = socket(&server, &next);
    }
    sockets.into_iter().for_each(is_closed);
    for token in [&first, &by_backend, &ageless] {
        is_revoked(&server, token);
    }
    is_good(&server, &other);
    is_open(&mut bystander);
}

#[test]
fn only_what_was_issued_before_a_moment_is_revoked() {
    let server = Server::start(&[]);
    let aged = |age_s: u64| {
        let mut claims = server.claims("u1");
        let issued = claims["iat"].as_u64().unwrap() - age_s;
        claims["iat"] = json!(issued);
        claims["jti"] = json!(format!("of {issued}"));
        (server.token_with(&claims), issued)
    };
    let ((old, _), (middle, at), (young, _)) = (aged(1_000), aged(500), aged(100));
    revoke(&server, &json!({"userId": "u1", "before": at}));
    is_revoked(&server, &old);
    is_good(&server, &middle);
    revoke(
        &server,
        &json!({"userId": "u1", "before": (at + 1) * 1_000}),
    );
    is_revoked(&server, &middle);
    is_good(&server, &young);
    // An earlier moment gives nothing back.
    revoke(
        &server,
        &json!({"userId": "u1", "before": "2020-01-01T00:00:00Z"}),
    );
    is_revoked(&server, &middle);
    is_good(&server, &young);
}

#[test]
fn whoever_logs_out_is_out() {
    let server = Server::start(&[]);
    let log_out = |token: &str| {
        let headers = [("Authorization", &*bearer(token))];
        server.http("POST", "/api/auth/logout", &headers, "")
    };
    // A backend's token without an id, too.
    let mut nameless = server.claims("u1");
    nameless.as_object_mut().unwrap().remove("jti");
    let nameless = server.token_with(&nameless);
    let named = token(&server, "u1", "a");
    let mut other = socket(&server, &token(&server, "u1", "b"));
    for token in [&nameless, &named] {
        let open = [socket(&server, token), socket(&server, token)];
        assert_eq!(log_out(token).expect(200).json(), json!({"success": true}));
        open.into_iter().for_each(is_closed);
        is_revoked(&server, token);
        let again = log_out(token).expect(401).json();
        assert_eq!(again["error"], "Token revoked");
    }
    is_open(&mut other);
    let nobody = server.http("POST", "/api/auth/logout", &[], "");
    assert_eq!(nobody.expect(401).json()["error"], "No token provided");
    // A signature may be written in more than one way, the token is the same.
    let spelled = nameless.clone() + "=";
    assert_ne!(verify(&server, &spelled).status, 200);
}

#[test]
fn revoking_is_for_backends_and_says_what_is_wrong() {
    let server = Server::start(&[]);
    let refused = |headers: &[(&str, &str)]| {
        let reply = server.json("POST", "/api/auth/revoke", headers, &json!({"jti": "x"}));
        reply.expect(401).json()["code"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(refused(&[]), "api_key_required");
    assert_eq!(refused(&[("X-API-Key", "wrong")]), "invalid_api_key");
    let own = bearer(&server.token("u1"));
    assert_eq!(refused(&[("Authorization", &own)]), "invalid_api_key");
    for (what, code) in [
        (json!({}), "missing_fields"),
        (json!({"jti": ""}), "missing_fields"),
        (json!({"jti": "a", "userId": "b"}), "missing_fields"),
        (json!({"jti": ["a"]}), "missing_fields"),
        (json!({"jti": "a\nb"}), "invalid_id"),
        (json!({"userId": "x".repeat(241)}), "invalid_id"),
        (json!({"userId": "a", "before": "soon"}), "invalid_before"),
        (
            json!({"userId": "a", "before": 99_999_999_999_u64}),
            "invalid_before",
        ),
        (json!([]), "invalid_body"),
    ] {
        let reply = server.as_backend("POST", "/api/auth/revoke", &what);
        assert_eq!(reply.expect(400).json()["code"], code, "{what}");
    }
    is_good(&server, &server.token("a"));
}

#[test]
fn many_revocations_end_in_one_look_at_the_sockets() {
    let server = Server::start(&[]);
    let tokens: Vec<String> = (0..40)
        .map(|n| token(&server, "u1", &n.to_string()))
        .collect();
    let mut sockets: Vec<Client> = tokens.iter().map(|token| socket(&server, token)).collect();
    std::thread::scope(|scope| {
        for n in 0..39 {
            let server = &server;
            scope.spawn(move || revoke(server, &json!({"jti": n.to_string()})));
        }
    });
    let mut last = sockets.pop().unwrap();
    sockets.into_iter().for_each(is_closed);
    is_open(&mut last);
    eventually("the count of sockets", Duration::from_secs(10), || {
        server.stats()["activeConnections"] == 1
    });
    assert_eq!(server.stats()["server"]["tokensRevoked"], 39);
}
