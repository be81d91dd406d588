//! A new configuration for a running server: by SIGHUP, by `fanfare reload`, good and bad.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]

mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// What every file of these tests has.
const BASE: &str = "\
    [auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
    [limits]\nrequests_per_second = 100000\n";

/// What the file says on top of it.
fn with(more: &str) -> String {
    format!("{BASE}{more}")
}

/// Writes the file and sends SIGHUP; what the server said of it.
#[track_caller]
fn hang_up(server: &Server, config: &str) -> String {
    let before = server.output().len();
    server.write_config(config);
    server.signal(Signal::HUP);
    let mut said = String::new();
    eventually("the reload", PATIENCE, || {
        said = server.output()[before..].to_string();
        said.contains("the configuration was read again") || said.contains("nothing was changed")
    });
    said
}

/// Writes the file and runs `fanfare reload`; its exit code, stdout and stderr.
fn reload(server: &Server, config: &str) -> (Option<i32>, String, String) {
    server.write_config(config);
    let output = server.run(&["reload"]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn reload_well(server: &Server, config: &str) -> String {
    let (code, out, err) = reload(server, config);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

fn subscribe_code(client: &mut Client, channel: &str) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel}));
    client.next()["data"]["code"].clone()
}

#[test]
fn a_hangup_changes_limits_of_open_sockets_and_says_which() {
    let server = Server::start_from(&with(""));
    let mut ann = server.connect("ann");
    let long = json!({"type": "ping", "pad": "x".repeat(2_000)});
    ann.send(&long);
    ann.next_of("pong");
    let said = hang_up(&server, &with("message_bytes = \"1KiB\"\n"));
    assert!(
        said.contains("reload: limits.message_bytes: (default) -> \"1KiB\""),
        "{said}"
    );
    // Nobody lost a socket, and the next message is held to the new limit.
    ann.send(&json!({"type": "ping"}));
    ann.next_of("pong");
    ann.send(&long);
    ann.expect_disconnect(1009, "message too big");
    eventually("the line of the event log", PATIENCE, || {
        let mut reloaded = server.event_log();
        reloaded.retain(|line| line["data"]["message"] == "reloaded");
        reloaded.len() == 1
    });
    let said = hang_up(&server, &with(""));
    assert!(said.contains("\"1KiB\" -> (default)"), "{said}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let server = Server::start_from(&with("message_bytes = \"32KiB\"\n"));
    let bad = with("message_bytes = \"1KiB\"\nqueue_byte = 1\nevent_bytes = \"many\"\n");
    let said = hang_up(&server, &bad);
    for part in [
        "2 mistakes",
        "limits.queue_bytes?",
        "event_bytes",
        "nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut ann = server.connect("ann");
    ann.send(&json!({"type": "ping", "pad": "x".repeat(20_000)}));
    ann.next_of("pong");
    // The command finds the same, with the exit code of a wrong configuration.
    let (code, out, err) = reload(&server, &bad);
    assert_eq!((code, out.as_str()), (Some(78), ""), "{err}");
    assert!(err.contains("limits.queue_bytes?"), "{err}");
    // A file that is not there at all is no reason to go back to the defaults.
    let gone = server.data_dir().parent().unwrap().join("config.toml");
    std::fs::remove_file(&gone).unwrap();
    let before = server.output().len();
    server.signal(Signal::HUP);
    eventually("the refusal", PATIENCE, || {
        server.output()[before..].contains("nothing was changed")
    });
    assert_eq!(server.http("GET", "/health", &[], "").status, 200);
    let refused = server.event_log();
    let refused = refused
        .iter()
        .filter(|line| line["data"]["message"] == "reload refused");
    assert_eq!(refused.count(), 2);
}

#[test]
fn what_only_the_server_can_find_wrong_changes_nothing_either() {
    let server = Server::start_from(&with(""));
    let taken = server.data_dir().join("fanfare.redb");
    let config = with("message_bytes = \"1KiB\"\n");
    let config = format!("{config}[logs]\ndir = \"{}\"\n", taken.display());
    let (code, out, err) = reload(&server, &config);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(
        err.contains("nothing was changed: the event log in"),
        "{err}"
    );
    let mut ann = server.connect("ann");
    ann.send(&json!({"type": "ping", "pad": "x".repeat(20_000)}));
    ann.next_of("pong");
}

