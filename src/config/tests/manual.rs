//! `config.toml` is the manual and the defaults: it must be complete, true, and what the contract says.

use super::*;

/// The manual with every setting switched on, as an operator would do it.
fn switched_on() -> String {
    MANUAL
        .lines()
        .map(|line| {
            let is_setting =
                line.starts_with('#') && line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
            format!("{}\n", if is_setting { &line[1..] } else { line })
        })
        .collect()
}

#[test]
fn a_copy_of_the_manual_changes_nothing_switched_on_or_off() {
    let folder = Folder::new();
    let defaults = format!("{:?}", load(&Sources::default()).unwrap());
    for text in [MANUAL.to_owned(), switched_on()] {
        let loaded = inspect(&file(&folder.file("config.toml", &text))).unwrap();
        assert_eq!(format!("{:?}", loaded.config), defaults);
        assert_eq!(loaded.changed, []);
    }
}

#[test]
fn the_manual_has_every_key_that_is_read_and_no_other() {
    let manual: std::collections::BTreeSet<String> =
        crate::config::keys::defaults().values.into_keys().collect();
    assert_eq!(manual, crate::config::load::asked());
    assert!(manual.len() > 60, "{}", manual.len());
}

#[test]
fn every_key_is_explained() {
    // Each setting stands below a comment, maybe with other settings between.
    let mut explained = false;
    for line in MANUAL.lines().skip_while(|line| !line.starts_with('#')) {
        match line.as_bytes() {
            [] => explained = false,
            [b'#', b' ', ..] => explained = true,
            [b'#', ..] | [b'[', ..] if line.starts_with("[channels.") => explained = true,
            [b'#', letter, ..] if letter.is_ascii_lowercase() => assert!(explained, "{line}"),
            _ => {}
        }
        assert!(line.chars().count() <= 110, "too long to read: {line}");
    }
}

/// Written down from the contract, sections 1, 4 and 6, not from the manual.
#[test]
fn the_defaults_are_the_contracts() {
    let config = load(&Sources::default()).unwrap();
    let seconds = Duration::from_secs;
    assert!(!config.dev);
    assert_eq!(config.data_dir, Path::new("./data"));

    let server = &config.server;
    assert_eq!(server.listen.to_string(), "127.0.0.1:3002");
    assert_eq!(
        server.workers,
        std::thread::available_parallelism().unwrap().get()
    );
    assert_eq!(server.public_url, "");
    assert_eq!(server.allowed_origins, AllowedOrigins::SameHostAnd(vec![]));
    let proxies: Vec<String> = server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["127.0.0.1/32", "::1/128"]);
    assert_eq!(server.shutdown_grace, seconds(10));
    assert!(!server.test_page);

    let auth = &config.auth;
    assert!(auth.secret.is_none() && auth.api_keys.is_empty());
    assert_eq!(
        (&*auth.issuer, &*auth.audience),
        ("fonana.me", "fonana-websocket")
    );
    assert_eq!(auth.token_ttl, TokenTtl::One(seconds(30 * 60)));
    assert_eq!(auth.refresh_ttl, seconds(30 * 24 * 60 * 60));
    assert_eq!(auth.refresh_grace, seconds(10));
    assert_eq!(auth.revocation_ttl, seconds(90 * 86_400));
    assert_eq!(auth.refresh_ttl_max, seconds(90 * 86_400));
    assert_eq!((auth.solana_chain, auth.ethereum_chain), ("mainnet", 1));
    assert!(auth.statement.starts_with("Sign in."));
    assert_eq!(auth.wallet_proof, WalletProof::Signature);
    assert!(auth.auto_provision && !auth.legacy_wallet_identity);

    assert_eq!(config.metrics.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.logs.dir, Path::new("./logs"));
    assert_eq!(config.logs.keep_days, 14);
    assert_eq!(config.logs.day_bytes, 1 << 30);
    assert_eq!(config.logs.free_bytes, 512 << 20);
    assert_eq!(config.console_interval, Some(seconds(60)));

    let kinds: Vec<(&str, Access)> = config
        .channels
        .0
        .iter()
        .map(|(kind, rule)| {
            assert_eq!(rule.publish, Access::None);
            assert!(!rule.presence && !rule.join_leave);
            assert_eq!(rule.slow, Slow::Close);
            let history = rule.history.unwrap();
            assert_eq!((history.entries, history.ttl), (100, seconds(24 * 60 * 60)));
            assert_eq!(history.durability, Durability::Commit);
            (kind.as_str(), rule.subscribe)
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("creator", Access::Any),
            ("feed", Access::Own),
            ("notifications", Access::Own),
            ("post", Access::Any),
        ]
    );

    let limits = &config.limits;
    assert_eq!(limits.connections, 0);
    assert_eq!(
        (limits.connections_per_user, limits.connections_per_address),
        (64, 256)
    );
    assert_eq!(limits.accepts_per_second, 2000);
    assert_eq!(limits.sign_in_per_minute, 10);
    assert_eq!(
        (limits.requests_per_second, limits.commands_per_second),
        (50, 50)
    );
    assert_eq!(
        (limits.message_bytes, limits.event_bytes),
        (64 << 10, 64 << 10)
    );
    assert_eq!((limits.body_bytes, limits.queue_bytes), (1 << 20, 1 << 20));
    assert_eq!(
        (limits.channels_per_connection, limits.channel_key_bytes),
        (128, 255)
    );
    assert_eq!(
        (limits.header_timeout, limits.body_timeout),
        (seconds(10), seconds(10))
    );
    assert_eq!(limits.queue_age, seconds(30));
    assert_eq!(limits.notifications_per_user, 1000);
    assert_eq!(limits.store_bytes, 1 << 30);
    assert_eq!(limits.history_bytes, 256 << 20);
}
