//! No token, signature or key in anything that the server writes, however it was brought, and however
//! loud the log is. Contract section 7.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use support::{Dice, Raw, Server, SolanaWallet, command, eventually, frame, handshake, request};

const LOUD: &[(&str, &str)] = &[("FANFARE_LOG", "trace"), ("RUST_LOG", "trace")];

/// What must not be found, with a name for each.
#[derive(Default)]
struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// A text as it is, and as logs may disguise it.
    fn add(&mut self, name: &str, secret: &str) {
        let bytes = format!("{:?}", secret.as_bytes());
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        for form in [secret, bytes.trim_matches(['[', ']']), &hex] {
            self.0.push((name.to_string(), form.to_string()));
        }
    }

    /// A token whole, its claims and its signature. Its header is the same in all.
    fn add_token(&mut self, name: &str, token: &str) {
        let parts = token.split('.').skip(1).filter(|part| part.len() > 8);
        for part in parts {
            self.add(name, part);
        }
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for (name, secret) in &self.0 {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{name} is in {place}");
        }
    }
}

/// Everything in a folder, packed files aside.
fn read_all(folder: &Path) -> String {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    files
        .map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned())
        .collect()
}

#[test]
fn nothing_that_clients_bring_is_written_anywhere() {
    let mut server = Server::start_with(&[("stats.console_interval", "1s")], LOUD);
    let mut secrets = Secrets::default();
    secrets.add("the secret", server.secret());
    secrets.add("the API key", server.api_key());
    secrets.add("a wrong API key", "a-wrong-api-key-0123456789");

    let claims = |member: &str, value: Value| {
        let mut claims = server.claims("u1");
        claims[member] = value;
        claims
    };
    let good = server.token("u1");
    let (head, _) = good.rsplit_once('.').unwrap();
    let wallet = Dice::from_environment().wallet();
    let signed_in = server
        .json("POST", "/api/auth/wallet", &[], &json!({"wallet": wallet}))
        .expect(200)
        .json();
    let tokens = [
        ("a good token", good.clone()),
        (
            "a token of a sign-in",
            signed_in["token"].as_str().unwrap().to_string(),
        ),
        (
            "an expired token",
            server.token_with(&claims("exp", json!(1_000_000))),
        ),
        (
            "a token of another issuer",
            server.token_with(&claims("iss", json!("other"))),
        ),
        (
            "a token for another audience",
            server.token_with(&claims("aud", json!("other"))),
        ),
        (
            "a token of the future",
            server.token_with(&claims("nbf", json!(9_999_999_999u64))),
        ),
        (
            "a token with odd claims",
            server.token_with(&claims("exp", json!("tomorrow"))),
        ),
        (
            "a token with a bad signature",
            format!("{head}.c2lnbmF0dXJlLW9mLW5vYm9keQ"),
        ),
        ("a token without one", format!("{head}.")),
        (
            "no token at all",
            "not.a-token-but-maybe-a.password-of-somebody".to_string(),
        ),
    ];
    if let Some(refresh) = signed_in["refreshToken"].as_str() {
        secrets.add("a refresh token", refresh);
    }
    for (name, token) in &tokens {
        secrets.add_token(name, token);
    }

    for (_, token) in &tokens {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        for path in [
            "/api/auth/wallet",
            "/api/user/notifications",
            "/health",
            "/nowhere",
            "/ws",
        ] {
            server.http("GET", path, &headers, "");
        }
        // Where it does not belong.
        let basic = format!("Basic {token}");
        server.http("GET", "/api/auth/wallet", &[("Authorization", &basic)], "");
        server.http("GET", &format!("/api/auth/wallet?token={token}"), &[], "");
        server.http("GET", &format!("/{token}"), &[], "");
        server.http(
            "PUT",
            &format!("/api/user/notifications/{token}/read"),
            &headers,
            "",
        );
        server.http(
            "GET",
            "/health",
            &[("Cookie", token), ("X-API-Key", token)],
            "",
        );
        server.http("POST", "/api/publish", &headers, token);
        let inside = json!({"wallet": token, "channel": token, "userId": token, "event": token});
        for path in [
            "/api/auth/wallet",
            "/api/publish",
            "/api/user/notifications",
        ] {
            server.json("POST", path, &headers, &inside);
        }
        let mut broken = Raw::open(server.addr());
        broken
            .send(format!("GET /ws?token={token} HTTP/9.9\r\nAuth\0: {token}\r\n\r\n").as_bytes());
        broken.rest(Duration::from_secs(5));

        // The three ways to a socket, and what may be said on one.
        let query = format!("/ws?token={token}");
        let protocols = format!("fanfare, bearer.{token}");
        for (path, headers) in [
            (query.as_str(), vec![]),
            ("/ws", vec![("Authorization", bearer.as_str())]),
            ("/ws", vec![("Sec-WebSocket-Protocol", protocols.as_str())]),
            (query.as_str(), vec![("Origin", "https://evil.example")]),
            (query.as_str(), vec![("Sec-WebSocket-Version", "7")]),
        ] {
            if let Ok(mut client) = server.connect_with(path, &headers) {
                client.try_next();
            }
        }
        let mut client = server.connect("u1");
        client.send(&json!({"type": "refresh", "token": token}));
        client.send(&json!({"type": token}));
        client.send(&json!({"type": "ping", "token": token}));
        client.send(&json!({"type": "subscribe", "channel": token}));
        client.send(&json!({"type": "history", "channel": {"type": "post", "token": token}}));
        client.send(&json!({"type": "subscribe", "channel": "post_1", "recover": token}));
        client.send_text(token);
        client.send_binary(token.as_bytes());
        client.send_text(&format!("{{\"type\": {token}"));
        client.send_message(Message::Ping(
            token.as_bytes()[..100.min(token.len())].to_vec().into(),
        ));
        client.send(&json!({"type": "ping", "id": "the last"}));
        while client.next()["id"] != "the last" {}
        let mut broken = Raw::open(server.addr());
        broken.send(handshake(&query).as_bytes());
        broken.send(&frame(0x83, token.as_bytes()));
        broken.rest(Duration::from_secs(5));
    }
    for key in [server.api_key(), "a-wrong-api-key-0123456789"] {
        let bearer = format!("Bearer {key}");
        let event = json!({"channel": "post_1", "event": {"type": "e"}});
        server.json("POST", "/api/publish", &[("X-API-Key", key)], &event);
        server.json(
            "POST",
            "/api/publish",
            &[("Authorization", &bearer)],
            &event,
        );
        server.json(
            "POST",
            &format!("/api/publish?key={key}&token={key}"),
            &[],
            &event,
        );
        server.http("GET", &format!("/api/publish/{key}"), &[], "");
        let metrics = [("X-API-Key", key), ("Authorization", bearer.as_str())];
        request(
            server.metrics_addr(),
            "GET",
            &format!("/stats?{key}"),
            &metrics,
            b"",
        )
        .unwrap();
    }

    eventually("the console shows figures", Duration::from_secs(5), || {
        server.output().contains("active")
    });
    let figures = server.metrics("/stats").text().to_string() + server.metrics("/metrics").text();
    secrets.assert_absent("/stats or /metrics", &figures);
    server.kill();
    server.restart();
    server.terminate();
    assert!(server.output().contains("DEBUG"), "it was not loud");
    secrets.assert_absent("stdout or stderr", &server.output());
    let events = read_all(&server.logs_dir());
    assert!(events.contains("auth_failure") && events.contains("message"));
    secrets.assert_absent("the event log", &events);
}

