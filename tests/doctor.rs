//! `fanfare doctor` against real servers, well and not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::Value;
use support::Server;
use support::redis::{RedisServer, free_port};

/// Exit code, and what was found of each thing.
fn examine(server: &Server, more: &[&str]) -> (Option<i32>, Value) {
    let output = server.run(&[&["doctor", "--json"], more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{error}"));
    (output.status.code(), answer)
}

#[track_caller]
fn found<'a>(answer: &'a Value, what: &str) -> &'a Value {
    let mut findings = answer["findings"].as_array().unwrap().iter();
    findings
        .find(|finding| finding["what"] == what)
        .unwrap_or_else(|| panic!("{what}: {answer:#}"))
}

#[test]
fn a_server_that_is_well_makes_the_round_trip() {
    let server = Server::start(&[]);
    let url = format!("server.public_url=http://{}", server.addr());
    let (code, answer) = examine(&server, &["--set", &url]);
    assert_eq!(code, Some(0), "{answer:#}");
    for what in [
        "configuration",
        "server",
        "broker",
        "store",
        "alerts",
        "round trip",
    ] {
        assert_eq!(found(&answer, what)["verdict"], "good", "{answer:#}");
    }
    let people = server.run(&["doctor", "--set", &url]);
    let people = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(people.contains("an event came through"), "{people}");
}

#[test]
fn a_proxy_that_does_not_upgrade_is_found_and_the_cure_is_named() {
    let server = Server::start(&[]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("server.public_url=http://{}", proxy.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut socket, _) = proxy.accept().unwrap();
        let mut head = [0; 4096];
        let _ = socket.read(&mut head);
        let answer = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\n{}";
        let _ = socket.write_all(answer.as_bytes());
        let _ = socket.read(&mut head);
    });
    let (code, answer) = examine(&server, &["--set", &url]);
    assert_eq!(code, Some(3), "{answer:#}");
    let trip = found(&answer, "round trip");
    assert_eq!(trip["verdict"], "bad");
    let said = trip["found"].as_str().unwrap();
    assert!(said.contains("426") && said.contains("Upgrade"), "{said}");
}

#[test]
fn without_a_server_ports_and_database_are_looked_at() {
    let mut server = Server::start(&[]);
    server.notify("ann", "kept");
    server.terminate();
    let taken = TcpListener::bind(server.addr()).unwrap();
    let (code, answer) = examine(&server, &[]);
    assert_eq!(code, Some(3), "{answer:#}");
    assert_eq!(found(&answer, "server")["verdict"], "bad");
    assert_eq!(found(&answer, "database")["verdict"], "good", "{answer:#}");
    let port = found(&answer, "server.listen");
    assert_eq!(port["verdict"], "bad", "{answer:#}");
    assert!(port["cure"].as_str().unwrap().contains("ss -ltnp"));
    drop(taken);
}

/// What is said of a Redis that no server runs on.
fn redis(url: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = format!("[broker]\nbackend = \"redis\"\n[broker.redis]\nurl = \"{url}\"\n");
    std::fs::write(&file, config).unwrap();
    let output = support::command()
        .current_dir(folder.path())
        .args(["doctor", "--json", "--config"])
        .arg(&file)
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("hush"), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let findings = answer["findings"].as_array().unwrap().iter();
    let about = findings.filter(|one| one["what"] == "redis").cloned();
    (output.status.code(), about.collect())
}

#[test]
fn a_redis_that_may_lose_something_is_found_and_the_cure_is_named() {
    let well = RedisServer::start(&[]);
    let (_, found) = redis(&well.url(), &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["verdict"], "good", "{found:#?}");
    let about = found[0]["found"].as_str().unwrap();
    assert!(
        about.contains("noeviction") && about.contains("master"),
        "{about}"
    );

    let evicts = RedisServer::start(&[
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lru"),
        ("appendonly", "no"),
        ("requirepass", "hush"),
    ]);
    let url = evicts.url().replace("redis://", "redis://:hush@");
    let (code, found) = redis(&url, &["--set", "broker.redis.wait_replicas=1"]);
    assert_eq!(code, Some(3));
    for (verdict, what, cure) in [
        (
            "bad",
            "allkeys-lru",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ("warning", "appendonly is off", "CONFIG SET appendonly yes"),
        ("bad", "broker.redis.wait_replicas", "start the replicas"),
    ] {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = found.iter().find(|one| text(&one["found"]).contains(what));
        let one = one.unwrap_or_else(|| panic!("{what}: {found:#?}"));
        assert_eq!(one["verdict"], verdict, "{one:#}");
        assert!(text(&one["cure"]).contains(cure), "{one:#}");
    }
    // The cure cures.
    evicts.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    evicts.command(&["CONFIG", "SET", "appendonly", "yes"]);
    let (_, found) = redis(&url, &[]);
    assert_eq!(found[0]["verdict"], "good", "{found:#?}");

    let wrong = evicts.url().replace("redis://", "redis://:nothush@");
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    for url in [wrong, nobody] {
        let (code, found) = redis(&url, &[]);
        assert_eq!((code, &found[0]["verdict"]), (Some(3), &"bad".into()));
        assert!(found[0]["cure"].as_str().unwrap().contains("is it running"));
    }
}
