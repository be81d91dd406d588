//! `/stats` and `/metrics` over real sockets, also with peers that mean no good.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use fanfare::broker::faulty::Silent;
use fanfare::broker::{Health, StoreFigures};
use fanfare::clock::Clock;
use fanfare::config::{self, Live};
use fanfare::event_log::EventLog;
use fanfare::metrics::roster::Roster;
use fanfare::metrics::server::Door;
use fanfare::metrics::{
    Bounds, Counters, MOST_COUNTS, Observed, Process, Snapshot, console, render, server,
};
use fanfare::tls::Endpoint;

/// A server of one minute with something in every member.
fn busy() -> Snapshot {
    let counts = |names: &[&str]| {
        let counted = names.iter().zip(1..);
        counted.map(|(name, n)| (name.to_string(), n)).collect()
    };
    Snapshot {
        version: "0.1.0",
        node: "a\"b\\c".into(),
        started_unix_ms: 1_795_406_706_789,
        uptime_ms: 120_000,
        broker: Health::Degraded("reconnecting".into()),
        store_figures: StoreFigures {
            bytes: 1 << 40,
            ..StoreFigures::default()
        },
        process: Process::read(),
        queues: vec![3, 0],
        channel_count: 50_000,
        channels: (0..MOST_COUNTS as u64)
            .map(|n| (format!("post_{n}_{}", "x".repeat(240)), 2_000 - n))
            .collect(),
        connections_opened: 12,
        connections_closed: 2,
        messages: 9,
        messages_by_type: counts(&["subscribe", "ping", "made\nup\"", "made up too"]),
        closes: counts(&[
            "4102 too slow",
            "1008 Unauthorized",
            "3999 whatever a peer says",
        ]),
        auth_failures: counts(&["expired", "signature"]),
        http_responses: counts(&["POST /api/publish 200", "PROPFIND other 404"]),
        limited: counts(&["sign_in_per_minute"]),
        publications: counts(&["backend", "client"]),
        ..Snapshot::default()
    }
}

fn listen(source: impl Fn() -> Snapshot + Send + Sync + 'static) -> server::Handle {
    listen_at("127.0.0.1:0", source)
}

fn listen_at(addr: &str, source: impl Fn() -> Snapshot + Send + Sync + 'static) -> server::Handle {
    // Both ends of every connection of all tests here are in this process.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let listener = server::bind(addr.parse().unwrap()).unwrap();
    server::serve(listener, door(), Arc::new(source), Arc::default(), nobody()).unwrap()
}

/// Nobody is connected.
fn nobody() -> Roster {
    Arc::new(|_, _| Some(Vec::new()))
}