#[test]
fn keys_change_at_once_and_are_never_shown() {
    let server = Server::start_from(&with(""));
    let old_token = server.token("ann");
    let publish = |key: &str| {
        let body = json!({"channel": "post_1", "event": {"type": "t"}});
        let key = ("X-API-Key", key);
        server.json("POST", "/api/publish", &[key], &body).status
    };
    assert_eq!(publish(server.api_key()), 200);
    let config = "[auth]\nsecret = \"quite another secret, also longer than 32 bytes\"\n\
        api_keys = [\"another-key-for-backends\"]\n";
    let out = reload_well(&server, config);
    assert!(
        out.contains("auth.api_keys: ***, which is another one now"),
        "{out}"
    );
    assert!(
        out.contains("auth.secret: ***, which is another one now"),
        "{out}"
    );
    for secret in [
        "quite another",
        "another-key",
        server.secret(),
        server.api_key(),
    ] {
        assert!(!out.contains(secret) && !server.output().contains(secret));
    }
    assert_eq!(publish(server.api_key()), 401);
    assert_eq!(publish("another-key-for-backends"), 200);
    let bearer = format!("Bearer {old_token}");
    let checked = server.http("GET", "/api/auth/wallet", &[("Authorization", &bearer)], "");
    assert_eq!(checked.status, 401);
    let out = reload_well(&server, config);
    assert_eq!(out, "reloaded; nothing is different\n");
}

#[test]
fn the_content_of_a_secrets_file_counts_as_a_change() {
    let server = Server::start_from(BASE);
    let file = server.data_dir().join("keys");
    let config = format!(
        "[auth]\nsecret = \"SECRET\"\napi_keys_file = \"{}\"\n",
        file.display()
    );
    std::fs::write(&file, "first-key-of-a-backend\n").unwrap();
    reload_well(&server, &config);
    std::fs::write(&file, "second-key-of-a-backend\n").unwrap();
    let out = reload_well(&server, &config);
    assert!(out.contains("auth.api_keys_file"), "{out}");
    assert!(!out.contains("key-of-a-backend"), "{out}");
    let body = json!({"channel": "post_1", "event": {"type": "t"}});
    for (key, status) in [
        ("first-key-of-a-backend", 401),
        ("second-key-of-a-backend", 200),
    ] {
        let answer = server.json("POST", "/api/publish", &[("X-API-Key", key)], &body);
        assert_eq!(answer.status, status);
    }
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let server = Server::start_from("");
    // Folders and ports of the test server are flags, which are stronger than the file.
    let out = reload_well(&server, "[server]\nworkers = 7\ntest_page = true\n");
    assert!(
        out.contains("server.workers: (default) -> 7 (needs a restart)"),
        "{out}"
    );
    assert!(
        out.contains("server.test_page: (default) -> true\n"),
        "{out}"
    );
    assert_eq!(
        server.http("GET", "/test/jwt-websocket", &[], "").status,
        200
    );
    // It still waits.
    let out = reload_well(&server, "[server]\nworkers = 7\n");
    assert!(out.contains("workers: (default) -> 7 (needs a"), "{out}");
    assert!(out.contains("test_page: true -> (default)\n"), "{out}");
    assert_eq!(reload_well(&server, ""), "reloaded; nothing is different\n");
}

#[test]
fn rules_count_at_once_for_those_who_are_in() {
    const OPEN: &str = "[channels.room]\nsubscribe = \"any\"\n";
    let server = Server::start_from(&with(OPEN));
    let mut ann = server.connect("ann");
    ann.subscribe("room_1");
    ann.subscribe("post_1");
    reload_well(&server, &with("[channels.room]\nsubscribe = \"token\"\n"));
    assert_eq!(ann.next_of("unsubscribed")["data"]["channelKey"], "room_1");
    assert_eq!(subscribe_code(&mut ann, "room_1"), "access_denied");
    server.publish("room_1", json!({"type": "not for ann"}));
    server.publish("post_1", json!({"type": "for ann"}));
    assert_eq!(ann.next()["type"], "for ann");
    // A type that is not configured any more is one that nobody may have.
    reload_well(&server, &with(""));
    assert_eq!(subscribe_code(&mut ann, "room_1"), "access_denied");
    reload_well(
        &server,
        &with("[channels.room]\nsubscribe = \"any\"\npublish = \"any\"\n"),
    );
    ann.subscribe("room_1");
    ann.send(&json!({"type": "publish", "channel": "room_1", "event": {"type": "hello"}}));
    let (one, other) = (ann.next(), ann.next());
    let types = [&one["type"], &other["type"]];
    assert!(types.contains(&&json!("published")) && types.contains(&&json!("hello")));
}

