//! Tokens, good and hostile. Texts are signed here by hand, as a backend's own library would.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::*;
use crate::config::WalletProof;

const NOW_MS: u64 = 1_795_406_706_789;
const NOW_S: u64 = NOW_MS / 1000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn authority() -> Authority {
    Authority::new(
        &Secret::new(SECRET),
        &config::Auth {
            secret: None,
            issuer: "fonana.me".into(),
            audience: "fonana-websocket".into(),
            token_ttl: config::TokenTtl::One(Duration::from_secs(1800)),
            refresh_ttl: Duration::from_secs(86_400),
            refresh_ttl_max: Duration::from_secs(86_400),
            statement: "Sign in.".into(),
            solana_chain: "mainnet",
            ethereum_chain: 1,
            revocation_ttl: Duration::ZERO,
            refresh_grace: Duration::ZERO,
            wallet_proof: WalletProof::Signature,
            auto_provision: true,
            legacy_wallet_identity: false,
            previous_secret: None,
            keys: Vec::new(),
            signing_key: None,
            issuers: Vec::new(),
            api_keys: vec![api_key::fingerprint(b"a-backend")],
        },
    )
}

/// Unpadded base64url, RFC 4648 section 5.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(
                ALPHABET[(word >> (18 - 6 * place) & 63) as usize],
            ));
        }
    }
    out
}

