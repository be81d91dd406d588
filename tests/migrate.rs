//! `fanfare migrate`: from the embedded backend to Redis and back, without anybody noticing.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use fanfare::broker::migration::{self, Checkpoint, MigrationError, Record, Target};
use fanfare::broker::{
    Broker, Durability, NewNotification, Publication, Retention, Store, UserChange, embedded, redis,
};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};
use serde_json::{Value, json};
use support::redis::{Cluster, RedisServer};
use support::{Client, Dice, Reply, Server, SolanaWallet, eventually};
use tempfile::TempDir;

const REFUSED: i32 = 4;

/// One that knows both sides, and starts on the embedded one.
fn server(url: &str) -> Server {
    Server::start(&[
        ("broker.backend", "embedded"),
        ("broker.redis.url", url),
        ("auth.wallet_proof", "signature"),
        ("auth.refresh_grace", "1h"),
        ("server.public_url", "https://fonana.me"),
        ("channels.chat.subscribe", "any"),
        ("channels.chat.history", "1000"),
    ])
}

fn migrate(server: &Server, more: &[&str]) -> Output {
    server.run(&[&["migrate", "--json"], more].concat())
}

#[track_caller]
fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {told}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn is_refused(output: &Output, code: i32, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(why), "{told}");
}

/// Takes everything of a server that was stopped to the other backend, and starts it there.
#[track_caller]
fn move_to(server: &mut Server, backend: &str, more: &[&str]) -> Value {
    let report = report(&migrate(server, &[&["--to", backend], more].concat()));
    server.set("broker.backend", backend);
    server.restart();
    report
}

fn recover(client: &mut Client, channel: &str, epoch: &Value, offset: u64) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel,
        "recover": {"epoch": epoch, "offset": offset}}));
    client.next_of("subscribed")["data"].clone()
}

/// Recovers, and gets exactly the events of these numbers.
#[track_caller]
fn gets(server: &Server, channel: &str, epoch: &Value, offset: u64, numbers: &[u64]) -> Value {
    let mut client = server.connect("u1");
    let subscribed = recover(&mut client, channel, epoch, offset);
    assert_eq!(subscribed["recovered"], true, "{channel}: {subscribed}");
    for n in numbers {
        assert_eq!(client.next()["n"], *n, "{channel}: {}", client.tell());
    }
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.next()["type"], "pong", "{}", client.tell());
    subscribed["epoch"].clone()
}

fn publish(server: &Server, channel: &str, numbers: std::ops::RangeInclusive<u64>) -> Value {
    let mut last = Value::Null;
    for n in numbers {
        last = server.publish(channel, json!({"type": "tick", "n": n}));
    }
    last["epoch"].clone()
}

fn once(server: &Server, path: &str, key: &str, body: &Value) -> Reply {
    let headers = [("X-API-Key", server.api_key()), ("Idempotency-Key", key)];
    server.json("POST", path, &headers, body)
}

/// All of a user's notifications, as the API shows them.
fn notes(server: &Server, user: &str) -> Value {
    let path = "/api/user/notifications?limit=100";
    let mut page = server
        .as_user(user, "GET", path, &Value::Null)
        .expect(200)
        .json();
    page.as_object_mut().unwrap().remove("nextCursor");
    page
}

fn challenge(server: &Server, wallet: &SolanaWallet) -> Value {
    let body = json!({"wallet": wallet.address()});
    let challenge = server.json("POST", "/api/auth/challenge", &[], &body);
    let message = challenge.expect(200).json()["message"].clone();
    let signature = wallet.sign_text(message.as_str().unwrap());
    json!({"wallet": wallet.address(), "message": message, "signature": signature})
}

fn refresh(server: &Server, token: &Value) -> Reply {
    let body = json!({"refreshToken": token});
    server.json("POST", "/api/auth/refresh", &[], &body)
}

/// What a server was told before it moved.
struct Told {
    wallet: SolanaWallet,
    signed_in: Value,
    /// The first refresh token has been used, its successor has not.
    refreshed: Value,
    challenge: Value,
    revoked: String,
    notes: [Value; 2],
    once: [Value; 2],
    chat: Value,
    quiet: Value,
}

const PUBLISH: &str = "/api/publish";
const NOTIFY: &str = "/api/user/notifications";