#[test]
fn what_dev_mode_makes_is_shown_once_and_never_logged() {
    let home = tempfile::TempDir::new().unwrap();
    let file = |name: &str| home.path().join(name);
    fs::write(file("empty.toml"), "").unwrap();
    let mut process = command()
        .args(["serve", "--dev", "--config", "empty.toml"])
        .args(["--set", "server.listen=127.0.0.1:0"])
        .args(["--set", "metrics.listen=127.0.0.1:0"])
        .current_dir(home.path())
        .envs(LOUD.iter().copied())
        .stdin(Stdio::null())
        .stdout(fs::File::create(file("stdout")).unwrap())
        .stderr(fs::File::create(file("stderr")).unwrap())
        .spawn()
        .unwrap();
    let stdout = || fs::read_to_string(file("stdout")).unwrap();
    eventually("it says how to try it", Duration::from_secs(20), || {
        stdout().contains("/api/publish\n")
    });
    let text = stdout();
    let after = |start: &str| {
        let (_, rest) = text.split_once(start).unwrap();
        rest.split(['\'', '\n']).next().unwrap().to_string()
    };
    let (token, key) = (after("Authorization: Bearer "), after("X-API-Key: "));
    let address = after("listening on http://").parse().unwrap();
    let bearer = format!("Bearer {token}");
    let get = |headers: &[(&str, &str)], path: &str| {
        request(address, "GET", path, headers, b"").unwrap().status
    };
    assert_eq!(get(&[("Authorization", &bearer)], "/api/auth/wallet"), 200);
    assert_eq!(get(&[("X-API-Key", &key)], "/api/publish"), 405);
    process.kill().unwrap();
    process.wait().unwrap();

    let mut secrets = Secrets::default();
    secrets.add_token("the token", &token);
    secrets.add("the API key", &key);
    let kept = fs::read(file("data").join("secret")).unwrap();
    let kept = String::from_utf8_lossy(&kept).trim().to_string();
    assert!(kept.len() >= 32);
    secrets.add("the secret", &kept);
    secrets.assert_absent("stderr", &fs::read_to_string(file("stderr")).unwrap());
    secrets.assert_absent("the event log", &read_all(&file("logs")));
    assert!(!text.contains(&kept), "stdout has the secret");
}

