//! Everything that is parsed before anybody has shown who he is, fed with damaged input: nothing may
//! panic, and nothing that was changed may be believed.
//!
//! Good inputs are cut, spliced, repeated and filled with what parsers stumble over, for FUZZ_SECONDS
//! (2 unless told) each. FANFARE_TEST_SEED repeats a run. `tests/fuzz/run` has libFuzzer look for inputs that
//! reach more of the code, for as long as it is told.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test takes the time, and what is not there has to fail it"
)]

#[path = "fuzz/engines.rs"]
mod engines;
mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use fanfare::admission::client_address;
use fanfare::auth::challenge::{self, Challenge, Scene};
use fanfare::auth::jwks::KeySet;
use fanfare::auth::refresh::{Family, Key, Outcome, Policy, Presented, Refused};
use fanfare::auth::siws::{Output, Signature};
use fanfare::auth::{Authority, TokenSubject, siwe, siws, wallet};
use fanfare::config::{self, AllowedOrigins, Secret, Sources};
use fanfare::http::{identity, origin, upgrade};
use fanfare::key_pair::KeyPair;
use fanfare::protocol::Request;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use serde_json::json;
use support::{Dice, Signer, forge, key_set};

const NOW_MS: u64 = 1_795_406_706_789;
const SECRET: &[u8] = b"a secret for damaged tokens, long enough";

/// What parsers stumble over.
const STUMBLES: [&[u8]; 22] = [
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\r\n",
    b"\r\n\r\n",
    b"..",
    b".",
    b"=",
    b"\"",
    b"\\u0000",
    b"{",
    b"[[[[[[[[",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b":",
    b",",
    b"%00",
    b"\t",
    b" ",
    b"none",
];

/// Hands `look` the samples, and then what became of them, until the time is over.
fn damaged(what: &str, samples: &[Vec<u8>], mut look: impl FnMut(&[u8])) {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(2.0, |text| text.parse().unwrap());
    let mut dice = Dice::from_environment();
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut rounds = 0u64;
    for sample in samples {
        look(sample);
    }
    while Instant::now() < until {
        for _ in 0..200 {
            let mut input = samples[below(&mut dice, samples.len())].clone();
            for _ in 0..=below(&mut dice, 4) {
                damage(&mut input, samples, &mut dice);
            }
            look(&input);
            rounds += 1;
        }
    }
    println!("{what}: {rounds} inputs");
}

fn below(dice: &mut Dice, bound: usize) -> usize {
    usize::try_from(dice.below(bound as u64)).unwrap()
}

fn damage(input: &mut Vec<u8>, samples: &[Vec<u8>], dice: &mut Dice) {
    let at = below(dice, input.len() + 1);
    match below(dice, 8) {
        0 if at < input.len() => input[at] ^= 1 << below(dice, 8),
        1 if at < input.len() => input[at] = below(dice, 256) as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(..at)),
        4 => {
            let stumble = STUMBLES[below(dice, STUMBLES.len())];
            input.splice(at..at, stumble.iter().copied());
        }
        5 => {
            let end = at + below(dice, input.len() - at + 1);
            let part = input[at..end].to_vec();
            let times = 1 + below(dice, 16);
            input.splice(at..at, part.repeat(times));
        }
        6 => {
            let other = &samples[below(dice, samples.len())];
            let from = below(dice, other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = at + below(dice, input.len() - at + 1);
            input.drain(at..end);
        }
    }
    input.truncate(64 << 10);
}