#[test]
fn presence_may_come_and_go_while_sockets_are_there() {
    let room = |presence: bool| {
        with(&format!(
            "[channels.room]\nsubscribe = \"any\"\npresence = {presence}\n"
        ))
    };
    let server = Server::start_from(&room(false));
    let there = || {
        let answer = server.as_backend("GET", "/api/presence?channel=room_1", &Value::Null);
        (answer.status, answer.json()["users"].clone())
    };
    let (mut ann, mut also_ann, mut bob) = (
        server.connect("ann"),
        server.connect("ann"),
        server.connect("bob"),
    );
    ann.subscribe("room_1");
    assert_eq!(there().0, 400);
    reload_well(&server, &room(true));
    // Workers are told one after the other.
    eventually("ann", PATIENCE, || there() == (200, json!(["ann"])));
    also_ann.subscribe("room_1");
    bob.subscribe("room_1");
    assert_eq!(there(), (200, json!(["ann", "bob"])));
    // One who came before and one who came after: neither takes the other away.
    ann.close();
    bob.close();
    eventually("ann alone", PATIENCE, || there() == (200, json!(["ann"])));
    reload_well(&server, &room(false));
    assert_eq!(there().0, 400);
    reload_well(&server, &room(true));
    eventually("ann again", PATIENCE, || there() == (200, json!(["ann"])));
    also_ann.close();
    eventually("nobody", PATIENCE, || there() == (200, json!([])));
}

#[test]
fn limits_of_admission_and_of_the_store_count_at_once() {
    let server = Server::start_from(&with("connections_per_user = 1\n"));
    let _first = server.connect("ann");
    let path = format!("/ws?token={}", server.token("ann"));
    let mut one_too_many = server.connect_with(&path, &[]).unwrap();
    one_too_many.expect_disconnect(4302, "limit reached");
    reload_well(
        &server,
        &with("connections_per_user = 2\nstore_bytes = \"1MiB\"\n"),
    );
    let _second = server.connect("ann");
    let event = json!({"type": "large", "pad": "x".repeat(30_000)});
    let body = json!({"channel": "post_1", "event": event});
    let publish = || server.as_backend("POST", "/api/publish", &body).status;
    eventually("a full store", PATIENCE, || publish() == 507);
    reload_well(&server, &with("connections_per_user = 2\n"));
    assert_eq!(publish(), 200);
}

#[test]
fn diagnostics_statistics_and_the_event_log_follow() {
    let server = Server::start_from(&with(""));
    let config = |level: &str| {
        with(&format!(
            "[stats]\nconsole_interval = \"1s\"\n[logs]\nlevel = \"{level}\"\ndir = \"elsewhere\"\n"
        ))
    };
    let break_off = || {
        let mut raw = std::net::TcpStream::connect(server.addr()).unwrap();
        std::io::Write::write_all(&mut raw, b"NONSENSE\r\n\r\n").unwrap();
        let _ = std::io::Read::read_to_end(&mut raw, &mut Vec::new());
    };
    break_off();
    reload_well(&server, &config("debug"));
    eventually("a line of debugging", PATIENCE, || {
        break_off();
        server.output().contains("DEBUG")
    });
    eventually("the statistics", PATIENCE, || {
        server.stdout().contains("stats: up")
    });
    let here = server.logs_dir();
    let there = here.parent().unwrap().join("elsewhere");
    let lines = |folder: &std::path::Path, wanted: &str| {
        let files = std::fs::read_dir(folder).unwrap();
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let all: String = texts.collect();
        all.lines().filter(|line| line.contains(wanted)).count()
    };
    server.connect("ann").close();
    eventually("its line", PATIENCE, || {
        lines(&there, "\"connection\"") == 1
    });
    assert_eq!(lines(&here, "\"connection\""), 0);
    assert_eq!(lines(&here, "started") + lines(&there, "started"), 1);

    reload_well(&server, &config("warn"));
    let before = server.output().len();
    break_off();
    server.connect("ann").close();
    // Whatever it said of them, it has said before it answers this.
    assert!(!server.output()[before..].contains("DEBUG"));
}

#[test]
fn nobody_misses_anything_while_it_is_read_again_and_again() {
    let server = Server::start_from(&with(""));
    let mut clients: Vec<Client> = (0..20).map(|n| server.connect(&format!("u{n}"))).collect();
    for client in &mut clients {
        client.subscribe("post_1");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..30 {
                let bytes = 32 + round % 2;
                let history = 100 + round % 3;
                reload_well(
                    &server,
                    &with(&format!(
                        "message_bytes = \"{bytes}KiB\"\n[channels.post]\nhistory = {history}\n"
                    )),
                );
            }
        });
        for n in 0..400 {
            server.publish("post_1", json!({"type": "n", "n": n}));
        }
    });
    for client in &mut clients {
        for n in 0..400 {
            assert_eq!(client.next()["n"], n);
        }
    }
}

#[test]
fn there_is_nobody_to_tell_when_no_server_runs() {
    let mut server = Server::start_from(BASE);
    let socket = server.data_dir().join("control.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&socket.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    server.kill();
    let (code, _, err) = reload(&server, BASE);
    assert_eq!(code, Some(69));
    assert!(err.contains("no server answers on"), "{err}");
    // What a killed server left behind is no obstacle.
    server.restart();
    reload_well(&server, BASE);
    server.terminate();
    assert!(!socket.exists());
}
