//! A stop: everybody is told when to come back, what was accepted is finished. Contract section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::{Client, Server, eventually};

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn a_stop_tells_everybody_to_come_back_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[("server.workers", "2")]);
        let mut clients: Vec<Client> = (0..40)
            .map(|nth| server.connect(&format!("u{nth}")))
            .collect();
        for client in &mut clients {
            client.subscribe("post_1");
        }
        server.publish("post_1", json!({"type": "tick"}));
        server.signal(signal);
        let start = Instant::now();
        let told: Vec<(Duration, Duration)> = clients
            .iter_mut()
            .map(|client| {
                assert_eq!(
                    client.next()["type"],
                    "tick",
                    "what was published before still comes"
                );
                let announced = client.expect_disconnect(4100, "shutting down");
                let wait = announced["data"]["retryAfterMs"].as_u64().unwrap();
                (start.elapsed(), Duration::from_millis(wait))
            })
            .collect();
        let status = server.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        // One after the other, 50 ms each, and nobody is to come back before the end of it.
        let (first, last) = (told[0].0, told[told.len() - 1].0);
        assert!(last - first > Duration::from_millis(1_500), "{told:?}");
        let back = Duration::from_millis(2_000)..Duration::from_millis(3_500);
        assert!(
            told.iter().all(|(at, wait)| back.contains(&(*at + *wait))),
            "{told:?}"
        );
        let log = server.event_log();
        let ends: Vec<_> = log
            .iter()
            .filter(|line| line["type"] == "disconnect")
            .collect();
        assert_eq!(ends.len(), 40);
        assert!(
            ends.iter()
                .all(|line| line["data"]["reason"] == "shutting down")
        );
        assert_eq!(log.last().unwrap()["type"], "server");

        // And they do come back.
        server.restart();
        server.connect("u0").close();
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn while_it_stops_it_serves_and_says_so_and_those_who_do_not_listen_are_not_waited_for() {
    let mut server = Server::start(&[]);
    // It never reads, so it never agrees to close.
    let deaf = server.connect("deaf");
    let idle = TcpStream::connect(server.addr()).unwrap();
    let mut clients: Vec<Client> = (0..40)
        .map(|nth| server.connect(&format!("u{nth}")))
        .collect();
    for client in &mut clients {
        client.subscribe("post_1");
    }
    let start = Instant::now();
    server.signal(Signal::TERM);
    let mut ready = json!(null);
    eventually("it is not ready", Duration::from_secs(1), || {
        let reply = server.http("GET", "/ready", &[], "");
        ready = reply.json();
        reply.status == 503
    });
    assert_eq!(ready["checks"]["draining"], true);
    server.http("GET", "/health", &[], "").expect(200);
    server.publish("post_1", json!({"type": "tick"}));
    let heard = clients
        .iter_mut()
        .filter_map(Client::try_next)
        .filter(|frame| frame["type"] == "tick")
        .count();
    assert!(heard > 10, "{heard} of 40 were still there");
    // Who comes now is taken, and told.
    server
        .connect("late")
        .expect_disconnect(4100, "shutting down");
    let status = server.wait(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    let took = start.elapsed();
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    drop((deaf, idle, clients));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&[("server.shutdown_grace", "60s")]);
    let deaf = server.connect("deaf");
    server.publish("post_1", json!({"type": "tick", "n": 1}));
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        start.elapsed()
    );
    drop(deaf);
    // At once is not carelessly.
    server.restart();
    let mut client = server.connect("u1");
    client.send(&json!({"type": "history", "channel": "post_1"}));
    assert_eq!(client.next()["data"]["events"][0]["n"], 1);
}

/// A process that does not outlive its test.
struct Started(std::process::Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn signals_are_heard_as_soon_as_it_says_where_it_listens() {
    for _ in 0..5 {
        let home = tempfile::TempDir::new().unwrap();
        let mut settings = String::from(
            "data_dir = 'd'\nserver.listen = '127.0.0.1:0'\nmetrics.listen = '127.0.0.1:0'\n",
        );
        settings.push_str("logs.dir = 'l'\nauth.wallet_proof = 'none'\n");
        let file = home.path().join("config.toml");
        std::fs::write(&file, settings).unwrap();
        let mut process = support::command()
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .current_dir(home.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut process = Started(process);
        let pid = rustix::process::Pid::from_child(&process.0);
        let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        signal(Signal::HUP);
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        let address = address.parse().unwrap();
        let ready = support::request(address, "GET", "/ready", &[], b"").unwrap();
        assert_eq!(ready.status, 200);
        signal(Signal::TERM);
        assert_eq!(process.0.wait().unwrap().code(), Some(0));
    }
}
