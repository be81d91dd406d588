//! Which keys sign and verify tokens: the ring, its rotation, other issuers, and what is never believed.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test takes the time, and what is not there has to fail it"
)]

mod support;

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::{Value, json};
use support::{Application, Dice, Reply, Server, Signer, eventually, forge, key_set};
use tempfile::TempDir;

const WALLET: &str = "/api/auth/wallet";
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
const OTHER: &str = "https://issuer.example";

fn verify(server: &Server, token: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    server.http("GET", WALLET, &[("Authorization", &bearer)], "")
}

/// Refused over HTTP and by a socket.
#[track_caller]
fn is_refused(server: &Server, what: &str, token: &str) {
    let reply = verify(server, token);
    assert_eq!(reply.status, 401, "{what}: {}", reply.text());
    assert_eq!(reply.json()["error"], "Invalid token", "{what}");
    let path = format!("/ws?token={token}");
    let mut client = server.connect_with(&path, &[]).unwrap();
    assert_eq!(
        client.expect_disconnect(1008, "Unauthorized")["type"],
        "disconnect"
    );
}

/// Lets the server have this key; the path of its file.
fn file(folder: &TempDir, name: &str, pem: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, pem).unwrap();
    path.display().to_string()
}

fn claims_of(server: &Server, issuer: &str) -> Value {
    let mut claims = server.claims("u1");
    claims["iss"] = json!(issuer);
    claims
}

/// A server that believes this issuer, whose keys have arrived.
fn believing(application: &Application, settings: &[(&str, &str)]) -> Server {
    let url = application.url();
    let mut all = vec![
        ("auth.issuers.other.issuer", OTHER),
        ("auth.issuers.other.jwks_url", url.as_str()),
    ];
    all.extend(settings);
    let server = Server::start(&all);
    eventually("the keys are asked for", Duration::from_secs(10), || {
        !application.asked().is_empty()
    });
    server
}

#[test]
fn each_algorithm_signs_and_its_public_half_is_published() {
    let folder = TempDir::new().unwrap();
    for algorithm in ALGORITHMS {
        let signer = Signer::generate("key-1", algorithm);
        let path = file(&folder, "key.pem", &signer.private_pem);
        let server = Server::start(&[
            ("auth.keys.key-1.pem_file", &path),
            ("auth.signing_key", "key-1"),
        ]);
        let wallet = Dice::from_environment().wallet();
        let issued = server
            .json("POST", WALLET, &[], &json!({"wallet": wallet}))
            .expect(200)
            .json();
        let token = issued["token"].as_str().unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!(
            (header.alg, header.kid.as_deref()),
            (algorithm, Some("key-1"))
        );
        verify(&server, token).expect(200);

        // Somebody else can check it with what is published, and with that alone.
        let reply = server
            .http("GET", "/.well-known/jwks.json", &[], "")
            .expect(200);
        assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
        let set = reply.json();
        let key = &set["keys"][0];
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
        assert_eq!((&key["kid"], &key["use"]), (&json!("key-1"), &json!("sig")));
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(key.get(private), None, "{private}");
        }
        let jwk: Jwk = serde_json::from_value(key.clone()).unwrap();
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["fonana-websocket"]);
        validation.set_issuer(&["fonana.me"]);
        let public = DecodingKey::from_jwk(&jwk).unwrap();
        let decoded = jsonwebtoken::decode::<Value>(token, &public, &validation).unwrap();
        assert_eq!(decoded.claims["userId"], issued["user"]["id"]);

        // The shared secret was given, so backends may go on with it; with HS256 alone.
        verify(&server, &server.token("u1")).expect(200);
    }
}

#[test]
fn without_other_keys_nothing_is_published() {
    let server = Server::start(&[]);
    let reply = server.http("GET", "/.well-known/jwks.json", &[], "");
    assert_eq!(reply.expect(200).json(), json!({"keys": []}));
}

#[test]
fn a_backend_may_keep_its_private_key_to_itself() {
    let folder = TempDir::new().unwrap();
    for algorithm in ALGORITHMS {
        let signer = Signer::generate("backend", algorithm);
        let path = file(&folder, "public.pem", &signer.public_pem());
        let server = Server::start(&[("auth.keys.backend.pem_file", &path)]);
        let claims = server.claims("u1");
        verify(&server, &signer.sign(&claims)).expect(200);
        // Its library names no key: then it is found by its algorithm.
        let nameless = signer.sign_as(&Header::new(algorithm), &claims);
        verify(&server, &nameless).expect(200);
        server
            .connect_with(&format!("/ws?token={nameless}"), &[])
            .unwrap()
            .greeted();
    }
}

