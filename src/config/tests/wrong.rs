//! Mistakes: each is found, says where it is and what would do, and none hides another.

use super::*;

/// `openssl genpkey -algorithm ed25519 | openssl pkey -pubout`
const PUBLIC_KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/public.pem");

/// The one mistake that this setting makes.
fn mistake(key: &str, value: &str) -> Mistake {
    let mut settings = vec![(key, value)];
    if key.starts_with("auth.issuers.x.") {
        settings.insert(0, ("auth.issuers.x.issuer", "x"));
        settings.insert(1, ("auth.issuers.x.jwks_url", "https://x.example"));
    }
    if let Some(field) = key.strip_prefix("auth.keys.k.") {
        assert_ne!(field, "pem_file");
        settings.insert(0, ("auth.keys.k.pem_file", PUBLIC_KEY));
    }
    let mut mistakes = load(&flags(&settings)).unwrap_err().0;
    assert_eq!(mistakes.len(), 1, "{key}={value}: {mistakes:?}");
    mistakes.remove(0)
}

#[test]
fn every_bad_value_is_told_with_what_is_accepted() {
    for (key, value, accepted) in [
        ("server.listen", "example.com:80", "IP:PORT"),
        ("server.listen", "127.0.0.1", "IP:PORT"),
        ("server.listen", "127.0.0.1:65536", "IP:PORT"),
        ("server.workers", "65", "0 to 64"),
        ("server.workers", "-1", "0 to 64"),
        ("server.public_url", "ftp://example.com", "https://"),
        ("server.public_url", "https://example.com/path", "https://"),
        ("server.public_url", "https://example.com?x", "https://"),
        (
            "server.allowed_origins",
            "https://*.example.com",
            "list of origins",
        ),
        ("server.allowed_origins", "*,https://example.com", "alone"),
        (
            "server.allowed_origins",
            "https://example.com/",
            "list of origins",
        ),
        ("server.trusted_proxies", "10.0.0.0/33", "10.0.0.0/8"),
        ("server.shutdown_grace", "11m", "10m"),
        ("server.shutdown_grace", "10", "unit"),
        ("server.test_page", "yes", "true or false"),
        ("data_dir", "", "folder"),
        ("auth.issuer", " ", "text"),
        ("auth.token_ttl", "0s", "from 1s"),
        ("auth.token_ttl", "30m:0", "weights from 1"),
        ("auth.token_ttl", "30m:1, 30m:2", "different"),
        ("auth.token_ttl", "30m:1, 31d:1", "from 1s to 30d"),
        ("auth.token_ttl", "1m,2m,3m,4m,5m,6m,7m,8m,9m", "1 to 8"),
        ("auth.refresh_ttl", "2years", "365d"),
        ("auth.refresh_grace", "soon", "\"30s\""),
        ("auth.previous_until", "tomorrow", "2026-12-24T00:00:00Z"),
        ("auth.signing_key", "nobody", "[auth.keys.KID]"),
        ("auth.keys.k.until", "2026-12-24", "2026-12-24T00:00:00Z"),
        (
            "auth.issuers.x.jwks_url",
            "http://issuer.example/",
            "https://",
        ),
        (
            "auth.issuers.x.jwks_url",
            "https://u:p@issuer.example/",
            "https://",
        ),
        ("auth.issuers.x.algorithms", "HS256", "\"RS256\""),
        ("auth.issuers.x.algorithms", "", "\"RS256\""),
        ("auth.wallet_proof", "maybe", "\"signature\", \"none\""),
        ("broker.backend", "kafka", "\"embedded\""),
        ("broker.redis.prefix", "ws*", "none of"),
        ("metrics.listen", "9090", "IP:PORT"),
        ("logs.keep_days", "0", "1 to 3650"),
        ("logs.day_bytes", "much", "\"1GiB\""),
        ("logs.free_bytes", "-1", "\"1GiB\""),
        ("stats.console_interval", "1ms", "\"0s\" for never"),
        ("channels.post.subscribe", "all", "\"any\""),
        ("channels.post.history", "1.5", "whole number"),
        ("channels.post.history_ttl", "0s", "from 1s"),
        (
            "channels.post.durability",
            "fast",
            "\"commit\", \"relaxed\"",
        ),
        ("channels.post.subscribe", "backend", "channels.backend.url"),
        (
            "channels.backend.url",
            "http://app",
            "channels.backend.secret",
        ),
        ("channels.backend.url", "ftp://app", "https://"),
        ("channels.backend.url", "http://u:p@app", "https://"),
        ("channels.backend.url", "http://app/#x", "https://"),
        ("channels.backend.timeout", "5s", "to 4s"),
        ("channels.post.join_leave", "true", "presence = true"),
        (
            "channels.post.slow",
            "drop",
            "\"close\", \"drop_oldest\", \"latest_only\"",
        ),
        ("limits.queue_age", "2h", "to 1h"),
        ("limits.connections", "many", "whole number"),
        ("limits.queue_bytes", "64 potatoes", "\"64KiB\""),
        ("limits.queue_bytes", "0.1B", "0 is unlimited"),
        ("limits.queue_bytes", "-1", "\"64KiB\""),
        ("limits.store_bytes", "2PiB", "up to 1PiB"),
        ("limits.header_timeout", "2h", "duration"),
    ] {
        let mistake = mistake(key, value);
        assert_eq!(mistake.key, key);
        let shown = value.replace("u:p@", "***@");
        assert_eq!(mistake.value, Some(format!("{shown:?}")));
        assert_eq!(mistake.origin, Some(Origin::Flag("--set")));
        let told = mistake.accepted.unwrap_or_default();
        assert!(told.contains(accepted), "{key}={value}: {told}");
    }
}