#[test]
fn tokens() {
    let auth = config::load(&Sources::default()).unwrap().auth;
    let authority = Authority::new(&Secret::new(SECRET), &auth);
    let subject = TokenSubject {
        user_id: "u1".into(),
        wallet: Some("w".into()),
        channels: vec!["post_*".into()],
        ..TokenSubject::default()
    };
    let good = authority.issue(&subject, NOW_MS).token;
    let claims = json!({"userId": "u1", "exp": NOW_MS / 1000 + 60, "iss": "fonana.me", "aud": "fonana-websocket"});
    let samples = [
        good.clone(),
        forge(&json!({"alg": "HS256", "kid": "x"}), &claims, SECRET),
        forge(&json!({"alg": "none"}), &claims, b""),
        forge(
            &json!({"alg": "RS256", "jku": "https://evil.example"}),
            &claims,
            b"",
        ),
        forge(
            &json!({"alg": "HS256", "crit": ["exp"]}),
            &json!([[[[]]]]),
            SECRET,
        ),
    ]
    .map(String::into_bytes);
    // What is signed, as it was signed: of other texts none may be believed.
    let signed: Vec<Vec<u8>> = samples[..2].to_vec();
    damaged("tokens", &samples, |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let believed = authority.verify(text, NOW_MS).is_ok();
        assert!(
            !believed || signed.iter().any(|one| one == input),
            "{text:?}"
        );
    });
}

#[test]
fn heads_of_requests() {
    let auth = config::load(&Sources::default()).unwrap().auth;
    let authority = Authority::new(&Secret::new(SECRET), &auth);
    let nobody_else = AllowedOrigins::SameHostAnd(Vec::new());
    let samples = [
        &b"GET /ws?token=a.b.c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c, websocket\r\nAuthorization: Bearer t\r\n\
          Sec-WebSocket-Protocol: fanfare, bearer.t\r\nOrigin: https://x\r\n\r\n",
        b"GET /ws?a=b&token=a%2Eb.c%00&token= HTTP/1.1\r\nHost: x:3002\r\nUpgrade: websocket\r\n\
          Connection: keep-alive, Upgrade\r\nOrigin: HTTP://X:3002\r\nCookie: token=a.b.c\r\n\r\n",
        b"POST /api/auth/wallet HTTP/1.1\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
    ]
    .map(<[u8]>::to_vec);
    damaged("heads of requests", &samples, |input| {
        let Some((length, request)) = upgrade::whole(&input.to_vec().into()) else {
            return;
        };
        assert!(length <= input.len());
        assert!(input[..length].ends_with(b"\n"));
        assert!(matches!(request.uri().path(), "/ws" | "/"));
        let headers = request.headers();
        if origin::is_allowed(&nobody_else, headers)
            && let Some(origin) = headers.get(ORIGIN)
        {
            let origin = origin.to_str().unwrap().to_lowercase();
            let host = headers[HOST].to_str().unwrap().to_lowercase();
            assert!(origin.ends_with(&format!("://{host}")), "{origin:?}");
        }
        // Whatever is shown, however it comes, proves nothing.
        if let Some(token) = upgrade::offered(&request).token {
            assert!(authority.verify(&token, NOW_MS).is_err(), "{token:?}");
        }
    });
}

#[test]
fn frames_of_several_peers() {
    // Turns as `engines` reads them: frames of three peers, whole, fragmented, with pings between, and too long.
    let frame = |peer: u8, head: u8, payload: &[u8]| {
        let mut turn = vec![0x80 + 3 + peer, head, 0, payload.len() as u8, 3];
        turn.extend_from_slice(payload);
        turn
    };
    let samples = [
        [
            frame(0, 0x81, b"{\"type\":\"ping\"}"),
            frame(1, 0x01, "é".as_bytes()),
        ]
        .concat(),
        [
            frame(0, 0x01, b"a"),
            frame(2, 0x01, b"b"),
            frame(0, 0x89, b"?"),
            frame(0, 0x80, b"c"),
            frame(2, 0x80, b"d"),
        ]
        .concat(),
        [
            frame(1, 0x82, b"\0\xff"),
            frame(1, 0x88, &[0x03, 0xe8]),
            frame(1, 0x81, b"late"),
        ]
        .concat(),
        [frame(2, 0x01, &[b'x'; 200]), frame(2, 0x80, &[b'x'; 200])].concat(),
        vec![3, 4, 0x81, 0x80, 1, 2, 0, 2, 3, 4],
    ];
    damaged("frames of several peers", &samples, engines::agree);
}