#[test]
fn a_secret_and_a_key_are_changed_without_logging_anybody_out() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (
        Signer::generate("old", Algorithm::EdDSA),
        Signer::generate("new", Algorithm::ES256),
    );
    let (old_pem, new_pem) = (
        file(&folder, "old.pem", &old.private_pem),
        file(&folder, "new.pem", &new.private_pem),
    );
    let previous = file(
        &folder,
        "previous",
        "the secret of last year, long enough too",
    );
    let by_previous = |server: &Server| {
        forge(
            &json!({"alg": "HS256"}),
            &server.claims("u1"),
            b"the secret of last year, long enough too",
        )
    };
    let (start, until) = (Instant::now(), support::rfc3339_in(8));
    let settings = [
        ("auth.keys.old.pem_file", old_pem.as_str()),
        ("auth.keys.old.until", &until),
        ("auth.keys.new.pem_file", &new_pem),
        ("auth.signing_key", "new"),
        ("auth.previous_secret_file", &previous),
        ("auth.previous_until", &until),
    ];
    let server = Server::start(&settings);
    let tokens = [old.sign(&server.claims("u1")), by_previous(&server)];
    // Until then they are as good as the new ones, but no longer than that.
    let replies = tokens.each_ref().map(|token| verify(&server, token));
    if start.elapsed() < Duration::from_secs(6) {
        for reply in replies {
            let expires = reply.expect(200).json()["expiresAt"].clone();
            assert_eq!(expires, until.replace('Z', ".000Z"));
        }
    }
    for token in &tokens {
        eventually("the old key ends", Duration::from_secs(30), || {
            verify(&server, token).status == 401
        });
        is_refused(&server, "a token of a key that has ended", token);
    }
    verify(&server, &new.sign(&server.claims("u1"))).expect(200);
    verify(&server, &server.token("u1")).expect(200);
    let published = server.http("GET", "/.well-known/jwks.json", &[], "").json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    assert_eq!(published["keys"][0]["kid"], "new");
}

#[test]
fn a_generated_secret_is_no_key_beside_the_one_that_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let signer = Signer::generate("key-1", Algorithm::EdDSA);
    let path = file(&folder, "key.pem", &signer.private_pem);
    let server = Server::start_with(
        &[
            ("auth.keys.key-1.pem_file", &path),
            ("auth.signing_key", "key-1"),
        ],
        &[("FANFARE_AUTH__SECRET", "")],
    );
    verify(&server, &signer.sign(&server.claims("u1"))).expect(200);
    is_refused(&server, "HS256", &server.token("u1"));
}

#[test]
fn tokens_of_another_issuer_open_everything_that_ours_do() {
    for algorithm in ALGORITHMS {
        let signer = Signer::generate("one", algorithm);
        let application = Application::start(&key_set(&[&signer]));
        let server = believing(&application, &[]);
        let claims = claims_of(&server, OTHER);
        let token = signer.sign(&claims);
        eventually("it is believed", Duration::from_secs(15), || {
            verify(&server, &token).status == 200
        });
        let mut client = server
            .connect_with(&format!("/ws?token={token}"), &[])
            .unwrap()
            .greeted();
        assert_eq!(client.greeting["data"]["userId"], "u1");
        client.send(&json!({"type": "refresh", "token": signer.sign(&claims)}));
        client.next_of("refreshed");
        // Ours go on.
        verify(&server, &server.token("u2")).expect(200);
    }
}

