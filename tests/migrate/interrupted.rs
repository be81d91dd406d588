//! Migrations that are broken off, or lose something.

use std::process::Stdio;
use std::time::Duration;

use fanfare::broker::migration::{self, Checkpoint, MigrationError, Record, Target};
use fanfare::broker::{
    Broker, Durability, NewNotification, Publication, Retention, Store, UserChange, embedded, redis,
};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::redis::RedisServer;
use crate::support::{Server, eventually};
use crate::told::{NOTIFY, notes};
use crate::{gets, is_refused, migrate, move_to, report, server};

/// Fills a database with so many channels of a hundred events, users and notifications.
fn fill(path: &std::path::Path, hundreds: usize) {
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
