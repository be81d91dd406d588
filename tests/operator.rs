//! The commands that ask the running server over its control socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use serde_json::{Value, json};
use support::{Server, eventually};

#[track_caller]
fn said(server: &Server, arguments: &[&str]) -> String {
    let output = server.fanfare(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn figures_and_connections_are_shown_to_people_and_to_programs() {
    let server = Server::start(&[]);
    let mut ann = server.connect("ann");
    ann.subscribe("post_1");
    let _ben = server.connect("ben");

    let stats: Value = serde_json::from_str(&said(&server, &["stats", "--json"])).unwrap();
    assert_eq!(stats["activeConnections"], 2);
    assert_eq!(stats["connectionsByChannel"]["post_1"], 1);
    let stats = said(&server, &["stats"]);
    assert!(stats.contains("2 open, 2 in all"), "{stats}");
    assert!(stats.contains("post_1"), "{stats}");
    let log = stats.lines().find(|line| line.starts_with("event log"));
    assert!(log.unwrap().ends_with(" 0 lost"), "{stats}");

    let all = said(&server, &["connections"]);
    assert!(all.contains("ann") && all.contains("ben"), "{all}");
    let anns = said(&server, &["connections", "--user", "ann", "--json"]);
    let anns: Vec<Value> = anns
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(anns.len(), 1);
    assert_eq!(
        (&anns[0]["userId"], &anns[0]["channels"]),
        (&json!("ann"), &json!(1))
    );
    let one = said(&server, &["connections", "--limit", "1"]);
    assert!(one.contains("there are more"), "{one}");
}

#[test]
fn what_is_published_and_notified_arrives() {
    let server = Server::start(&[]);
    let mut ann = server.connect("ann");
    ann.subscribe("post_1");
    ann.subscribe("notifications");
    let answer = said(&server, &["publish", "post_1", r#"{"type":"liked","n":7}"#]);
    assert_eq!(answer, "published to post_1 as number 1\n");
    assert_eq!(ann.next_of("liked")["n"], 7);
    let arguments = [
        "notify",
        "ann",
        "A title",
        "Some text",
        "--type",
        "like",
        "--json",
    ];
    let answer: Value = serde_json::from_str(&said(&server, &arguments)).unwrap();
    let told = ann.next_of("notification");
    assert_eq!(told["notification"]["id"], answer["notification"]["id"]);
    assert_eq!(told["notification"]["title"], "A title");

    let twice = [
        "publish",
        "post_1",
        r#"{"type":"x"}"#,
        "--idempotency-key",
        "k",
        "--json",
    ];
    assert_eq!(said(&server, &twice), said(&server, &twice));
}

#[test]
fn refusals_say_why_and_nothing_more() {
    let server = Server::start(&[]);
    for (arguments, expected) in [
        (&["publish", "post_1", "{"][..], "EVENT is not JSON"),
        (&["publish", "post_1", r#"{"no":"type"}"#], "invalid_event"),
        (&["publish", "nosuch_1", r#"{"type":"x"}"#], "channel"),
        (
            &["stats", "--set", "control.socket=off"],
            "control.socket is \"off\"",
        ),
    ] {
        let output = server.fanfare(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_second_server_does_not_take_the_socket_of_the_first() {
    let server = Server::start(&[]);
    let socket = server.data_dir().join("control.sock");
    let second = Server::start(&[("control.socket", socket.to_str().unwrap())]);
    assert!(second.output().contains("another server answers there"));
    second.connect("only-here");
    let all = said(&server, &["connections"]);
    assert!(!all.contains("only-here"), "{all}");
}

#[test]
fn a_channel_is_followed_through_a_restart() {
    let mut server = Server::start(&[]);
    let mut follower = server
        .command(&["subscribe", "post_1", "--count", "3"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let patience = Duration::from_secs(20);
    eventually("the follower", patience, || {
        server.stats()["connectionsByChannel"]["post_1"] == 1
    });
    server.publish("post_1", json!({ "type": "n", "n": 0 }));
    server.kill();
    server.restart();
    server.publish("post_1", json!({ "type": "n", "n": 1 }));
    server.publish("post_1", json!({ "type": "n", "n": 2 }));
    let output = wait(&mut follower);
    let seen: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<_> = seen.iter().map(|event| event["n"].clone()).collect();
    assert_eq!(numbers, [json!(0), json!(1), json!(2)], "{output}");
}

#[test]
fn who_may_open_the_socket_follows_a_channel_without_the_secret() {
    for server in [Server::start(&[]), Server::start_tls("")] {
        let socket = server.data_dir().join("control.sock").display().to_string();
        let listening = server.addr().to_string();
        let follow = |channel: &str| {
            let mut command = support::command();
            // Nothing but where the server is: neither its secret nor its certificates.
            command
                .args([
                    "subscribe",
                    channel,
                    "--count",
                    "1",
                    "--config",
                    "/dev/null",
                ])
                .args(["--set", &format!("control.socket={socket}")])
                .args(["--set", &format!("server.listen={listening}")])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command
        };
        // The second has an owner, and is followed as by him.
        for channel in ["post_1", "feed_ann"] {
            let mut follower = follow(channel).spawn().unwrap();
            eventually("the follower", Duration::from_secs(20), || {
                server.stats()["connectionsByChannel"][channel] == 1
            });
            let event = r#"{"type":"n","n":7}"#;
            said(&server, &["publish", channel, event]);
            let output = wait(&mut follower);
            let event: Value = serde_json::from_str(&output).unwrap();
            assert_eq!(event["n"], 7, "{output}");
        }
        // What was given is on record.
        let follower = |user: &str, channel: &str| (Value::from(user), Value::from(channel));
        let expected = [
            follower("fanfare-subscribe", "post_1"),
            follower("ann", "feed_ann"),
        ];
        eventually("the lines", Duration::from_secs(10), || {
            let lines = server.event_log();
            let given = lines
                .iter()
                .filter(|line| line["type"] == "token_issued")
                .map(|line| &line["data"])
                .map(|data| (data["userId"].clone(), data["channel"].clone()));
            given.eq(expected.iter().cloned())
        });
        for (channel, why) in [
            ("nosuch_1", "no type of channel"),
            ("post", "no channel's key"),
        ] {
            let output = follow(channel).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }
}

fn wait(child: &mut std::process::Child) -> String {
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    assert!(child.wait().unwrap().success());
    output
}

#[test]
fn a_token_is_looked_at_and_taken_back() {
    let server = Server::start(&[]);
    let token = server.token("ann");
    let told = said(&server, &["token", "inspect", "--ask", "--json", &token]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["verdict"], &told["claims"]["sub"]),
        (&json!("good"), &json!("ann"))
    );

    let mut ann = server.connect("ann");
    let claimed = told["claims"]["jti"].as_str().unwrap();
    assert!(claimed.starts_with("test-ann-"));
    assert_eq!(
        said(&server, &["token", "revoke", "--jti", claimed]),
        "revoked\n"
    );
    let bad = server.fanfare(&["token", "inspect", "--ask", &token]);
    assert_eq!(bad.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert!(printed.contains("Token revoked"), "{printed}");
    assert_eq!(
        said(&server, &["token", "revoke", "--user", "ann"]),
        "revoked\n"
    );
    ann.expect_disconnect(4300, "revoked");

    let forged = server.fanfare(&["token", "inspect", "e30.e30.x"]);
    assert_eq!(forged.status.code(), Some(1));
    for wrong in [
        &["token", "revoke"][..],
        &["token", "revoke", "--jti", "a", "--user", "b"],
        &[
            "token",
            "revoke",
            "--jti",
            "a",
            "--before",
            "2026-01-01T00:00:00Z",
        ],
        &["token"],
    ] {
        assert_eq!(server.fanfare(wrong).status.code(), Some(2), "{wrong:?}");
    }
    // As before.
    let issued = said(&server, &["token", "--user", "ben"]);
    assert_eq!(issued.trim().split('.').count(), 3);
    let told = said(&server, &["token", "inspect", issued.trim()]);
    assert!(told.contains("verdict  good"), "{told}");
    assert!(told.contains("\"ben\""), "{told}");
}

const PATIENCE: Duration = Duration::from_secs(20);

/// `fanfare tail`, which has begun to look.
struct Looking(Child);

impl Looking {
    #[track_caller]
    fn begin(server: &Server, whose: &[&str]) -> Self {
        let mut tail = server
            .command(&[&["tail"], whose].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = tail.stderr.take().unwrap();
        let (tx, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let _ = tx.send(line.unwrap());
            }
        });
        let first = said.recv_timeout(PATIENCE).unwrap();
        assert!(first.contains("looking at node"), "{first}");
        Self(tail)
    }

    /// Ctrl-C; what it printed until then.
    #[track_caller]
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        wait(&mut self.0)
    }

    /// Ctrl-C when a line has all of these: what passes is shown a moment later.
    #[track_caller]
    fn end_behind(mut self, last: &[&str]) -> String {
        let stdout = BufReader::new(self.0.stdout.take().unwrap());
        let (tx, printed) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let _ = tx.send(line.unwrap());
            }
        });
        let mut lines: Vec<String> = Vec::new();
        let is_last = |line: &String| last.iter().all(|part| line.contains(part));
        while !lines.last().is_some_and(is_last) {
            let Ok(line) = printed.recv_timeout(PATIENCE) else {
                panic!("no line with {last:?} in {lines:#?}");
            };
            lines.push(line);
        }
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        assert!(self.0.wait().unwrap().success());
        lines.extend(printed);
        lines.join("\n")
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client whose tail it is has said and heard everything when this is answered.
#[track_caller]
fn settle(client: &mut support::Client) {
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
}

#[test]
fn a_tail_shows_what_passes_and_nothing_that_was_said() {
    let server = Server::start(&[("channels.post.publish", "any")]);
    let (mut ann, mut bob) = (server.connect("ann"), server.connect("bob"));
    let of_ann = Looking::begin(&server, &["--user", "ann", "--json"]);
    let of_post = Looking::begin(&server, &["--channel", "post_1", "--json"]);
    let people = Looking::begin(&server, &["--user", "ann"]);
    let of_own = Looking::begin(&server, &["--channel", "notifications_ann", "--json"]);
    // Some time later the workers look; a frame of ours is seen when they do.
    let token = server.token("ann");
    ann.subscribe("post_1");
    bob.subscribe("post_1");
    bob.subscribe("post_2");
    // Each names its own.
    ann.subscribe("notifications");
    bob.subscribe("notifications");
    let event = json!({"type": "liked", "pin": "geheim-4711", "deep": {"code": "geheim-4712"}, "n": 990_123});
    server.publish("post_1", event.clone());
    server.publish("post_2", json!({"type": "elsewhere"}));
    ann.next_of("liked");
    bob.next_of("elsewhere");
    ann.send(&json!({"type": "publish", "channel": "post_1", "event": event}));
    ann.next_of("liked");
    bob.next_of("liked");
    ann.send(&json!({"type": "refresh", "token": token}));
    ann.send_text("geheim, and no JSON");
    settle(&mut ann);
    settle(&mut bob);
    ann.close();
    bob.close();
    eventually("both are gone", PATIENCE, || {
        server.stats()["activeConnections"] == 0
    });

    let of_ann = of_ann.end_behind(&["\"out\"", "\"close\""]);
    let of_post = of_post.end_behind(&["bob", "liked", "\"offset\":2"]);
    let people = people.end_behind(&["  out  ", "close"]);
    for output in [&of_ann, &of_post, &people] {
        for secret in ["geheim", "990123", &token[..24], "eyJ"] {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
    let frames = |output: &str| -> Vec<Value> {
        let lines = output.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let has = |frames: &[Value], direction: &str, user: &str, what: &str| {
        frames.iter().any(|one| {
            one["direction"] == direction
                && one["userId"] == user
                && (one["type"] == what || one["frame"] == what)
        })
    };
    let of_own = frames(&of_own.end_behind(&["\"out\"", "subscribed"]));
    assert!(has(&of_own, "in", "ann", "subscribe"), "{of_own:#?}");
    assert!(has(&of_own, "out", "ann", "subscribed"), "{of_own:#?}");
    assert!(of_own.iter().all(|one| one["userId"] == "ann"));
    let (of_ann, of_post) = (frames(&of_ann), frames(&of_post));
    for (direction, what) in [
        ("in", "subscribe"),
        ("out", "subscribed"),
        ("out", "liked"),
        ("in", "publish"),
        ("in", "refresh"),
        ("out", "error"),
        ("in", "ping"),
        ("out", "pong"),
        ("in", "close"),
        ("out", "close"),
    ] {
        assert!(
            has(&of_ann, direction, "ann", what),
            "{direction} {what}: {of_ann:#?}"
        );
    }
    assert!(of_ann.iter().all(|one| one["userId"] == "ann"));
    let liked = of_ann.iter().find(|one| one["type"] == "liked").unwrap();
    assert_eq!(liked["channel"], "post_1");
    assert_eq!(liked["shape"]["pin"], "text(11)");
    assert_eq!(liked["shape"]["_meta"]["offset"], 1);
    assert!(liked["bytes"].as_u64() > Some(80) && liked["at"].is_string());
    let id = liked["connectionId"].as_str().unwrap();
    assert!(id.len() > 2 && id.contains('-'), "{id}");

    assert!(
        of_post.iter().all(|one| one["channel"] == "post_1"),
        "{of_post:#?}"
    );
    for (direction, user, what) in [
        ("in", "bob", "subscribe"),
        ("out", "ann", "liked"),
        ("out", "bob", "liked"),
        ("in", "ann", "publish"),
    ] {
        assert!(
            has(&of_post, direction, user, what),
            "{user} {what}: {of_post:#?}"
        );
    }
    let line = people.lines().find(|line| line.contains("liked")).unwrap();
    assert!(
        line.contains("  out  ") && line.contains("  ann  "),
        "{line}"
    );

    // Only the operator's socket has it.
    for path in ["/control/tail?user=ann", "/api/control/tail?user=ann"] {
        assert_eq!(server.as_backend("GET", path, &Value::Null).status, 404);
    }
}

#[test]
fn a_tail_that_is_not_read_drops_and_counts_and_nobody_waits_for_it() {
    const CLIENTS: usize = 20;
    const EVENTS: usize = 300;
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let mut client = server.connect(&format!("u{n}"));
            client.subscribe("post_1");
            client
        })
        .collect();
    let looking = Looking::begin(&server, &["--channel", "post_1", "--json"]);
    for n in 0..EVENTS {
        server.publish(
            "post_1",
            json!({"type": "n", "n": n, "pad": "x".repeat(200)}),
        );
    }
    for client in &mut clients {
        for n in 0..EVENTS {
            assert_eq!(client.next()["n"], n);
        }
    }
    // It is read only now; what fits between, and then its end, which comes before it is through.
    let mut looking = looking;
    let stdout = BufReader::new(looking.0.stdout.take().unwrap());
    let (tx, printed) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines() {
            let _ = tx.send(line.unwrap());
        }
    });
    let (mut seen, mut dropped) = (0, 0);
    while seen + dropped < CLIENTS * EVENTS {
        let line = printed
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("{seen} seen, {dropped} dropped"));
        let line: Value = serde_json::from_str(&line).unwrap();
        match line["dropped"].as_u64() {
            Some(lost) => dropped += lost as usize,
            None => seen += usize::from(line["type"] == "n"),
        }
    }
    assert_eq!(seen + dropped, CLIENTS * EVENTS);
    assert!(
        dropped > 0 && seen > 1_000,
        "{seen} seen, {dropped} dropped"
    );
}

#[test]
fn a_few_may_look_at_once_and_a_place_is_free_again() {
    let server = Server::start(&[]);
    let ann = server.connect("ann");
    let mut all: Vec<Looking> = (0..8)
        .map(|_| Looking::begin(&server, &["--user", "ann"]))
        .collect();
    let refused = server.fanfare(&["tail", "--user", "ann"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("too_many_tails"), "{error}");
    all.pop().unwrap().end();
    let mut told = Vec::new();
    eventually("a place", PATIENCE, || {
        // Gone is who was ended when the server has noticed.
        let output = server
            .command(&["tail", "--connection", "nonsense"])
            .output();
        told = output.unwrap().stderr;
        let mut other = server.connect("ann");
        let looking = server
            .command(&["tail", "--user", "ann", "--count", "1", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut looking = Looking(looking.unwrap());
        let mut ended = None;
        eventually("its end", PATIENCE, || {
            settle(&mut other);
            ended = looking.0.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().success()
    });
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("no connection of this node"), "{told}");
    for wrong in [
        &["tail"][..],
        &["tail", "--user", "a", "--channel", "post_1"],
    ] {
        assert_eq!(server.fanfare(wrong).status.code(), Some(2), "{wrong:?}");
    }
    drop((all, ann));
}