/// Plain, for everybody.
fn door() -> Door {
    Door {
        tls: Endpoint::new(None).unwrap(),
        config: Live::new(config::load(&config::Sources::default()).unwrap()),
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    stream
}

/// Sends bytes and reads to the end: status and head, body.
fn exchange(addr: SocketAddr, request: &str) -> io::Result<(String, String)> {
    let mut stream = connect(addr);
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok((head.to_string(), body.to_string()))
}

fn scrape(addr: SocketAddr, path: &str) -> (String, String) {
    scrape_as(addr, path, &addr.to_string())
}

fn scrape_as(addr: SocketAddr, path: &str, host: &str) -> (String, String) {
    exchange(
        addr,
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .unwrap()
}

/// Scrapes, and fails if that takes as long as a timeout somewhere on the way.
#[allow(clippy::disallowed_methods)] // measures the server from outside
fn scrape_promptly(addr: SocketAddr) {
    let begin = std::time::Instant::now();
    let (head, body) = scrape(addr, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(body.contains("fanfare_build_info"));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

fn promtool_says(text: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: apt-get install prometheus (tests/run does it)");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    match (output.status.success(), said.is_empty()) {
        (true, true) => said,
        (status, _) => format!("success: {status}, {said}"),
    }
}

/// Everything that is counted, under what only it was counted by.
#[test]
fn what_is_counted_is_shown() {
    let counters = Arc::new(Counters::new(2));
    for (n, worker) in (1..).zip(&counters.workers) {
        worker.connections_opened.add(10 * n);
        worker.connections_closed.add(n);
        worker.messages.add(100 * n);
        worker.messages_by_type.increment("ping");
        worker.closes.increment("4102 too slow");
        worker.deliveries.add(1_000 * n);
        worker.gaps.add(5 * n);
        worker.dropped.add(7 * n);
    }
    counters.auth_failures.increment("expired");
    counters.auth_failures.increment("origin");
    counters.errors.add(7);
    let clock = Clock::manual(1_795_406_706_789);
    let started = clock.now();
    clock.advance(Duration::from_secs(3_723));
    let observed = Arc::new(Observed {
        counters,
        clock,
        started,
        node: "n1".into(),
        version: "1.2.3",
        store: Arc::new(Silent),
        broker: Arc::new(Silent),
        redis: None,
        event_log: EventLog::silent(),
        channels: Box::new(|| vec![("post_1".into(), 2), ("feed_u".into(), 3)]),
        queues: Box::new(|| vec![4, 0]),
        certificates: Box::new(|| vec![("server", 1_800_000_000_000)]),
        draining: Box::new(|| true),
        bounds: Box::new(|| Bounds {
            connections: 12,
            store_bytes: 34,
        }),
    });
    let handle = server::start(
        server::bind("127.0.0.1:0".parse().unwrap()).unwrap(),
        door(),
        Arc::clone(&observed),
        Arc::default(),
        nobody(),
    )
    .unwrap();
    let (_, body) = scrape(handle.local_addr(), "/stats");
    assert!(body.starts_with(concat!(
        r#"{"totalConnections":30,"activeConnections":27,"totalMessages":300,"authFailures":2,"#,
        r#""errors":7,"uptime":"1h 2m","connectionsByChannel":{"feed_u":3,"post_1":2},"#,
        r#""messagesByType":{"ping":2},"averageMessagesPerMinute":4.83,"server":{"#,
        r#""version":"1.2.3","node":"n1","startedAt":"2026-11-23T04:05:06.789Z","#,
    )), "{body}");
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    let shown = &stats["server"];
    for (member, value) in [
        ("draining", serde_json::json!(true)),
        ("broker", serde_json::json!({"state": "up"})),
        ("queues", serde_json::json!([4, 0])),
        ("subscriptions", serde_json::json!(5)),
        ("deliveries", serde_json::json!(3_000)),
        ("gaps", serde_json::json!(15)),
        ("dropped", serde_json::json!(21)),
        ("closesByReason", serde_json::json!({"4102 too slow": 2})),
        (
            "authFailuresByCheck",
            serde_json::json!({"expired": 1, "origin": 1}),
        ),
    ] {
        assert_eq!(shown[member], value, "{member}");
    }
    let (_, text) = scrape(handle.local_addr(), "/metrics");
    assert_eq!(promtool_says(&text), "");
    assert!(text.contains("\nfanfare_draining 1\n"));
    assert!(text.contains("\nfanfare_connections_max 12\n"));
    assert!(text.contains("\nfanfare_store_max_bytes 34\n"));

    let (out, printed) = io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
    let console = console::start(observed, Duration::from_millis(20), out).unwrap();
    let mut first = String::new();
    io::BufReader::new(printed).read_line(&mut first).unwrap();
    assert_eq!(
        first,
        "stats: up 1h 2m, 27 active of 30 connections, 300 messages, 2 auth failures, 7 errors\n"
    );
    drop(console);
}

#[test]
fn promtool_has_nothing_to_say() {
    assert_eq!(promtool_says(&render::metrics(&busy())), "");
    assert_eq!(promtool_says(&render::metrics(&Snapshot::default())), "");
    // It does say something when there is something to say.
    assert_ne!(promtool_says("# TYPE a counter\na 1\n"), "");
}

#[test]
fn labels_are_ours_alone() {
    let text = render::metrics(&busy());
    for line in [
        r#"fanfare_build_info{version="0.1.0",node="a\"b\\c"} 1"#,
        "fanfare_connections 10",
        r#"fanfare_messages_total{type="subscribe"} 1"#,
        r#"fanfare_messages_total{type="other"} 7"#,
        r#"fanfare_closes_total{code="4102",reason="too slow"} 1"#,
        r#"fanfare_closes_total{code="other",reason="other"} 3"#,
        r#"fanfare_http_responses_total{method="POST",route="/api/publish",status="200"} 1"#,
        r#"fanfare_http_responses_total{method="other",route="other",status="404"} 2"#,
        r#"fanfare_worker_queue_events{worker="0"} 3"#,
        r#"fanfare_broker_state{state="degraded"} 1"#,
        r#"fanfare_broker_state{state="up"} 0"#,
        "fanfare_store_bytes 1099511627776",
        "fanfare_process_start_time_seconds 1795406706.789",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    assert!(!text.contains("post_") && !text.contains("made"));
    let names = text.lines().filter(|line| !line.starts_with('#'));
    assert!(names.clone().count() > 50);
    assert!(names.into_iter().all(|line| line.starts_with("fanfare_")));
}

#[test]
fn every_page_and_every_refusal() {
    let handle = listen(busy);
    let addr = handle.local_addr();
    let (head, body) = scrape(addr, "/stats?x=1");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nConnection: close\r\n"),
        "{head}"
    );
    assert!(head.contains("Content-Type: application/json"));
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    let stats: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        stats["connectionsByChannel"].as_object().unwrap().len(),
        MOST_COUNTS
    );
    assert_eq!(stats["messagesByType"]["made\nup\""], 3);
    assert_eq!(stats["averageMessagesPerMinute"], 4.5);

    let (head, body) = scrape(addr, "/metrics");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(body.starts_with("# HELP fanfare_build_info"));
    let (head, body) = scrape(addr, "/");
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert!(head.contains("Content-Type: text/html"), "{head}");
    assert!(head.contains("Content-Security-Policy: default-src 'none'"));
    assert!(body.contains("/dashboard.js"));
    for (path, media) in [("/dashboard.js", "javascript"), ("/dashboard.css", "css")] {
        let (head, _) = scrape(addr, path);
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains(media),
            "{head}"
        );
    }
    for path in ["/hour", "/hour/0", "/hour/99"] {
        let (head, body) = scrape(addr, path);
        assert!(head.contains("Content-Type: application/json"), "{head}");
        assert!(body.contains(r#""samples":[]"#), "{body}");
    }
    let (_, body) = scrape(addr, "/connections?user=u1");
    assert_eq!(body, r#"{"connections":[],"next":null}"#);
    for query in ["after=x", "limit=9", "user"] {
        let (head, _) = scrape(addr, &format!("/connections?{query}"));
        let expected = if query == "user" {
            "HTTP/1.1 200 "
        } else {
            "HTTP/1.1 400 "
        };
        assert!(head.starts_with(expected), "{query}: {head}");
    }
    for path in ["/hour/", "/hour/-1", "/hour/x"] {
        assert!(scrape(addr, path).0.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let (head, body) = scrape(addr, "/other");
    assert!(head.starts_with("HTTP/1.1 404 "));
    assert_eq!(body, r#"{"error":"Not found","code":"not_found"}"#);
    let (head, body) = exchange(addr, "HEAD /metrics HTTP/1.0\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: "),
        "{head}"
    );
    assert_eq!(body, "");
    let (head, _) = exchange(addr, "GET /stats HTTP/1.0\r\n\r\n").unwrap();
    assert!(!head.contains("chunked"), "{head}");

    let (head, _) = exchange(addr, "POST /stats HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 405 ") && head.contains("\r\nAllow: GET, HEAD"),
        "{head}"
    );
    let (head, _) = exchange(addr, "what is this\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let long = "x".repeat(9_000);
    let (head, _) = exchange(addr, &format!("GET / HTTP/1.1\r\na: {long}\r\n\r\n")).unwrap();
    assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
}

#[test]
fn who_is_connected_is_no_business_of_the_network() {
    let handle = listen_at("0.0.0.0:0", busy);
    let addr = SocketAddr::from(([127, 0, 0, 1], handle.local_addr().port()));
    for query in ["", "?user=u1"] {
        let (head, body) = scrape(addr, &format!("/connections{query}"));
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert!(body.contains("set metrics.token"), "{body}");
    }
    for path in ["/", "/stats", "/metrics", "/hour"] {
        assert!(scrape(addr, path).0.starts_with("HTTP/1.1 200 "), "{path}");
    }
}

#[test]
fn a_page_that_renamed_itself_to_this_machine_does_not_see_who_is_connected() {
    let handle = listen(busy);
    let addr = handle.local_addr();
    for (host, status) in [
        ("evil.example:9090", 403),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost:9090", 200),
        ("127.0.0.1", 200),
        ("[::1]:9090", 200),
    ] {
        let (head, _) = scrape_as(addr, "/connections", host);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{host}: {head}"
        );
        let (head, _) = scrape_as(addr, "/metrics", host);
        assert!(head.starts_with("HTTP/1.1 200 "), "{host}: {head}");
    }
}

#[test]
fn resets_harm_nobody() {
    let handle = listen(busy);
    for n in 0..2_000 {
        let mut stream = connect(handle.local_addr());
        let request =
            &b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..if n % 2 == 0 { 34 } else { 9 }];
        let _ = stream.write_all(request);
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    scrape_promptly(handle.local_addr());
}

#[test]
fn the_silent_and_the_slow_are_sent_away_and_hold_up_nobody() {
    let handle = listen(busy);
    let addr = handle.local_addr();
    let threads = Process::read().threads;
    let mut silent: Vec<_> = (0..150).map(|_| connect(addr)).collect();
    let mut slow: Vec<_> = (0..150).map(|_| connect(addr)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /stats HTTP/1.1\r\nHo").unwrap();
    }
    for _ in 0..20 {
        scrape_promptly(addr);
    }
    // Other tests have threads of their own, but not hundreds.
    assert!(Process::read().threads < threads + 100);
    for stream in silent.iter_mut().chain(&mut slow) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let handle = listen(busy);
    let mut stream = connect(handle.local_addr());
    stream.write_all(b"GET /stats HTTP/1.1\r\nX: ").unwrap();
    let chunk = [b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < 64 << 20 {
        match stream.write(&chunk) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "all of it was taken");
    scrape_promptly(handle.local_addr());
}

#[test]
fn those_who_ask_and_never_read_hold_up_nobody() {
    let handle = listen(busy);
    let addr = handle.local_addr();
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(addr);
            // The smallest window there is: the answer does not fit.
            socket2::SockRef::from(&stream)
                .set_recv_buffer_size(2_048)
                .unwrap();
            let _ = stream.write_all(
                "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n"
                    .repeat(200)
                    .as_bytes(),
            );
            stream
        })
        .collect();
    for _ in 0..20 {
        scrape_promptly(addr);
    }
    drop(asking);
}

#[test]
fn the_first_of_pipelined_requests_is_answered_whole() {
    let handle = listen(busy);
    let requests = "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    let (head, body) = exchange(handle.local_addr(), &requests).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "));
    serde_json::from_str::<serde_json::Value>(&body).unwrap();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let handle = listen(busy);
    let addr = handle.local_addr();
    let silent: Vec<_> = (0..512).map(|_| connect(addr)).collect();
    let (head, _) = scrape(addr, "/stats");
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After"),
        "{head}"
    );
    drop(silent);
    eventually("there is room again", || {
        scrape(addr, "/stats").0.contains(" 200 ")
    });
}

#[test]
fn a_fault_in_the_figures_is_a_500_and_not_the_end() {
    let broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&broken);
    let handle = listen(move || {
        assert!(!breaks.load(Ordering::SeqCst), "meant to happen");
        busy()
    });
    for _ in 0..10 {
        let (head, body) = scrape(handle.local_addr(), "/stats");
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
        assert_eq!(body, r#"{"error":"Internal error","code":"internal"}"#);
    }
    broken.store(false, Ordering::SeqCst);
    scrape_promptly(handle.local_addr());
}

#[test]
fn it_stops_when_told_and_finishes_what_was_asked() {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let handle = listen(move || {
        let _ = asked.send(());
        std::thread::sleep(Duration::from_millis(100));
        busy()
    });
    let addr = handle.local_addr();
    let last = std::thread::spawn(move || scrape(addr, "/stats").0);
    was_asked.recv().unwrap();
    handle.stop();
    assert!(last.join().unwrap().starts_with("HTTP/1.1 200 "));
    assert!(TcpStream::connect(addr).is_err());
}

/// tiny_http's accept loop ends at the first EMFILE. In a process of its own, because the limit is
/// for the whole process.
#[test]
fn it_survives_running_out_of_file_descriptors() {
    const CHILD: &str = "FANFARE_TEST_FILE_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let script =
            "ulimit -n 128 && exec \"$0\" --exact it_survives_running_out_of_file_descriptors";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let handle = listen(busy);
    let addr = handle.local_addr();
    for free in 0..8 {
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        taken.truncate(taken.len() - free);
        // With room for the client only, for the front too, for its question too, ..
        if let Ok(mut stream) = TcpStream::connect(addr) {
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            let _ = stream.write_all(b"GET /stats HTTP/1.1\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
        drop(taken);
        eventually(&format!("an answer after {free}"), || {
            scrape(addr, "/metrics").0.contains(" 200 ")
        });
    }
}

/// Waits for what other threads do; a deadline, not a pause.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within five seconds: {what}");
}
