//! `fanfare backup`, `restore` and `store`: the running binary, copied while it is written to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Server;

#[track_caller]
fn good(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), said)
}

/// A server that has stopped, one notification of Ann's in its database, and a backup of that.
fn stopped_with_backup() -> (Server, PathBuf) {
    let mut server = Server::start(&[]);
    server.notify("ann", "kept");
    server.terminate();
    let file = server.data_dir().with_file_name("good.backup");
    good(server.fanfare(&["backup", file.to_str().unwrap()]));
    (server, file)
}

/// How many of ann's notifications are.
fn unread(server: &Server) -> Value {
    let answer = server.as_user("ann", "GET", "/api/user/notifications", &Value::Null);
    answer.expect(200).json()["unreadCount"].clone()
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_backup_during_writes_holds_all_that_was_acknowledged_before() {
    let mut server = Server::start(&[]);
    let position = server.publish("post_1", json!({ "type": "first" }));
    // Publishers and notifiers that go on through the backup: about 500 writes a second.
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<[AtomicUsize; 4]> = Arc::default();
    #[allow(clippy::disallowed_methods, reason = "writers have a pace")]
    let (at_start, backup) = std::thread::scope(|scope| {
        // Also when an expectation fails: the scope waits for its threads.
        let _stop = Stop(&stop);
        for writer in 0..4 {
            let (server, stop, acknowledged) = (&server, stop.clone(), acknowledged.clone());
            scope.spawn(move || {
                let pace = Duration::from_millis(8);
                let mut next = Instant::now();
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    if writer % 2 == 0 {
                        let channel = format!("post_w{writer}");
                        server.publish(&channel, json!({ "type": "n", "n": n }));
                    } else {
                        server.notify(&format!("u{writer}"), &format!("note {n}"));
                    }
                    acknowledged[writer].store(n + 1, Ordering::SeqCst);
                    next += pace;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while acknowledged.iter().any(|n| n.load(Ordering::SeqCst) < 100) {
            assert!(Instant::now() < deadline, "the writers are stuck");
            std::thread::sleep(Duration::from_millis(20));
        }
        let at_start: Vec<usize> = acknowledged
            .iter()
            .map(|n| n.load(Ordering::SeqCst))
            .collect();
        let file = server.data_dir().with_file_name("hot.backup");
        good(server.fanfare(&["backup", file.to_str().unwrap()]));
        (at_start, file)
    });
    let file = backup.to_str().unwrap();
    // As secret as the database.
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Again, on the name that exists.
    let (code, said) = refused(&server.fanfare(&["backup", file]));
    assert!(code == 1 && said.contains("--force"), "{code}: {said}");
    // While the server runs, nothing is replaced under it.
    let (code, said) = refused(&server.fanfare(&["restore", "--replace", file]));
    assert!(code == 1 && said.contains("in use"), "{code}: {said}");

    server.terminate();
    let verified = good(server.fanfare(&["restore", "--verify", file]));
    assert!(verified.contains("the backup is whole"), "{verified}");
    let (code, said) = refused(&server.fanfare(&["restore", file]));
    assert!(code == 1 && said.contains("--replace"), "{code}: {said}");
    let said = good(server.fanfare(&["restore", "--replace", "--json", file]));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["aside"].as_array().unwrap().len(), 1, "{said}");
    let checked = good(server.fanfare(&["store", "check"]));
    assert!(checked.contains("nothing wrong"), "{checked}");

    server.restart();
    for (writer, least) in at_start.iter().enumerate() {
        if writer % 2 == 0 {
            let body = json!({ "channel": format!("post_w{writer}"), "limit": 100 });
            let reply = server.as_backend("POST", "/api/history", &body).expect(200);
            let events = reply.json()["events"].as_array().unwrap().clone();
            let last = events.last().unwrap()["n"].as_u64().unwrap() as usize;
            assert!(last + 1 >= *least, "channel {writer}: {last} of {least}");
        } else {
            let user = format!("u{writer}");
            let path = "/api/user/notifications?limit=1";
            let reply = server.as_user(&user, "GET", path, &Value::Null).expect(200);
            let unread = reply.json()["unreadCount"].as_u64().unwrap() as usize;
            assert!(unread >= *least, "user {writer}: {unread} of {least}");
        }
    }
    // Positions of before must not stand for other events.
    let mut client = server.connect("a");
    let since = json!({ "epoch": position["epoch"], "offset": position["offset"] });
    client.send(&json!({ "type": "subscribe", "channel": "post_1", "recover": since }));
    let answer = client.next_of("subscribed");
    assert_eq!(answer["data"]["recovered"], false, "{answer}");
    assert_eq!(answer["data"]["reason"], "epoch_changed", "{answer}");
}

#[test]
fn without_a_server_the_database_itself_is_copied_and_moves_to_another_folder() {
    let mut server = Server::start(&[]);
    server.notify("ann", "kept");
    server.terminate();
    // For commands no key is configured, so they make one, as a server without one would.
    let made = server.fanfare(&["token", "--user", "ann"]);
    let warned = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(warned.contains("made a signing key"), "{warned}");
    good(made);
    let file = server.data_dir().with_file_name("cold.backup");
    let file = file.to_str().unwrap();
    good(server.fanfare(&["backup", file]));
    let elsewhere = server.data_dir().with_file_name("elsewhere");
    good(server.fanfare_on(&elsewhere, &["restore", file]));
    // The generated key came along.
    let key = |folder: &Path| std::fs::read(folder.join("secret")).unwrap();
    assert_eq!(key(&elsewhere), key(&server.data_dir()));
    let weighed = good(server.fanfare_on(&elsewhere, &["store", "stats", "--json"]));
    let weighed: Value = serde_json::from_str(&weighed).unwrap();
    assert_eq!(weighed["tables"]["notes"], 1, "{weighed}");
    let compacted = good(server.fanfare_on(&elsewhere, &["store", "compact", "--json"]));
    let compacted: Value = serde_json::from_str(&compacted).unwrap();
    assert!(compacted["afterBytes"].as_u64() <= compacted["beforeBytes"].as_u64());
    server.set("data_dir", elsewhere.to_str().unwrap());
    server.restart();
    assert_eq!(unread(&server), 1);
}

#[test]
fn nonsense_and_cut_off_files_are_refused_and_change_nothing() {
    let (mut server, whole) = stopped_with_backup();
    let home = server.data_dir().parent().unwrap().to_owned();
    let bytes = std::fs::read(&whole).unwrap();
    let database = server.data_dir().join("fanfare.redb");
    for (name, content) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("cut", &bytes[..bytes.len() - 9]),
    ] {
        let file = home.join(name);
        std::fs::write(&file, content).unwrap();
        let file = file.to_str().unwrap();
        for arguments in [
            &["restore", "--replace", file][..],
            &["restore", "--verify", file],
        ] {
            let (code, said) = refused(&server.fanfare(arguments));
            assert_eq!(code, 1, "{name}: {said}");
            assert!(said.contains("backup"), "{name}: {said}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(server.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("fanfare.redb"))
        .collect();
    assert_eq!(left, ["fanfare.redb"], "nothing else is left");
    assert!(database.exists());
    let (code, said) = refused(&server.fanfare(&["stats"]));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("no server answers"), "{said}");
    server.restart();
}

#[test]
fn a_damaged_or_empty_database_is_told_and_a_backup_takes_its_place() {
    let (mut server, file) = stopped_with_backup();
    let file = file.to_str().unwrap();
    let database = server.data_dir().join("fanfare.redb");
    let whole = std::fs::read(&database).unwrap();
    // Of a new file nearly everything in the first pages is in use; redb panics where it finds these.
    let mut random = whole.clone();
    let mut state = 1_u32;
    for byte in &mut random[3 * 4_096..11 * 4_096] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for damaged in [&random[..], &[], &whole[..whole.len() / 3]] {
        std::fs::write(&database, damaged).unwrap();
        let (code, said) = refused(&server.fanfare(&["store", "check"]));
        assert_eq!(code, 3, "{said}");
        let (code, said) = refused(&server.fanfare(&["store", "stats"]));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("fanfare.redb"), "{said}");
        // Looking at it has not made another thing of it.
        assert_eq!(
            std::fs::metadata(&database).unwrap().len(),
            damaged.len() as u64
        );
        good(server.fanfare(&["restore", "--replace", file]));
        let checked = good(server.fanfare(&["store", "check"]));
        assert!(checked.contains("nothing wrong"), "{checked}");
    }
    server.restart();
    assert_eq!(unread(&server), 1);
}

#[test]
fn what_root_restores_belongs_to_the_owner_of_what_was_there() {
    use std::os::unix::fs::{MetadataExt, chown};
    let (server, file) = stopped_with_backup();
    let file = file.to_str().unwrap();
    let database = server.data_dir().join("fanfare.redb");
    if chown(&database, Some(65_534), Some(65_534)).is_err() {
        println!("only root can give a file away: not looked at");
        return;
    }
    good(server.fanfare(&["restore", "--replace", file]));
    let owner = std::fs::metadata(&database).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (65_534, 65_534));
}