#[test]
fn addresses_in_headers() {
    let trusted: Vec<IpNet> = ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
        .map(|network| network.parse().unwrap())
        .to_vec();
    let samples = [
        "203.0.113.1, 10.0.0.1",
        "[2001:db8::1]:80",
        "::ffff:192.0.2.1",
        "unknown",
        "192.0.2.1:99999",
    ]
    .map(|text| text.as_bytes().to_vec());
    let peer: IpAddr = "127.0.0.1".parse().unwrap();
    let stranger: IpAddr = "198.51.100.1".parse().unwrap();
    damaged("addresses in headers", &samples, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        for name in ["x-forwarded-for", "x-real-ip"] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.clone());
            assert_eq!(client_address(stranger, &headers, &trusted), stranger);
            let _ = client_address(peer, &headers, &trusted);
        }
    });
}

#[test]
fn bearers_in_headers() {
    let samples = ["Bearer a.b.c", "bearer\ta", "Bearer", "Basic x, Bearer y"]
        .map(|text| text.as_bytes().to_vec());
    damaged("bearers in headers", &samples, |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value);
        if let Some(shown) = identity::bearer(&headers) {
            assert!(!shown.is_empty() && shown == shown.trim_ascii());
            assert!(
                input
                    .trim_ascii()
                    .to_ascii_lowercase()
                    .starts_with(b"bearer")
            );
            assert!(input.trim_ascii().ends_with(shown));
        }
    });
}

#[test]
fn published_keys_and_pem() {
    let signers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Signer::generate("k", algorithm));
    let all: Vec<&Signer> = signers.iter().collect();
    let sets = [
        key_set(&all),
        r#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-521","x":"","y":""}]}"#
            .to_owned(),
    ]
    .map(String::into_bytes);
    let algorithms = signers.each_ref().map(Signer::algorithm);
    damaged("published keys", &sets, |input| {
        if let Ok(keys) = KeySet::parse(input, &algorithms) {
            assert!(keys.len() <= 64);
        }
    });
    let pems = signers.map(|signer| signer.private_pem.into_bytes());
    damaged("keys in PEM", &pems, |input| {
        let _ = KeyPair::from_pem(input);
    });
}

#[test]
fn wallets_and_commands() {
    let mut dice = Dice::from_environment();
    let wallets: Vec<Vec<u8>> = (0..4).map(|_| dice.wallet().into_bytes()).collect();
    damaged("wallets", &wallets, |input| {
        if let Ok(text) = std::str::from_utf8(input)
            && wallet::Wallet::parse(text).is_some()
        {
            assert!(text.is_ascii() && text.len() <= 64, "{text:?}");
        }
    });
    let commands = [
        r#"{"type":"subscribe","channel":{"type":"post","postId":"1"},"recover":{"epoch":"e","offset":7},"id":"x"}"#,
        r#"{"type":"publish","channel":"post_1","event":{"type":"x","deep":[[[{}]]]}}"#,
        r#"{"type":"refresh","token":"a.b.c","id":1.5}"#,
        r#"{"type":"history","channel":"feed","limit":3,"before":9}"#,
    ]
    .map(|text| text.as_bytes().to_vec());
    damaged("commands", &commands, |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = Request::parse(text);
        }
    });
}