#[test]
fn a_value_of_another_kind_is_shown_as_it_was_written() {
    for value in [
        "1.5",
        "9223372036854775808",
        "0xffffffffffffffff",
        "2026-12-24",
    ] {
        let mistakes = toml(&format!("[limits]\nqueue_bytes = {value}")).unwrap_err();
        assert_eq!(mistakes.0[0].value.as_deref(), Some(value));
    }
}

#[test]
fn what_was_probably_meant_is_said() {
    for (key, value, meant) in [
        ("limits.queue_byte", "1", "limits.queue_bytes"),
        ("queue_bytes", "1", "limits.queue_bytes"),
        ("server.token_ttl", "1m", "auth.token_ttl"),
        ("channels.chat.histroy", "1", "channels.chat.history"),
        ("channels.backend.urls", "1", "channels.backend.url"),
        ("auth.wallet_proof", "signatur", "\"signature\""),
        ("channels.post.publish", "onw", "\"own\""),
        ("broker.backend", "embeded", "\"embedded\""),
        (
            "server.listen",
            ":3002",
            "\"127.0.0.1:3002\" or \"0.0.0.0:3002\"",
        ),
        (
            "server.public_url",
            "https://example.com/rt/",
            "\"https://example.com\"",
        ),
        (
            "server.allowed_origins",
            "example.com",
            "\"https://example.com\"",
        ),
        (
            "server.allowed_origins",
            "localhost:3000",
            "\"https://localhost:3000\"",
        ),
    ] {
        assert_eq!(
            mistake(key, value).suggestion.as_deref(),
            Some(meant),
            "{key}={value}"
        );
    }
    let variable = load(&environment(&[("FANFARE_LIMITS_QUEUE_BYTES", "1")])).unwrap_err();
    let suggestion = variable.0[0].suggestion.as_deref();
    assert_eq!(suggestion, Some("FANFARE_LIMITS__QUEUE_BYTES"));
    let section = toml("[limts]").unwrap_err();
    assert_eq!(section.0[0].suggestion.as_deref(), Some("limits"));
}

#[test]
fn localhost_is_an_address() {
    let config = load(&flags(&[("server.listen", "localhost:1")])).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:1");
}