fn once_event() -> Value {
    json!({"channel": "chat_once", "event": {"type": "once"}})
}

fn once_note() -> Value {
    json!({"userId": "u2", "type": "like", "title": "once", "message": "m", "metadata": {"a": [1, {}]}})
}

/// Something of every kind.
fn tell(server: &Server) -> Told {
    let mut dice = Dice::from_environment();
    let wallet = SolanaWallet::new(&mut dice);
    let user = json!({"id": "u1", "nickname": "ü \"n\"", "wallet": dice.wallet()});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    let user = json!({"id": "u:{2}", "nickname": "x"});
    server.as_backend("PUT", "/api/users", &user).expect(200);
    let signed_in = challenge(server, &wallet);
    let signed_in = server
        .json("POST", "/api/auth/wallet", &[], &signed_in)
        .expect(200)
        .json();
    let refreshed = refresh(server, &signed_in["refreshToken"])
        .expect(200)
        .json();

    let mut claims = server.claims("u1");
    claims["jti"] = json!("gone");
    let revoked = server.token_with(&claims);
    server
        .as_backend("POST", "/api/auth/revoke", &json!({"jti": "gone"}))
        .expect(200);

    for n in 0..5 {
        let note = server.notify("u1", &format!("note {n}"));
        if n % 2 == 0 {
            let read = json!({"notificationId": note["id"], "isRead": true});
            server.as_user("u1", "PATCH", NOTIFY, &read).expect(200);
        }
    }
    let kept_note = once(server, NOTIFY, "k", &once_note()).expect(201).json();
    let kept_event = once(server, PUBLISH, "k", &once_event()).expect(200).json();

    let mut client = server.connect("u1");
    let quiet = client.subscribe("chat_quiet")["data"]["epoch"].clone();
    let chat = publish(server, "chat_{1}", 1..=5);
    client.close();
    // The newest is among what is missed, whichever the clock says.
    publish(server, "chat_{1}", 6..=9);
    Told {
        challenge: challenge(server, &wallet),
        wallet,
        signed_in,
        refreshed,
        revoked,
        notes: [notes(server, "u1"), notes(server, "u2")],
        once: [kept_note, kept_event],
        chat,
        quiet,
    }
}

#[track_caller]
fn has_all(server: &Server, told: &Told) {
    assert_eq!(notes(server, "u1"), told.notes[0]);
    assert_eq!(notes(server, "u2"), told.notes[1]);
    assert_eq!(told.notes[0]["unreadCount"], 2);
    let bearer = format!("Bearer {}", told.revoked);
    let refused = server.http("GET", "/api/auth/wallet", &[("Authorization", &bearer)], "");
    assert_eq!(refused.expect(401).json()["code"], "token_revoked");
    let again = once(server, NOTIFY, "k", &once_note()).json();
    assert_eq!(again["notification"], told.once[0]["notification"]);
    let again = once(server, PUBLISH, "k", &once_event()).json();
    assert_eq!(again["offset"], told.once[1]["offset"]);
    assert_eq!(again["epoch"], told.once[1]["epoch"]);
    // The reply to the first refresh was lost: within the grace it is given again.
    let again = refresh(server, &told.signed_in["refreshToken"])
        .expect(200)
        .json();
    assert_eq!(again["refreshToken"], told.refreshed["refreshToken"]);
    assert_eq!(again["user"], told.signed_in["user"]);
}