#[test]
fn a_key_that_is_not_known_is_asked_for_and_a_flood_of_them_is_not() {
    let (first, second) = (
        Signer::generate("first", Algorithm::EdDSA),
        Signer::generate("second", Algorithm::EdDSA),
    );
    let application = Application::start(&key_set(&[&first]));
    let server = believing(&application, &[]);
    let claims = claims_of(&server, OTHER);
    eventually("the first is believed", Duration::from_secs(15), || {
        verify(&server, &first.sign(&claims)).status == 200
    });
    application.answer(200, &key_set(&[&first, &second]));
    let start = Instant::now();
    eventually("the second is believed", Duration::from_secs(40), || {
        verify(&server, &second.sign(&claims)).status == 200
    });
    let before = application.asked().len();
    for nth in 0..300 {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(format!("nobody-{nth}"));
        verify(&server, &first.sign_as(&header, &claims)).expect(401);
    }
    let asked = application.asked();
    let most = 2 + start.elapsed().as_secs() / 10;
    assert!(
        asked.len() as u64 <= before as u64 + most,
        "{}",
        asked.len()
    );
    assert!(
        asked
            .iter()
            .all(|one| one.line.starts_with("GET /access?from=fanfare "))
    );
    // What is known goes on, and so does everything else.
    verify(&server, &first.sign(&claims)).expect(200);
    let metrics = server.metrics("/metrics").expect(200);
    assert!(
        metrics
            .text()
            .contains("fanfare_key_fetches_total{outcome=\"fetched\"}")
    );
}

#[test]
fn an_issuer_that_is_not_well_harms_nobody() {
    let signer = Signer::generate("one", Algorithm::EdDSA);
    let huge = format!("{{\"keys\":[{}]}}", "0,".repeat(200_000));
    for (status, body) in [
        (200, "<html>"),
        (200, "{\"keys\":7}"),
        (200, huge.as_str()),
        (302, ""),
        (500, ""),
        // Keys for others, or of no use, are passed over.
        (
            200,
            r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"one"},{"kty":"new"},7]}"#,
        ),
    ] {
        let application = Application::start("");
        application.answer(status, body);
        let server = believing(&application, &[]);
        is_refused(&server, body, &signer.sign(&claims_of(&server, OTHER)));
        verify(&server, &server.token("u1")).expect(200);
    }
}