#[test]
fn nothing_of_signing_in_is_written_anywhere() {
    let settings = [("auth.wallet_proof", "signature")];
    let mut server = Server::start_with(&settings, LOUD);
    let mut secrets = Secrets::default();
    let wallet = SolanaWallet::new(&mut Dice::from_environment());
    let post = |path: &str, headers: &[(&str, &str)], body: &Value| {
        server.json("POST", path, headers, body)
    };
    let challenge = post(
        "/api/auth/challenge",
        &[],
        &json!({"wallet": wallet.address()}),
    );
    let message = challenge.expect(200).json()["message"].clone();
    let signature = wallet.sign_text(message.as_str().unwrap());
    secrets.add("the signature", &signature);
    let forged = SolanaWallet::new(&mut Dice::from_environment()).sign_text("another text");
    secrets.add("a wrong signature", &forged);
    let signed = |signature: &str| json!({"wallet": wallet.address(), "message": message, "signature": signature});
    post("/api/auth/wallet", &[], &signed(&forged)).expect(401);
    let mut tokens = post("/api/auth/wallet", &[], &signed(&signature))
        .expect(200)
        .json();
    post("/api/auth/wallet", &[], &signed(&signature)).expect(401);
    let mut first = None;
    for _ in 0..3 {
        let text = |member: &str| tokens[member].as_str().unwrap().to_owned();
        let (access, refresh) = (text("token"), text("refreshToken"));
        secrets.add_token("an access token", &access);
        secrets.add("a refresh token", refresh.rsplit_once('.').unwrap().1);
        let agent = [("User-Agent", &*access)];
        first.get_or_insert(refresh.clone());
        let next = post(
            "/api/auth/refresh",
            &agent,
            &json!({"refreshToken": refresh}),
        );
        tokens = next.expect(200).json();
    }
    secrets.add_token("the last access token", tokens["token"].as_str().unwrap());
    // A confused backend.
    let token = tokens["token"].as_str().unwrap();
    let refused = server.as_backend("POST", "/api/auth/revoke", &json!({"jti": token}));
    assert_eq!(refused.status, 400);
    post("/api/auth/refresh", &[], &json!({"refreshToken": first})).expect(401);
    let bearer = format!("Bearer {token}");
    let late = [("Authorization", &*bearer)];
    post("/api/auth/logout", &late, &json!({"refreshToken": first})).expect(401);
    server.terminate();
    secrets.assert_absent("what it printed", &server.output());
    secrets.assert_absent("the event log", &read_all(&server.logs_dir()));
    let database =
        String::from_utf8_lossy(&fs::read(server.data_dir().join("fanfare.redb")).unwrap())
            .into_owned();
    secrets.assert_absent("the database", &database);
}
