//! The binary as an operator meets it before it serves: `check`, `token`, `--help`, exit codes.

#![allow(clippy::unwrap_used)] // a test

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SECRET: &str = "correct-horse-battery-staple-and-more";

/// An empty folder to run in, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-binary-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn fanfare(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Answer {
        let output = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .current_dir(&self.0)
            .output()
            .unwrap();
        Answer(output)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Answer(Output);

impl Answer {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }
}

#[test]
fn without_anything_the_defaults_are_good() {
    let answer = Folder::new().fanfare(&["check"], &[]);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert!(
        answer.out().contains("every setting is at its default"),
        "{}",
        answer.out()
    );
}

#[test]
fn check_tells_what_differs_and_who_said_so() {
    let folder = Folder::new();
    folder.write(
        "config.toml",
        "[auth]\ntoken_ttl = \"5m\"\nwallet_proof = \"none\"\n",
    );
    let answer = folder.fanfare(
        &[
            "check",
            "--listen",
            "0.0.0.0:1",
            "--set",
            "limits.event_bytes=1KiB",
        ],
        &[
            ("NEXTAUTH_SECRET", SECRET),
            ("FANFARE_LOGS__KEEP_DAYS", "2"),
        ],
    );
    let out = answer.out();
    assert_eq!(answer.code(), 0, "{}", answer.err());
    for line in [
        "auth.token_ttl = \"5m\"  # config.toml, line 2",
        "auth.secret = ***  # environment variable NEXTAUTH_SECRET",
        "logs.keep_days = \"2\"  # environment variable FANFARE_LOGS__KEEP_DAYS",
        "server.listen = \"0.0.0.0:1\"  # flag --listen",
        "limits.event_bytes = \"1KiB\"  # flag --set",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    assert!(out.contains("warning: auth.wallet_proof"), "{out}");
    assert!(!out.contains(SECRET));
}

#[test]
fn check_answers_scripts_in_json() {
    let folder = Folder::new();
    let good = folder.fanfare(&["check", "--json", "--workers", "2"], &[]);
    let json: serde_json::Value = serde_json::from_str(&good.out()).unwrap();
    assert_eq!((good.code(), &json["ok"]), (0, &true.into()));
    assert_eq!(json["settings"][0]["key"], "server.workers");
    assert_eq!(json["settings"][0]["origin"], "flag --workers");

    let bad = folder.fanfare(&["check", "--json"], &[("FANFARE_LIMITS__QUEUE_BYTE", "1")]);
    let json: serde_json::Value = serde_json::from_str(&bad.out()).unwrap();
    assert_eq!((bad.code(), &json["ok"]), (78, &false.into()));
    assert_eq!(
        json["mistakes"][0]["suggestion"],
        "FANFARE_LIMITS__QUEUE_BYTES"
    );
}

/// The same for every command, and for the server without its name.
#[test]
fn a_bad_configuration_ends_with_78_and_all_mistakes() {
    let folder = Folder::new();
    let path = folder.write(
        "bad.toml",
        "[limits]\nqueue_bytes = \"lots\"\n[auth]\nsecret = \"too-short-a-secret\"\n[servr]\n",
    );
    let path = path.to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["--config", path],
        &["serve", "--config", path],
        &["--config", path, "check"],
        &["token", "--user", "u", "--config", path],
    ];
    for command in commands {
        let answer = folder.fanfare(
            command,
            &[("WS_PORT", "http"), ("FANFARE_AUHT__ISSUER", "x")],
        );
        assert_eq!(answer.code(), 78, "{command:?}");
        assert_eq!(answer.out(), "");
        let err = answer.err();
        for part in [
            "5 mistakes",
            "limits.queue_bytes = \"lots\"",
            "bad.toml, line 2",
            "auth.secret\n  is shorter than 32 bytes",
            "servr\n",
            "did you mean server?",
            "WS_PORT",
            "did you mean FANFARE_AUTH__ISSUER?",
        ] {
            assert!(err.contains(part), "{command:?}: {part}\n{err}");
        }
        assert!(!err.contains("too-short-a-secret"), "{err}");
    }
}

#[test]
fn dev_refuses_to_be_public() {
    let answer = Folder::new().fanfare(&["--dev", "--listen", "0.0.0.0:0"], &[]);
    assert_eq!(answer.code(), 78);
    assert!(
        answer.err().contains("not a loopback address"),
        "{}",
        answer.err()
    );
}

#[test]
fn the_manual_that_is_printed_is_a_good_configuration() {
    let folder = Folder::new();
    let manual = folder.fanfare(&["check", "--print-defaults"], &[]).out();
    assert_eq!(manual, include_str!("../config.toml"));
    folder.write("config.toml", &manual);
    let answer = folder.fanfare(&["check"], &[]);
    assert_eq!(answer.code(), 0, "{}", answer.err());
    assert!(
        answer.out().contains("file: config.toml"),
        "{}",
        answer.out()
    );
}

#[test]
fn help_and_version_are_there() {
    let folder = Folder::new();
    let help = folder.fanfare(&["--help"], &[]);
    assert_eq!(help.code(), 0);
    for part in [
        "--dev",
        "--config",
        "Exit codes",
        "fanfare token --user",
        "never by flag",
    ] {
        assert!(help.out().contains(part), "{part}");
    }
    let version = folder.fanfare(&["--version"], &[]).out();
    assert_eq!(
        version.trim(),
        concat!("fanfare ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(folder.fanfare(&["--no-such-flag"], &[]).code(), 2);
}

#[test]
fn a_token_is_for_whom_it_was_asked_for() {
    let folder = Folder::new();
    let secret = folder.write("secret", &format!("{SECRET}\n"));
    let environment = [("FANFARE_AUTH__SECRET_FILE", secret.to_str().unwrap())];
    let arguments = [
        "token",
        "--user",
        "u1",
        "--nickname",
        "Ann",
        "--ttl",
        "1h",
        "--channel",
        "chat_7",
    ];
    let answer = folder.fanfare(&arguments, &environment);
    assert_eq!(answer.code(), 0, "{}", answer.err());

    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_issuer(&["fonana.me"]);
    rules.set_audience(&["fonana-websocket"]);
    let token = answer.out();
    let claims = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &rules)
        .unwrap()
        .claims;
    assert_eq!(
        (&claims["userId"], &claims["nickname"]),
        (&"u1".into(), &"Ann".into())
    );
    assert_eq!(claims["channels"], serde_json::json!(["chat_7"]));
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(life, 3600);

    let json = folder
        .fanfare(&["token", "--user", "u1", "--json"], &environment)
        .out();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["token"].is_string() && json["expiresAt"].is_string());
}

#[test]
fn a_token_that_could_not_work_is_refused() {
    let folder = Folder::new();
    let ttl = folder.fanfare(&["token", "--user", "u1", "--ttl", "0s"], &[]);
    assert_eq!(ttl.code(), 78);
    assert!(ttl.err().contains("flag --ttl"), "{}", ttl.err());
    let channel = folder.fanfare(&["token", "--user", "u1", "--channel", "chat"], &[]);
    assert_eq!(channel.code(), 1);
    assert_eq!(folder.fanfare(&["token", "--user", ""], &[]).code(), 2);
    assert!(
        !Path::new(&folder.0).join("data").exists(),
        "nothing was left behind"
    );
}
