//! What the environment says, in Fanfare's names and in the predecessor's.

use super::*;

#[test]
fn text_of_the_environment_becomes_every_kind_of_value() {
    let config = load(&environment(&[
        ("FANFARE_DATA_DIR", "/d"),
        ("FANFARE_SERVER__WORKERS", "3"),
        ("FANFARE_SERVER__TEST_PAGE", "true"),
        ("FANFARE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        (
            "FANFARE_SERVER__ALLOWED_ORIGINS",
            "HTTPS://Example.com:443,tauri://localhost",
        ),
        ("FANFARE_SERVER__PUBLIC_URL", "https://Example.com/"),
        ("FANFARE_LIMITS__QUEUE_BYTES", "2MiB"),
        ("FANFARE_LIMITS__EVENT_BYTES", "1000"),
        ("FANFARE_AUTH__TOKEN_TTL", "1h 30m"),
        ("FANFARE_STATS__CONSOLE_INTERVAL", "0s"),
        ("FANFARE_CHANNELS__POST__HISTORY", "7"),
        ("FANFARE_CHANNELS__LIVE_CHAT__SUBSCRIBE", "token"),
        ("FANFARE_LOG", "debug"),
        ("HOME", "/root"),
    ]))
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/d"));
    assert_eq!(config.server.workers, 3);
    assert!(config.server.test_page);
    let proxies: Vec<String> = config
        .server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(
        config.server.allowed_origins,
        AllowedOrigins::SameHostAnd(vec![
            "https://example.com".into(),
            "tauri://localhost".into()
        ])
    );
    assert_eq!(config.server.public_url, "https://example.com");
    assert_eq!(config.limits.queue_bytes, 2 * 1024 * 1024);
    assert_eq!(config.limits.event_bytes, 1000);
    assert_eq!(
        config.auth.token_ttl,
        TokenTtl::One(Duration::from_secs(90 * 60))
    );
    assert_eq!(config.console_interval, None);
    let history = config.channels.rule("post").unwrap().history.unwrap();
    assert_eq!(history.entries, 7);
    let chat = config.channels.rule("live-chat").unwrap();
    assert_eq!(
        (chat.subscribe, chat.publish),
        (Access::Token, Access::None)
    );
}

#[test]
fn a_list_may_be_written_as_in_the_file_wherever_it_is_text() {
    for text in [
        r#"["https://a.example", "https://b.example"]"#,
        "https://a.example,https://b.example",
    ] {
        let config = load(&environment(&[("FANFARE_SERVER__ALLOWED_ORIGINS", text)])).unwrap();
        let AllowedOrigins::SameHostAnd(origins) = config.server.allowed_origins else {
            panic!("{text}")
        };
        assert_eq!(origins.len(), 2, "{text}");
    }
    let any = load(&environment(&[(
        "FANFARE_SERVER__ALLOWED_ORIGINS",
        r#"["*"]"#,
    )]))
    .unwrap();
    assert_eq!(any.server.allowed_origins, AllowedOrigins::Any);
    let keys = r#"["one-key-for-backends", "another-key-for-backends"]"#;
    let config = load(&environment(&[("FANFARE_AUTH__API_KEYS", keys)])).unwrap();
    assert_eq!(config.auth.api_keys.len(), 2);
    assert!(
        load(&environment(&[(
            "FANFARE_AUTH__API_KEYS",
            "[\"one-key-for-backends\""
        )]))
        .is_err()
    );
}

#[test]
fn the_predecessors_environment_is_enough() {
    let secret = "0123456789abcdef0123456789abcdef";
    let config = load(&environment(&[
        ("NEXTAUTH_SECRET", secret),
        ("WS_PORT", "4000"),
        ("METRICS_PORT", "4001"),
        ("REDIS_URL", "redis://:password@redis:6379/0"),
    ]))
    .unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), secret.as_bytes());
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:4001");
    let unfilled = [("NEXTAUTH_SECRET", ""), ("WS_PORT", ""), ("REDIS_URL", "")];
    assert!(load(&environment(&unfilled)).unwrap().auth.secret.is_none());
}

#[test]
fn the_predecessors_secrets_may_be_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let secret = "0123456789abcdef0123456789abcdef";
    let config = load(&environment(&[
        ("NEXTAUTH_SECRET_FILE", &file("secret", secret)),
        ("REDIS_URL_FILE", &file("url", "redis://redis:6379/0\n")),
    ]))
    .unwrap();
    assert_eq!(config.auth.secret.unwrap().expose(), secret.as_bytes());
    assert_eq!(config.broker.redis.url.expose(), b"redis://redis:6379/0");
}

#[test]
fn a_redis_that_is_not_used_is_told() {
    let warned = |variables: &[(&str, &str)]| load(&environment(variables)).unwrap().warnings();
    let url = ("REDIS_URL", "redis://redis:6379");
    let warnings = warned(&[url]);
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("broker.redis.url (or REDIS_URL) is set")),
        "{warnings:?}"
    );
    let used = warned(&[
        url,
        ("FANFARE_BROKER__BACKEND", "redis"),
        ("NEXTAUTH_SECRET", "0123456789abcdef0123456789abcdef"),
    ]);
    assert_eq!(used, Vec::<String>::new());
}
