//! The settings as operators write them. The manual has its tests in `manual`, the mistakes in `wrong`.

mod environment;
mod live;
mod manual;
mod secrets;
mod wrong;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("fanfare-config-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Nothing but the file.
fn file(path: &Path) -> Sources {
    Sources {
        file: Some(path.to_owned()),
        ..Sources::default()
    }
}

/// Nothing but these variables.
fn environment(variables: &[(&str, &str)]) -> Sources {
    Sources {
        environment: variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        ..Sources::default()
    }
}

fn set(key: &str, value: &str) -> Flag {
    Flag {
        name: "--set",
        key: key.to_owned(),
        value: Some(value.to_owned()),
    }
}

/// Nothing but these flags.
fn flags(settings: &[(&str, &str)]) -> Sources {
    Sources {
        flags: settings
            .iter()
            .map(|(key, value)| set(key, value))
            .collect(),
        ..Sources::default()
    }
}

/// The configuration that this text of a file gives.
fn toml(text: &str) -> Result<Config, Mistakes> {
    let folder = Folder::new();
    load(&file(&folder.file("config.toml", text)))
}

#[test]
fn later_sources_win_one_by_one() {
    let folder = Folder::new();
    let path = folder.file("config.toml", "[server]\nlisten = \"0.0.0.0:1\"\n");
    let mut sources = Sources::default();
    let mut listen = |change: &dyn Fn(&mut Sources)| {
        change(&mut sources);
        load(&sources).unwrap().server.listen.to_string()
    };
    assert_eq!(listen(&|_| {}), "127.0.0.1:3002");
    assert_eq!(
        listen(&|sources| sources.environment.push(("WS_PORT".into(), "2".into()))),
        "127.0.0.1:2",
        "the predecessor's port, with the default address"
    );
    assert_eq!(
        listen(&|sources| sources.file = Some(path.clone())),
        "0.0.0.0:2",
        "stronger than the file, whose address it keeps"
    );
    let variable = ("FANFARE_SERVER__LISTEN".into(), "[::1]:3".into());
    // Put first: it is the name that decides, not the order.
    assert_eq!(
        listen(&|sources| sources.environment.insert(0, variable.clone())),
        "[::1]:3"
    );
    assert_eq!(
        listen(&|sources| sources.flags.push(set("server.listen", "127.0.0.1:4"))),
        "127.0.0.1:4"
    );
}

#[test]
fn dev_is_weaker_than_what_somebody_wrote() {
    let dev = Sources {
        dev: true,
        ..Sources::default()
    };
    let config = load(&dev).unwrap();
    assert!(config.dev && config.server.test_page);
    assert_eq!(config.auth.wallet_proof, WalletProof::None);
    let told = Sources {
        dev: true,
        ..flags(&[
            ("auth.wallet_proof", "signature"),
            ("server.test_page", "false"),
        ])
    };
    let config = load(&told).unwrap();
    assert!(config.dev && !config.server.test_page);
    assert_eq!(config.auth.wallet_proof, WalletProof::Signature);
}

#[test]
fn the_first_file_of_the_search_that_exists_is_read() {
    let folder = Folder::new();
    let there = folder.file("b.toml", "data_dir = \"/b\"");
    let sources = Sources {
        search: vec![folder.0.join("a.toml"), there.clone()],
        ..Sources::default()
    };
    let loaded = inspect(&sources).unwrap();
    assert_eq!(loaded.config.data_dir, Path::new("/b"));
    assert_eq!(loaded.file, Some(there));
}

#[test]
fn a_channel_table_changes_only_what_it_names() {
    let config =
        toml("[channels.feed]\nhistory = 0\n[channels.room]\n[channels.chat]\npublish = \"any\"")
            .unwrap();
    let feed = config.channels.rule("feed").unwrap();
    assert_eq!((feed.subscribe, feed.history), (Access::Own, None));
    let room = config.channels.rule("room").unwrap();
    assert_eq!((room.subscribe, room.publish), (Access::None, Access::None));
    let chat = config.channels.rule("chat").unwrap();
    assert_eq!((chat.subscribe, chat.publish), (Access::None, Access::Any));
    assert_eq!(chat.history.unwrap().ttl, Duration::from_secs(24 * 60 * 60));
    assert!(config.channels.rule("other").is_none());
}

#[test]
fn keys_and_issuers_are_tables_of_their_names() {
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/public.pem");
    let config = load(&environment(&[
        ("FANFARE_AUTH__KEYS__2026_11__PEM_FILE", pem),
        (
            "FANFARE_AUTH__KEYS__2026_11__UNTIL",
            "2026-12-24T01:00:00+01:00",
        ),
        (
            "FANFARE_AUTH__ISSUERS__APP_1__ISSUER",
            "https://app.example/",
        ),
        (
            "FANFARE_AUTH__ISSUERS__APP_1__JWKS_URL",
            "https://app.example/keys",
        ),
        ("FANFARE_AUTH__ISSUERS__LOCAL__ISSUER", "local"),
        ("FANFARE_AUTH__ISSUERS__LOCAL__AUDIENCE", "here"),
        (
            "FANFARE_AUTH__ISSUERS__LOCAL__JWKS_URL",
            "http://127.0.0.1:1/",
        ),
        ("FANFARE_AUTH__ISSUERS__LOCAL__ALGORITHMS", "ES256, RS256"),
    ]))
    .unwrap();
    let [key] = config.auth.keys.as_slice() else {
        panic!("{:?}", config.auth.keys)
    };
    assert_eq!(
        (key.kid.as_str(), key.pair.algorithm),
        ("2026-11", Algorithm::EdDSA)
    );
    assert_eq!(key.until_unix_ms, Some(1_798_070_400_000));
    let [app, local] = config.auth.issuers.as_slice() else {
        panic!("{:?}", config.auth.issuers)
    };
    assert_eq!(
        (app.name.as_str(), app.audience.as_str()),
        ("app-1", "fonana-websocket")
    );
    assert_eq!(
        app.algorithms,
        [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
    );
    assert_eq!(local.audience, "here");
    assert_eq!(local.algorithms, [Algorithm::ES256, Algorithm::RS256]);
    assert_eq!(config.auth.signing_key, None);
}

#[test]
fn lives_of_tokens_may_be_tried() {
    let variants = |text: &str| {
        let config = load(&flags(&[("auth.token_ttl", text)])).unwrap();
        match config.auth.token_ttl {
            TokenTtl::One(_) => Vec::new(),
            TokenTtl::Variants(variants) => variants
                .into_iter()
                .map(|variant| format!("{} {}", variant.name, variant.weight))
                .collect(),
        }
    };
    assert_eq!(variants("30m:9, 5m:1"), ["30m 9", "5m 1"]);
    assert_eq!(variants("1h 30m,45s : 2"), ["90m 1", "45s 2"]);
    assert_eq!(variants("30m:9"), [""; 0]);
    assert_eq!(variants("30m"), [""; 0]);
    let listed = toml("[auth]\ntoken_ttl = [\"30m:9\", \"5m\"]").unwrap();
    assert_eq!(listed.auth.token_ttl.longest(), Duration::from_secs(1_800));
}

#[test]
fn a_backend_to_ask_is_no_channel_type() {
    let secret = "0123456789abcdef0123456789abcdef";
    let sources = Sources {
        environment: vec![("FANFARE_CHANNELS__BACKEND__SECRET".into(), secret.into())],
        ..flags(&[
            ("channels.backend.url", "https://app.example/access?x=1"),
            ("channels.backend.cache_ttl", "0s"),
            ("channels.room.subscribe", "backend"),
        ])
    };
    let config = load(&sources).unwrap();
    let backend = config.access_backend.as_ref().unwrap();
    assert_eq!(backend.url, "https://app.example/access?x=1");
    assert_eq!(backend.secret.expose(), secret.as_bytes());
    assert_eq!(backend.timeout, Duration::from_secs(2));
    assert_eq!(backend.cache_ttl, Duration::ZERO);
    assert!(config.channels.rule("backend").is_none());
    assert_eq!(
        config.channels.rule("room").unwrap().subscribe,
        Access::Backend
    );
    assert_eq!(config.warnings(), Vec::<String>::new());
    assert!(load(&Sources::default()).unwrap().access_backend.is_none());
}

#[test]
fn asking_in_the_clear_across_a_network_is_warned_of() {
    for (url, warned) in [
        ("http://localhost:3000/access", 0),
        ("http://127.8.8.8/access", 0),
        ("http://[::1]/access", 0),
        ("https://10.0.0.1/access", 0),
        ("http://10.0.0.1/access", 1),
        ("http://localhost.example.com/", 1),
    ] {
        let secret = ("FANFARE_CHANNELS__BACKEND__SECRET", "x".repeat(32));
        let sources = Sources {
            environment: vec![(secret.0.into(), secret.1.into())],
            ..flags(&[("channels.backend.url", url)])
        };
        let warnings = load(&sources).unwrap().warnings();
        assert_eq!(warnings.len(), warned, "{url}: {warnings:?}");
    }
}

#[test]
fn a_channel_type_may_answer_before_the_disk() {
    let config = toml("[channels.feed]\ndurability = \"relaxed\"\n[channels.chat]").unwrap();
    let durability = |kind| {
        config
            .channels
            .rule(kind)
            .unwrap()
            .history
            .unwrap()
            .durability
    };
    assert_eq!(durability("feed"), Durability::Relaxed);
    assert_eq!(durability("chat"), Durability::Commit);
}

#[test]
fn zero_is_unlimited_but_for_connections() {
    let text: String = MANUAL
        .lines()
        .skip_while(|line| *line != "[limits]")
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .map(
            |(key, _)| match key.ends_with("_timeout") || key.ends_with("_age") {
                true => format!("{key} = \"0s\"\n"),
                false if key == "dry_run" => String::new(),
                false => format!("{key} = 0\n"),
            },
        )
        .collect();
    let limits = toml(&format!("[limits]\n{text}")).unwrap().limits;
    assert_eq!(limits.connections, 0);
    let counts = [
        limits.connections_per_user,
        limits.connections_per_address,
        limits.message_bytes,
        limits.event_bytes,
        limits.body_bytes,
        limits.channels_per_connection,
        limits.channel_key_bytes,
        limits.queue_bytes,
        limits.notifications_per_user,
    ];
    assert_eq!(counts, [usize::MAX; 9]);
    let rates = [
        limits.accepts_per_second,
        limits.sign_in_per_minute,
        limits.requests_per_second,
        limits.commands_per_second,
    ];
    assert_eq!(rates, [u32::MAX; 4]);
    assert_eq!(
        (limits.store_bytes, limits.history_bytes),
        (u64::MAX, u64::MAX)
    );
    let day = Duration::from_secs(24 * 60 * 60);
    for unlimited in [limits.header_timeout, limits.body_timeout, limits.queue_age] {
        assert!(unlimited > day);
    }
}

#[test]
fn what_is_dangerous_is_warned_of() {
    let warned = |settings: &[(&str, &str)]| load(&flags(settings)).unwrap().warnings();
    assert_eq!(warned(&[]), Vec::<String>::new());
    assert_eq!(
        warned(&[("auth.wallet_proof", "none")]),
        Vec::<String>::new()
    );
    let public = ("server.listen", "0.0.0.0:3002");
    let host = warned(&[public]);
    assert!(host.len() == 1 && host[0].starts_with("server.public_url"));
    assert_eq!(
        warned(&[public, ("server.public_url", "https://rt.example")]),
        Vec::<String>::new()
    );
    for (key, value) in [
        ("auth.wallet_proof", "none"),
        ("server.allowed_origins", "*"),
        ("auth.legacy_wallet_identity", "true"),
        ("metrics.listen", "0.0.0.0:9090"),
        ("auth.refresh_ttl", "1m"),
        ("limits.dry_run", "true"),
        ("limits.queue_bytes", "1KiB"),
        ("limits.body_bytes", "1KiB"),
    ] {
        let named = ("server.public_url", "https://rt.example");
        let warnings = warned(&[public, named, (key, value)]);
        assert_eq!(warnings.len(), 1, "{key}: {warnings:?}");
        assert!(warnings[0].starts_with(key), "{key}: {warnings:?}");
    }
}

#[test]
fn what_differs_from_the_defaults_is_known_with_its_origin() {
    let sources = Sources {
        environment: vec![("FANFARE_LOGS__KEEP_DAYS".into(), "3".into())],
        ..flags(&[
            ("limits.body_bytes", "1048576"),
            ("limits.queue_bytes", "3MiB"),
        ])
    };
    let changed: Vec<String> = inspect(&sources)
        .unwrap()
        .changed
        .iter()
        .map(|setting| format!("{} {} {}", setting.key, setting.value, setting.origin))
        .collect();
    assert_eq!(
        changed,
        [
            "limits.queue_bytes \"3MiB\" flag --set",
            "logs.keep_days \"3\" environment variable FANFARE_LOGS__KEEP_DAYS",
        ],
        "and 1048576 is the default's 1MiB"
    );
}