fn sign(secret: &[u8], header: &Value, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = base64(hmac::sign(&key, message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}

fn good_claims() -> Value {
    json!({"userId": "u1", "exp": NOW_S + 60, "iss": "fonana.me", "aud": "fonana-websocket"})
}

/// What becomes of the good claims with these laid over them (`null` takes one away).
fn verify_with(changes: Value) -> Result<Identity, Refusal> {
    let mut claims = good_claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    let token = sign(
        SECRET,
        &json!({"alg": "HS256", "typ": "JWT"}),
        &claims.to_string(),
    );
    authority().verify(&token, NOW_MS)
}

fn refused(check: &'static str) -> Result<Identity, Refusal> {
    Err(Refusal::Invalid(check))
}

#[test]
fn what_is_issued_verifies_until_the_second_it_expires() {
    let authority = authority();
    let issued = authority.issue(
        &TokenSubject {
            user_id: "u1".into(),
            wallet: Some("w1".into()),
            channels: vec!["post_*".into()],
            family: Some("f1".into()),
            ..TokenSubject::default()
        },
        NOW_MS,
    );
    assert_eq!(issued.expires_in, Duration::from_secs(1800));
    assert_eq!(issued.expires_at_ms, (NOW_S + 1800) * 1000);
    let identity = authority.verify(&issued.token, NOW_MS).unwrap();
    assert_eq!(
        identity,
        Identity {
            user_id: "u1".into(),
            wallet: Some("w1".into()),
            jti: Some(issued.jti.as_str().into()),
            family: Some("f1".into()),
            issued_at_ms: NOW_MS,
            expires_at_ms: issued.expires_at_ms,
            variant: None,
            channels: ["post_*".to_owned()].into(),
        }
    );
    assert!(
        authority
            .verify(&issued.token, issued.expires_at_ms - 1)
            .is_ok()
    );
    assert_eq!(
        authority.verify(&issued.token, issued.expires_at_ms),
        Err(Refusal::Expired)
    );
}

#[test]
fn a_backends_token_is_as_good() {
    let bare = verify_with(json!({})).unwrap();
    assert_eq!(&*bare.user_id, "u1");
    assert_eq!(
        (bare.wallet, bare.jti, bare.channels.len()),
        (None, None, 0)
    );
    let by_sub = verify_with(json!({"userId": null, "sub": "s1"})).unwrap();
    assert_eq!(&*by_sub.user_id, "s1");
    let both = verify_with(json!({"sub": "s1"})).unwrap();
    assert_eq!(&*both.user_id, "u1");
    let numbered = verify_with(json!({"userId": 42})).unwrap();
    assert_eq!(&*numbered.user_id, "42");
    assert!(verify_with(json!({"aud": ["other", "fonana-websocket"]})).is_ok());
    assert!(verify_with(json!({"exp": NOW_S as f64 + 0.9})).is_ok());
}

#[test]
fn each_check_refuses_by_its_name() {
    assert_eq!(verify_with(json!({"exp": NOW_S})), Err(Refusal::Expired));
    assert_eq!(verify_with(json!({"exp": 0})), Err(Refusal::Expired));
    assert_eq!(verify_with(json!({"exp": null})), refused("no_expiry"));
    assert_eq!(
        verify_with(json!({"exp": "9999999999"})),
        refused("no_expiry")
    );
    assert_eq!(verify_with(json!({"exp": -1})), refused("no_expiry"));
    assert_eq!(verify_with(json!({"iss": null})), refused("issuer"));
    assert_eq!(
        verify_with(json!({"iss": "evil.example"})),
        refused("issuer")
    );
    assert_eq!(verify_with(json!({"iss": 7})), refused("issuer"));
    assert_eq!(verify_with(json!({"aud": null})), refused("audience"));
    assert_eq!(verify_with(json!({"aud": "other"})), refused("audience"));
    assert_eq!(verify_with(json!({"aud": []})), refused("audience"));
    assert_eq!(
        verify_with(json!({"aud": ["fonana-websocket", 7]})),
        refused("audience")
    );
    assert_eq!(
        verify_with(json!({"iss": {"fonana.me": "fonana.me"}})),
        refused("issuer")
    );
    assert_eq!(
        verify_with(json!({"channels": ["post_1", 7]})),
        refused("malformed")
    );
    assert_eq!(
        verify_with(json!({"nbf": NOW_S + 31})),
        refused("not_yet_valid")
    );
    assert!(verify_with(json!({"nbf": NOW_S + 29})).is_ok());
    assert_eq!(verify_with(json!({"nbf": "soon"})), refused("malformed"));
    assert_eq!(
        verify_with(json!({"iat": NOW_S + 3600})),
        refused("not_yet_valid")
    );
    assert_eq!(verify_with(json!({"userId": null})), refused("no_subject"));
    for no_id in [
        json!(""),
        json!({}),
        json!(1.5),
        json!(true),
        json!("a\nb"),
        json!("x".repeat(241)),
    ] {
        assert_eq!(verify_with(json!({"userId": no_id})), refused("no_subject"));
    }
    let one = verify_with(json!({"channels": "post_1"})).unwrap();
    assert_eq!(*one.channels, ["post_1".to_owned()]);
    assert_eq!(
        verify_with(json!({"channels": {"post_1": true}})),
        refused("malformed")
    );
    let by_sub = verify_with(json!({"userId": "", "sub": "u2"})).unwrap();
    assert_eq!(&*by_sub.user_id, "u2");
    assert_eq!(verify_with(json!({"wallet": ["w"]})), refused("malformed"));
}

#[test]
fn no_algorithm_but_hs256_is_ever_believed() {
    let claims = good_claims().to_string();
    let check = |header: Value| {
        authority()
            .verify(&sign(SECRET, &header, &claims), NOW_MS)
            .unwrap_err()
    };
    for name in [
        "none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256",
    ] {
        assert_eq!(
            check(json!({"alg": name})),
            Refusal::Invalid("algorithm"),
            "{name}"
        );
    }
    assert_eq!(check(json!({"typ": "JWT"})), Refusal::Invalid("algorithm"));
    for brought in ["jku", "jwk", "x5u", "x5c"] {
        assert_eq!(
            check(json!({"alg": "HS256", brought: {"k": 1}})),
            Refusal::Invalid("foreign_key"),
            "{brought}"
        );
    }
    assert_eq!(
        check(json!({"alg": "HS256", "kid": 7})),
        Refusal::Invalid("malformed")
    );
    assert_eq!(
        check(json!({"alg": "HS256", "crit": ["b64"], "b64": false})),
        Refusal::Invalid("malformed")
    );
    // An unsigned token, as the first libraries of this format accepted it (CVE-2015-9235).
    let unsigned = format!(
        "{}.{}.",
        base64(br#"{"alg":"none"}"#),
        base64(claims.as_bytes())
    );
    assert_eq!(
        authority().verify(&unsigned, NOW_MS),
        Err(Refusal::Invalid("algorithm"))
    );
}

#[test]
fn a_signature_of_another_key_or_text_is_refused() {
    let header = json!({"alg": "HS256"});
    let claims = good_claims().to_string();
    let other = sign(b"another key, as long as the first", &header, &claims);
    assert_eq!(authority().verify(&other, NOW_MS), refused("signature"));
    assert_eq!(
        authority().verify(&sign(b"", &header, &claims), NOW_MS),
        refused("signature")
    );

    let token = sign(SECRET, &header, &claims);
    let forged = base64(claims.replace("u1", "u2").as_bytes());
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[1] = &forged;
    assert_eq!(
        authority().verify(&parts.join("."), NOW_MS),
        refused("signature")
    );
    parts[2] = "";
    assert_eq!(
        authority().verify(&parts.join("."), NOW_MS),
        refused("signature")
    );
}

#[test]
fn no_prefix_of_a_token_and_no_rubbish_passes() {
    let authority = authority();
    let token = sign(SECRET, &json!({"alg": "HS256"}), &good_claims().to_string());
    assert!(authority.verify(&token, NOW_MS).is_ok());
    assert_eq!(authority.verify("", NOW_MS), Err(Refusal::Missing));
    for end in 1..token.len() {
        assert!(
            matches!(
                authority.verify(&token[..end], NOW_MS),
                Err(Refusal::Invalid(_))
            ),
            "the first {end} bytes"
        );
    }
    for rubbish in [".", "..", "...", "a.b.c", "é.é.é", "Bearer x", "\0.\0.\0"] {
        assert_eq!(
            authority.verify(rubbish, NOW_MS),
            refused("malformed"),
            "{rubbish:?}"
        );
    }
    let padding = json!({"userId": "x".repeat(1 << 20)}).to_string();
    let huge = sign(SECRET, &json!({"alg": "HS256"}), &padding);
    assert_eq!(authority.verify(&huge, NOW_MS), refused("malformed"));
    let deep = format!(r#"{{"userId":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    let deep = sign(SECRET, &json!({"alg": "HS256"}), &deep);
    assert_eq!(authority.verify(&deep, NOW_MS), refused("malformed"));
    // Two of a claim: libraries disagree on which counts, so neither does.
    let twice = good_claims().to_string().replace("}", r#","userId":"u2"}"#);
    let twice = sign(SECRET, &json!({"alg": "HS256"}), &twice);
    assert_eq!(authority.verify(&twice, NOW_MS), refused("malformed"));
}

#[test]
fn the_longest_life_does_not_overflow() {
    let identity = verify_with(json!({"exp": u64::MAX})).unwrap();
    assert_eq!(identity.expires_at_ms, LAST_EXPIRY_MS);
    let issued = authority().issue(
        &TokenSubject {
            user_id: "u1".into(),
            ttl: Some(Duration::MAX),
            ..TokenSubject::default()
        },
        NOW_MS,
    );
    assert_eq!(issued.expires_at_ms, LAST_EXPIRY_MS);
}

/// Prints what a verification costs; run with `--release --nocapture` for the number that counts.
#[test]
#[allow(clippy::disallowed_methods)] // a measurement
fn verification_is_measured() {
    const ROUNDS: u32 = 2_000;
    let authority = authority();
    let issued = authority.issue(
        &TokenSubject {
            user_id: "u1".into(),
            ..TokenSubject::default()
        },
        NOW_MS,
    );
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        assert!(authority.verify(&issued.token, NOW_MS).is_ok());
    }
    println!(
        "verify: {:.1} us",
        start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
    );
}
