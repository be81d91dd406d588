//! The commands that ask the running server over its control socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::io::Read;
use std::time::Duration;

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