#[test]
fn what_a_token_says_about_its_key_is_not_believed() {
    let folder = TempDir::new().unwrap();
    let ours = Signer::generate("ours", Algorithm::RS256);
    let theirs = Signer::generate("theirs", Algorithm::RS256);
    let attacker = Signer::generate("ours", Algorithm::RS256);
    let application = Application::start(&key_set(&[&theirs]));
    let trap = Application::start(&key_set(&[&attacker]));
    let path = file(&folder, "ours.pem", &ours.private_pem);
    let server = believing(
        &application,
        &[
            ("auth.keys.ours.pem_file", &path),
            ("auth.issuers.other.algorithms", "RS256"),
        ],
    );
    let claims = server.claims("u1");
    let foreign = claims_of(&server, OTHER);
    verify(&server, &ours.sign(&claims)).expect(200);
    eventually("theirs is believed", Duration::from_secs(15), || {
        verify(&server, &theirs.sign(&foreign)).status == 200
    });

    // alg: none, in every spelling.
    for none in ["none", "None", "NONE", "nOnE", ""] {
        for claims in [&claims, &foreign] {
            let token = forge(&json!({"alg": none, "kid": "ours"}), claims, b"");
            let (unsigned, _) = token.rsplit_once('.').unwrap();
            is_refused(&server, "none", &format!("{unsigned}."));
            is_refused(&server, "none with a signature", &token);
        }
    }
    // The public key as the secret of HS256 (CVE-2016-5431), in every form in which it can be had.
    let jwk = ours.jwk();
    for secret in [
        ours.public_pem(),
        ours.public_pem().trim_end().to_owned(),
        jwk.to_string(),
        jwk["n"].as_str().unwrap().to_owned(),
        String::new(),
    ] {
        for header in [
            json!({"alg": "HS256"}),
            json!({"alg": "HS256", "kid": "ours"}),
        ] {
            let token = forge(&header, &claims, secret.as_bytes());
            is_refused(&server, "confusion", &token);
        }
    }
    // Our own secret, under the name of another key, another algorithm, or for another issuer.
    let secret = server.secret().as_bytes();
    for header in [
        json!({"alg": "HS256", "kid": "ours"}),
        json!({"alg": "RS256", "kid": "ours"}),
        json!({"alg": "HS512"}),
        json!({"typ": "JWT"}),
    ] {
        is_refused(&server, "the secret", &forge(&header, &claims, secret));
    }
    is_refused(
        &server,
        "their issuer, our secret",
        &forge(&json!({"alg": "HS256"}), &foreign, secret),
    );
    // Another key under a known name.
    is_refused(&server, "another key", &attacker.sign(&claims));
    // The right key for the wrong issuer, both ways.
    is_refused(&server, "their key, our issuer", &theirs.sign(&claims));
    is_refused(&server, "our key, their issuer", &ours.sign(&foreign));
    // The right key with another algorithm of its kind.
    for other in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let mut header = Header::new(other);
        header.kid = Some("ours".into());
        is_refused(
            &server,
            "another algorithm",
            &ours.sign_as(&header, &claims),
        );
        header.kid = Some("theirs".into());
        is_refused(
            &server,
            "another algorithm",
            &theirs.sign_as(&header, &foreign),
        );
    }
    // Keys that come with the token, or from where it says.
    let with = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some("ours".into());
        change(&mut header);
        header
    };
    let url = trap.url();
    let own_jwk: Jwk = serde_json::from_value(attacker.jwk()).unwrap();
    for header in [
        with(&|header| header.jku = Some(url.clone())),
        with(&|header| header.x5u = Some(url.clone())),
        with(&|header| header.jwk = Some(own_jwk.clone())),
        with(&|header| header.x5c = Some(vec!["MIIB".into()])),
        with(&|header| header.crit = Some(vec!["exp".into()])),
    ] {
        is_refused(
            &server,
            "a key with the token",
            &attacker.sign_as(&header, &claims),
        );
        // Even if the signature is good: nobody who needs no trick sends one.
        is_refused(
            &server,
            "a trick with a good key",
            &ours.sign_as(&header, &claims),
        );
    }
    // Names that mean something elsewhere.
    for kid in [
        "../../../../etc/passwd",
        "' OR 1=1 --",
        "",
        "ours\0",
        &"k".repeat(4_000),
    ] {
        let header = with(&|header| header.kid = Some(kid.to_owned()));
        is_refused(
            &server,
            "a strange name",
            &attacker.sign_as(&header, &claims),
        );
    }
    // Claims that do not hold, well signed by either.
    let now = claims["iat"].as_u64().unwrap();
    for (signer, claims) in [(&ours, &claims), (&theirs, &foreign)] {
        for (name, value) in [
            ("exp", Value::Null),
            ("exp", json!("9999999999")),
            ("nbf", json!(now + 3_600)),
            ("iat", json!(now + 3_600)),
            ("aud", Value::Null),
            ("aud", json!("somewhere-else")),
            ("iss", json!("somebody.else")),
            ("iss", Value::Null),
            ("iss", json!([OTHER])),
        ] {
            let mut changed = claims.clone();
            changed[name] = value.clone();
            is_refused(&server, &format!("{name}: {value}"), &signer.sign(&changed));
        }
    }
    assert_eq!(trap.asked().len(), 0, "an address of a token's was asked");
    verify(&server, &ours.sign(&claims)).expect(200);
}

#[test]
fn a_key_is_changed_while_the_server_runs() {
    let folder = TempDir::new().unwrap();
    let (old, new, theirs) = (
        Signer::generate("key", Algorithm::EdDSA),
        Signer::generate("key", Algorithm::RS256),
        Signer::generate("theirs", Algorithm::ES256),
    );
    let path = file(&folder, "key.pem", &old.private_pem);
    let application = Application::start(&key_set(&[&theirs]));
    let server = believing(&application, &[("auth.keys.key.pem_file", &path)]);
    let (claims, foreign) = (server.claims("u1"), claims_of(&server, OTHER));
    let mut client = server
        .connect_with(&format!("/ws?token={}", old.sign(&claims)), &[])
        .unwrap()
        .greeted();
    eventually("theirs is believed", Duration::from_secs(15), || {
        verify(&server, &theirs.sign(&foreign)).status == 200
    });
    // What was fetched stays, also if nobody would give it again.
    application.answer(500, "");

    file(&folder, "key.pem", &new.private_pem);
    server.signal(rustix::process::Signal::HUP);
    eventually("the new key counts", Duration::from_secs(15), || {
        verify(&server, &new.sign(&claims)).status == 200
    });
    is_refused(&server, "the old key", &old.sign(&claims));
    verify(&server, &theirs.sign(&foreign)).expect(200);
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");

    // A file that is damaged changes nothing.
    file(&folder, "key.pem", "damaged");
    server.signal(rustix::process::Signal::HUP);
    eventually("it is said", Duration::from_secs(15), || {
        server.output().contains("nothing was changed")
    });
    verify(&server, &new.sign(&claims)).expect(200);
}