#[test]
fn clients_go_on_as_after_any_restart() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    let told = tell(&server);

    server.terminate();
    let moved = move_to(&mut server, "redis", &[]);
    assert_eq!(moved["resumed"], false);
    for kind in [
        "users",
        "notifications",
        "channels",
        "events",
        "revocations",
        "sign-ins",
    ] {
        let row = &moved["compared"]["rows"][kind];
        assert!(row["source"].as_u64() > Some(0), "{kind}: {moved}");
        assert_eq!(row["source"], row["target"]);
        assert_eq!(row["sourceDigest"], row["targetDigest"]);
    }
    has_all(&server, &told);
    gets(&server, "chat_{1}", &told.chat, 5, &[6, 7, 8, 9]);
    assert_eq!(publish(&server, "chat_{1}", 10..=11), told.chat);
    gets(&server, "chat_{1}", &told.chat, 9, &[10, 11]);
    // A channel that had no event: its epoch was that of all such channels.
    let quiet = gets(&server, "chat_quiet", &told.quiet, 0, &[]);
    assert_ne!(quiet, told.quiet);
    publish(&server, "chat_quiet", 1..=2);
    assert_eq!(gets(&server, "chat_quiet", &told.quiet, 0, &[1, 2]), quiet);
    gets(&server, "chat_quiet", &quiet, 1, &[2]);
    let signed_in = server.json("POST", "/api/auth/wallet", &[], &told.challenge);
    assert_eq!(
        signed_in.expect(200).json()["user"]["id"],
        told.signed_in["user"]["id"]
    );
    let open = challenge(&server, &told.wallet);
    let silent = server.connect("u1").subscribe("chat_silent")["data"]["epoch"].clone();

    // And back. What is there is not written over.
    server.terminate();
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        REFUSED,
        "--replace",
    );
    let moved = move_to(&mut server, "embedded", &["--replace"]);
    let aside = Path::new(moved["aside"].as_str().unwrap());
    let aside = server.data_dir().join(aside.file_name().unwrap());
    assert!(aside.exists(), "{moved}");
    has_all(&server, &told);
    gets(&server, "chat_{1}", &told.chat, 9, &[10, 11]);
    gets(&server, "chat_quiet", &quiet, 1, &[2]);
    assert_eq!(gets(&server, "chat_silent", &silent, 0, &[]), silent);
    assert_eq!(publish(&server, "chat_silent", 1..=1), silent);
    let signed_in = server.json("POST", "/api/auth/wallet", &[], &open);
    assert_eq!(
        signed_in.expect(200).json()["user"]["id"],
        told.signed_in["user"]["id"]
    );
    // The successor goes on from here.
    refresh(&server, &told.refreshed["refreshToken"]).expect(200);

    // Redis was left: whoever goes back to it begins new epochs.
    server.terminate();
    server.set("broker.backend", "redis");
    server.restart();
    let mut client = server.connect("u1");
    let subscribed = recover(&mut client, "chat_{1}", &told.chat, 9);
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    assert_eq!(subscribed["reason"], "epoch_changed");
}

#[test]
fn there_and_back_is_the_same_on_a_cluster_too() {
    let cluster = Cluster::start();
    let mut server = server(&cluster.nodes[0].url());
    tell(&server);
    publish(&server, "post_1", 1..=3);
    server.terminate();
    let there = report(&migrate(&server, &["--to", "redis"]));
    let back = report(&migrate(&server, &["--to", "embedded", "--replace"]));
    let rows = |report: &Value| report["compared"]["rows"].clone();
    assert_eq!(rows(&there), rows(&back));
    assert!(there["copied"].as_u64() > Some(25), "{there}");
    server.restart();
    assert_eq!(
        server.fanfare(&["migrate", "--help"]).status.code(),
        Some(0)
    );
    server.terminate();
    let checked = server.run(&["store", "check"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.contains("nothing wrong"), "{told}");
}

#[test]
fn nothing_is_begun_on_what_is_in_use_or_not_empty() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    server.publish("chat_1", json!({"type": "tick"}));
    is_refused(
        &migrate(&server, &["--to", "redis"]),
        REFUSED,
        "in use by a running server",
    );
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        REFUSED,
        "nothing of ours",
    );
    server.terminate();
    redis.command(&["HSET", "ws:{post_1}:m", "e", "x"]);
    is_refused(&migrate(&server, &["--to", "redis"]), REFUSED, "not empty");
    redis.command(&["DEL", "ws:{post_1}:m"]);
    let other = "FLUSHALL is not ours to say";
    redis.command(&["SET", "other:key", other]);

    server.set("broker.backend", "redis");
    server.restart();
    server.notify("u1", "hello");
    is_refused(
        &migrate(&server, &["--to", "redis"]),
        REFUSED,
        "a running server is connected",
    );
    let replacing = ["--to", "embedded", "--replace"];
    is_refused(
        &migrate(&server, &replacing),
        REFUSED,
        "a running server is connected",
    );
    server.kill();
    let (url, nobody) = (redis.url(), "redis://127.0.0.1:1");
    server.set("broker.redis.url", nobody);
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        69,
        "cannot reach Redis",
    );
    server.set("broker.redis.url", &url);
    is_refused(
        &migrate(&server, &["--to", "redis", "--replace"]),
        REFUSED,
        "--replace is for",
    );
    is_refused(&migrate(&server, &["--to", "disk"]), 2, "possible values");
    // Nothing of all that has changed anything.
    assert!(redis.command(&["GET", "other:key"]).contains(other));
    server.restart();
    assert_eq!(notes(&server, "u1")["unreadCount"], 1);
    server.terminate();
    server.set("broker.backend", "embedded");
    server.restart();
    assert_eq!(
        server.publish("chat_1", json!({"type": "tick"}))["offset"],
        2
    );
}