#[test]
fn keys_and_issuers_are_told_what_they_lack() {
    let told = |text: &str| toml(text).unwrap_err().to_string();
    let pem = format!("pem_file = {PUBLIC_KEY:?}\n");
    for (text, expected) in [
        ("[auth.keys.k]\n".to_owned(), "there is no key"),
        (
            "[auth.keys.K_1]\n".to_owned(),
            "lower-case letters, digits and hyphens",
        ),
        (
            format!("[auth.keys.k]\n{pem}[auth]\nsigning_key = \"k\"\n"),
            "public key, which signs nothing",
        ),
        (
            "[auth.keys.k]\npem = \"hunter2\"\n".to_owned(),
            "not a PEM text",
        ),
        (
            "[auth.keys.k]\npem = \"-----BEGIN EC PRIVATE KEY-----\\n\"\n".to_owned(),
            "openssl pkcs8 -topk8",
        ),
        (
            "[auth.keys.k]\npem = \"-----BEGIN ENCRYPTED PRIVATE KEY-----\\n\"\n".to_owned(),
            "is encrypted",
        ),
        (
            (0..9)
                .map(|nth| format!("[auth.keys.k{nth}]\n{pem}"))
                .collect(),
            "8 at most",
        ),
        ("[auth.issuers.x]\n".to_owned(), "auth.issuers.x.jwks_url"),
        (
            format!("[auth]\nprevious_secret = \"{}\"\n", "x".repeat(32)),
            "believed for ever",
        ),
        (
            ["a", "b"]
                .map(|name| {
                    format!("[auth.issuers.{name}]\nissuer = \"x\"\njwks_url = \"https://x.y\"\n")
                })
                .concat(),
            "each issuer once",
        ),
    ] {
        let mistakes = told(&text);
        assert!(mistakes.contains(expected), "{text}\n{mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

#[test]
fn a_channel_type_has_no_underscore_and_is_told_why() {
    let mistakes = toml("[channels.live_room]\nhistory = 1\n[channels.Post]\n").unwrap_err();
    assert_eq!(mistakes.0.len(), 2, "{mistakes}");
    assert!(mistakes.to_string().contains("ends the type"), "{mistakes}");
}

#[test]
fn sections_and_settings_are_not_mixed_up() {
    let mistakes = toml("limits = 3\n[data_dir]\n[auth.token_ttl]\nx = 1\n[zebra]\nstripes = 1\n")
        .unwrap_err();
    let told: Vec<(&str, &str)> = mistakes
        .0
        .iter()
        .map(|mistake| (mistake.key.as_str(), mistake.problem.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("limits", "is a section, not a setting"),
            ("data_dir", "is a setting, not a section"),
            ("auth.token_ttl", "is a setting, not a section"),
            ("zebra", "there is no such section"),
        ],
        "and what is below them is not told again"
    );
}

#[test]
fn dev_stays_on_this_machine() {
    let sources = Sources {
        dev: true,
        ..flags(&[
            ("server.listen", "0.0.0.0:3002"),
            ("metrics.listen", "192.0.2.1:1"),
        ])
    };
    let mistakes = load(&sources).unwrap_err();
    let keys: Vec<&str> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(keys, ["server.listen", "metrics.listen"]);
    assert!(mistakes.to_string().contains("--dev"), "{mistakes}");
}

#[test]
fn two_listeners_need_two_addresses() {
    let twice = mistake("metrics.listen", "127.0.0.1:3002");
    assert!(twice.problem.contains("server.listen"), "{twice}");
    assert!(
        load(&flags(&[
            ("metrics.listen", "127.0.0.1:0"),
            ("server.listen", "127.0.0.1:0")
        ]))
        .is_ok()
    );
}

#[test]
fn syntax_errors_have_line_and_column_and_hide_nothing_else() {
    let folder = Folder::new();
    let path = folder.file(
        "config.toml",
        "[server]\n\nlisten = = 3\n[limits]\nqueue_byte = 1\n",
    );
    let sources = Sources {
        file: Some(path.clone()),
        ..flags(&[("server.workers", "x")])
    };
    let mistakes = load(&sources).unwrap_err();
    let syntax = &mistakes.0[0];
    assert_eq!(syntax.key, "TOML syntax");
    assert_eq!(syntax.origin, Some(Origin::File { path, line: 3 }));
    assert!(syntax.problem.starts_with("column "), "{syntax}");
    let keys: Vec<&str> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert!(
        keys.contains(&"limits.queue_byte") && keys.contains(&"server.workers"),
        "{keys:?}"
    );
}

#[test]
fn a_file_that_was_asked_for_has_to_be_there() {
    let mistakes = load(&file(Path::new("/nowhere/config.toml"))).unwrap_err();
    assert_eq!(mistakes.0[0].key, "--config");
    assert!(
        mistakes.to_string().contains("/nowhere/config.toml"),
        "{mistakes}"
    );
}

#[test]
fn every_source_is_heard_at_once_in_order() {
    let folder = Folder::new();
    let text = "data_dir = 7\n[limits]\nqueue_bytes = \"x\"\n[auth]\ntoken_ttl = 30\n";
    let sources = Sources {
        file: Some(folder.file("config.toml", text)),
        environment: vec![
            ("WS_PORT".into(), "99999".into()),
            ("FANFARE_SERVER__WORKERS".into(), "x".into()),
        ],
        flags: vec![
            set("logs.keep_days", "x"),
            Flag {
                name: "--set",
                key: "x".into(),
                value: None,
            },
        ],
        ..Sources::default()
    };
    let mistakes = load(&sources).unwrap_err();
    let keys: Vec<&str> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "data_dir",
            "limits.queue_bytes",
            "auth.token_ttl",
            "server.listen",
            "server.workers",
            "x",
            "logs.keep_days",
        ]
    );
    assert!(
        mistakes.to_string().contains("config.toml, line 3"),
        "{mistakes}"
    );
}

#[test]
fn redis_urls_are_checked_and_never_shown() {
    for url in [
        "redis://127.0.0.1:6379",
        "rediss://user:p%40ss@redis.example.com/3",
        "redis://a:7000,b:7001,redis://c:7002",
        "redis+sentinel://:pw@a:26379,b:26379/mymaster/0?x=1",
        "redis://[::1]:6379",
    ] {
        assert!(load(&environment(&[("REDIS_URL", url)])).is_ok(), "{url}");
    }
    for url in [
        "127.0.0.1:6379",
        "http://a",
        "redis://",
        "redis://a:x",
        "redis://a,,b",
        "redis+sentinel://a:26379",
        "redis+sentinel://a:26379/?x=1",
    ] {
        let mistakes = load(&environment(&[("REDIS_URL", url)])).unwrap_err();
        assert_eq!(mistakes.0[0].key, "broker.redis.url", "{url}");
        assert_eq!(mistakes.0[0].value, None, "it may hold a password");
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_text_is_a_mistake_and_no_guess() {
    use std::os::unix::ffi::OsStringExt;
    let garbled = std::ffi::OsString::from_vec(vec![0xff; 40]);
    let sources = Sources {
        environment: vec![
            ("NEXTAUTH_SECRET".into(), garbled.clone()),
            ("FANFARE_AUTH__ISSUER".into(), garbled.clone()),
            ("LS_COLORS".into(), garbled),
        ],
        ..Sources::default()
    };
    let mistakes = load(&sources).unwrap_err();
    let keys: Vec<&str> = mistakes
        .0
        .iter()
        .map(|mistake| mistake.key.as_str())
        .collect();
    assert_eq!(keys, ["auth.secret", "auth.issuer"]);
    let folder = Folder::new();
    let binary = folder.file("config.toml", [0xff; 4]);
    assert!(
        load(&file(&binary))
            .unwrap_err()
            .to_string()
            .contains("not UTF-8")
    );
    let large = folder.file("config.toml", "#".repeat(1024 * 1024 + 1));
    assert!(
        load(&file(&large))
            .unwrap_err()
            .to_string()
            .contains("larger than 1 MiB")
    );
}

#[test]
fn a_hostile_file_ends_in_mistakes() {
    let deep = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(toml(&deep).is_err());
    assert!(toml(&format!("{} = 1", "a.".repeat(50_000) + "a")).is_err());
    assert!(toml("[limits]\nqueue_bytes = 99999999999999999999").is_err());
    assert!(toml("[limits]\nqueue_bytes = \"99999999999999999999GiB\"").is_err());
}