#[test]
fn challenges_and_signatures() {
    let key = Ed25519KeyPair::generate().unwrap();
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let wallet = wallet::Wallet::Solana(public);
    let scene = Scene {
        domain: "app.example",
        uri: "https://app.example",
        statement: "Sign in.",
        solana_chain: "mainnet",
        ethereum_chain: 1,
    };
    let message = Challenge::new(&wallet, scene, NOW_MS).unwrap().message();
    let signed = key.sign(message.as_bytes());
    let signature = bs58::encode(signed.as_ref()).into_string();
    let good = Signature::read(&signature);
    assert!(siws::verify(&public, message.as_bytes(), &good));

    damaged("messages", &[message.clone().into_bytes()], |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = challenge::nonce_of(text);
            let _ = challenge::is_for(text, &wallet);
        }
        let is_believed = siws::verify(&public, input, &good);
        assert_eq!(is_believed, input == message.as_bytes());
    });
    let texts = [
        signature.clone().into_bytes(),
        STANDARD.encode(signed.as_ref()).into_bytes(),
    ];
    damaged("signatures of Solana", &texts, |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let read = Signature::read(text);
        if siws::verify(&public, message.as_bytes(), &read) {
            // With or without padding, in either alphabet.
            let standard = text
                .trim_end_matches('=')
                .replace('-', "+")
                .replace('_', "/");
            let bytes = [
                bs58::decode(text).into_vec().ok(),
                STANDARD_NO_PAD.decode(standard).ok(),
            ];
            let is_the_one = |bytes: &Vec<u8>| bytes.as_slice() == signed.as_ref();
            assert!(bytes.iter().flatten().any(is_the_one), "{text:?}");
        }
    });
    let outputs = [json!({
        "account": { "address": wallet.to_string() },
        "signedMessage": STANDARD.encode(&message),
        "signature": signed.as_ref(),
    })
    .to_string()
    .into_bytes()];
    damaged("outputs of solana:signIn", &outputs, |input| {
        if let Ok(value) = serde_json::from_slice(input)
            && let Some(output) = Output::read(&value)
            && siws::verify(&public, output.message.as_bytes(), &output.signature)
        {
            assert_eq!(output.message, message);
        }
    });

    // Of the documentation of web3.js, `eth.accounts.sign`.
    let address = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
    let Some(wallet::Wallet::Ethereum(account)) = wallet::Wallet::parse(address) else {
        panic!("it is one");
    };
    let signed = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                  6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";
    assert!(siwe::verify(&account, "Some data", signed));
    damaged("signatures of Ethereum", &[signed.into()], |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            // Under another message, not even the good one.
            let _ = siwe::verify(&account, "Some data", text);
            assert!(!siwe::verify(&account, "Some datum", text), "{text:?}");
        }
    });
}

#[test]
fn refresh_tokens() {
    let auth = config::load(&Sources::default()).unwrap().auth;
    let (key, policy) = (Key::of(&Secret::new(SECRET)), Policy::of(&auth));
    let names = ("Fam1ly".to_owned(), "Sa1t".to_owned());
    let (mut family, first) = Family::begin(&key, names, ("u1".into(), None), policy, NOW_MS);
    let mut genuine = vec![first];
    for _ in 0..3 {
        let last = Presented::parse(genuine.last().unwrap()).unwrap();
        let Outcome::Rotated(next, token) = family.present(last, &key, policy, NOW_MS) else {
            panic!("it is good");
        };
        (family, _) = (*next, genuine.push(token));
    }
    let mut samples: Vec<Vec<u8>> = genuine.iter().map(|it| it.clone().into_bytes()).collect();
    samples.push(b"ffr.Fam1ly.4294967295.AAAA".to_vec());
    damaged("refresh tokens", &samples, |input| {
        let Some(presented) = std::str::from_utf8(input).ok().and_then(Presented::parse) else {
            return;
        };
        // What is not genuine neither gives anything nor ends anything.
        let outcome = family.present(presented, &key, policy, NOW_MS);
        let is_genuine = genuine.iter().any(|token| token.as_bytes() == input);
        assert_eq!(
            outcome == Outcome::Refused(Refused::Invalid),
            !is_genuine,
            "{presented:?}"
        );
    });
}