/// Fills a database with so many channels of a hundred events, users and notifications.
fn fill(path: &Path, hundreds: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = embedded::Options {
        path: path.to_owned(),
        store_bytes: u64::MAX,
        history_bytes: u64::MAX,
        notifications_per_user: usize::MAX,
    };
    let store = embedded::open(options, Clock::system()).unwrap();
    runtime.block_on(async {
        for number in 0..hundreds {
            let channel = ChannelKey::parse(&format!("chat_{number}"), 255).unwrap();
            let user = format!("user{number}");
            let mut together = tokio::task::JoinSet::new();
            let change = UserChange {
                wallet: Some(format!("wallet{number}")),
                nickname: None,
            };
            store.put_user(&user, change).await.unwrap();
            for n in 0..100 {
                let text = format!(r#"{{"type":"tick","n":{n},"pad":"{}"}}"#, "p".repeat(100));
                let publication = Publication {
                    channel: channel.clone(),
                    event: Event::parse(&text, 1_000).unwrap(),
                    retention: Some(Retention {
                        entries: 100,
                        ttl: Duration::from_secs(3_600),
                        durability: Durability::Commit,
                    }),
                    idempotency_key: None,
                    trace: None,
                };
                let new = NewNotification {
                    user_id: user.clone(),
                    kind: "like".into(),
                    title: format!("title {n}"),
                    message: "m".repeat(50),
                    metadata: None,
                };
                let store = store.clone();
                together.spawn(async move {
                    store.publish(publication).await.unwrap();
                    store.add_notification(new, None).await.unwrap();
                });
            }
            while together.join_next().await.is_some() {}
        }
        Store::close(&*store).await.unwrap();
    });
}

fn database(server: &Server) -> std::path::PathBuf {
    server.data_dir().join(embedded::FILE_NAME)
}

/// Begins a migration and kills it once it has come to `is_there`.
#[track_caller]
fn interrupt(server: &Server, to: &str, mut is_there: impl FnMut() -> bool) {
    let mut process = server
        .command(&["migrate", "--to", to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it is under way", Duration::from_secs(60), || {
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "it came to its end: {ended:?}");
        is_there()
    });
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn killed_in_the_middle_it_goes_on() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    server.terminate();
    fill(&database(&server), 150);
    let mark = || redis.command(&["GET", "ws:{!migration}:t"]);

    interrupt(&server, "redis", || mark().contains("\"kind\":\"history\""));
    server.set("broker.backend", "redis");
    is_refused(&server.run(&["serve"]), 1, "fanfare migrate --to redis");
    let moved = report(&migrate(&server, &["--to", "redis"]));
    assert_eq!(moved["resumed"], true);
    // What had been copied is not copied again.
    let rows = &moved["compared"]["rows"];
    assert!(moved["copied"].as_u64() < Some(15_151), "{moved}");
    assert_eq!(
        (&rows["events"]["target"], &rows["users"]["target"]),
        (&json!(15_000), &json!(150))
    );
    server.restart();
    assert_eq!(notes(&server, "user149")["unreadCount"], 100);
    server.terminate();

    // The other way; the file says how far it is.
    let path = database(&server);
    std::fs::remove_file(&path).unwrap();
    let size = || std::fs::metadata(&path).map_or(0, |file| file.len());
    interrupt(&server, "embedded", || size() > 4 << 20);
    server.set("broker.backend", "embedded");
    is_refused(&server.run(&["serve"]), 1, "fanfare migrate --to embedded");
    let back = report(&migrate(&server, &["--to", "embedded", "--replace"]));
    assert_eq!(
        (&back["resumed"], &back["aside"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(back["compared"]["rows"], *rows);
    server.restart();
    assert_eq!(notes(&server, "user149")["unreadCount"], 100);
}

#[test]
fn what_happened_in_between_is_not_lost() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    server.terminate();
    fill(&database(&server), 120);
    let mark = || redis.command(&["GET", "ws:{!migration}:t"]);
    interrupt(&server, "redis", || {
        mark().contains("\"kind\":\"notifications\"")
    });
    // The operator has to go back first.
    server.restart();
    let cleared = json!({"markAllAsRead": true});
    server.as_user("user7", "PUT", NOTIFY, &cleared).expect(200);
    server.as_user(
        "user7",
        "DELETE",
        &format!("{NOTIFY}?clearRead=true"),
        &Value::Null,
    );
    let epoch = server.publish("chat_7", json!({"type": "tick", "n": 7}))["epoch"].clone();
    let before = notes(&server, "user7");
    server.terminate();
    let moved = move_to(&mut server, "redis", &[]);
    assert_eq!(moved["resumed"], false);
    assert_eq!(notes(&server, "user7"), before);
    gets(&server, "chat_7", &epoch, 100, &[7]);
}

/// Loses every hundredth event.
struct Lossy(redis::migration::Destination, usize);

impl Target for Lossy {
    fn found(&mut self) -> Result<Option<Checkpoint>, MigrationError> {
        self.0.found()
    }

    fn wipe(&mut self) -> Result<(), MigrationError> {
        self.0.wipe()
    }

    fn put(
        &mut self,
        records: &[Record],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), MigrationError> {
        let records = records.iter().filter(|record| {
            self.1 += usize::from(matches!(record, Record::Notification(_)));
            !matches!(record, Record::Notification(_)) || !self.1.is_multiple_of(100)
        });
        self.0
            .put(&records.cloned().collect::<Vec<_>>(), checkpoint)
    }

    fn look_up(&mut self, records: &[Record]) -> Result<Vec<Option<Record>>, MigrationError> {
        self.0.look_up(records)
    }

    fn identity(&mut self) -> Result<String, MigrationError> {
        self.0.identity()
    }

    fn finish(&mut self, checkpoint: &Checkpoint) -> Result<(), MigrationError> {
        self.0.finish(checkpoint)
    }
}

#[test]
fn what_is_missing_is_seen_at_the_end() {
    let redis_server = RedisServer::start(&[]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(embedded::FILE_NAME);
    fill(&path, 3);
    let clock = Clock::system();
    let options = || redis::migration::Options {
        url: redis_server.url(),
        pubsub_url: None,
        prefix: "ws:".into(),
        authorities: None,
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
        clock: clock.clone(),
    };
    let origin = || {
        embedded::migration::Origin::open(embedded::migration::Options {
            path: path.clone(),
            store_bytes: u64::MAX,
            history_bytes: u64::MAX,
            clock: clock.clone(),
        })
        .unwrap()
    };
    let target = redis::migration::Destination::open(options()).unwrap();
    let lossy = migration::run(&mut origin(), &mut Lossy(target, 0), &clock, &mut |_| {});
    let Err(MigrationError::Differs(report)) = lossy else {
        panic!("{lossy:?}");
    };
    assert_eq!((report.differing, report.differences.len()), (3, 3));
    assert!(report.differences[0].ends_with("is missing"), "{report:?}");
    let row = &report.rows["notifications"];
    assert_eq!((row.source, row.target), (300, 297));
    assert_ne!(row.source_digest, row.target_digest);
    assert!(
        redis_server
            .command(&["EXISTS", "ws:{!migration}:t"])
            .contains(":1")
    );
    // Then everything again, by one that loses nothing.
    let mut target = redis::migration::Destination::open(options()).unwrap();
    let finished = migration::run(&mut origin(), &mut target, &clock, &mut |_| {}).unwrap();
    assert!(!finished.resumed && finished.report.agrees());
    assert_eq!(finished.report.rows["notifications"].target, 300);
    assert!(
        redis_server
            .command(&["EXISTS", "ws:{!migration}:t"])
            .contains(":0")
    );
}
