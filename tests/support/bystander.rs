//! Somebody else on the server, who must notice nothing of what a test does to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Client, Server, eventually, http};

const CHANNEL: &str = "post_bystander";
/// Between two events.
const PAUSE: Duration = Duration::from_millis(10);

/// Publishes one event after the other, each over a connection of its own, and sees each arrive on
/// one socket before the next. Panics as soon as one is refused, lost, out of order or too late.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// What a bystander saw.
#[derive(Debug)]
pub struct Seen {
    /// Events published and received.
    pub events: u64,
    /// From asking to publish until the event was there: the longest of all.
    pub slowest: Duration,
}

impl Bystander {
    /// Begins; every event has to arrive within `patience`.
    #[track_caller]
    pub fn begin(server: &Server, patience: Duration) -> Self {
        let mut client = server.connect("bystander");
        client.set_patience(patience);
        client.subscribe(CHANNEL);
        let stop = Arc::new(AtomicBool::new(false));
        let (to, key) = (server.addr(), server.api_key().to_string());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || watch(client, to, &key, &stopped));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends; panics if anything was noticed.
    #[track_caller]
    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().unwrap().join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(mut client: Client, to: SocketAddr, key: &str, stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        events: 0,
        slowest: Duration::ZERO,
    };
    while seen.events == 0 || !stop.load(Ordering::Relaxed) {
        let n = seen.events + 1;
        let start = Instant::now();
        let body = json!({"channel": CHANNEL, "event": {"type": "tick", "n": n}}).to_string();
        http::request(
            to,
            "POST",
            "/api/publish",
            &[("X-API-Key", key)],
            body.as_bytes(),
        )
        .unwrap_or_else(|error| panic!("the bystander cannot publish: {error}"))
        .expect(200);
        let event = client.next();
        assert_eq!((&event["type"], &event["n"]), (&json!("tick"), &json!(n)));
        assert_eq!(event["_meta"]["offset"], n);
        seen.events = n;
        seen.slowest = seen.slowest.max(start.elapsed());
        std::thread::sleep(PAUSE);
    }
    client.close();
    seen
}

/// What a server looked like before a test was unkind to it.
pub struct Calm {
    open_files: usize,
}

impl Calm {
    /// Of a server that nobody is connected to.
    #[track_caller]
    pub fn of(server: &Server) -> Self {
        // What is opened once and kept is opened now.
        server.http("GET", "/ready", &[], "").expect(200);
        server.metrics("/stats").expect(200);
        std::thread::sleep(Duration::from_millis(50));
        Self {
            open_files: server.open_files(),
        }
    }

    /// Panics unless it looks like that again, within `patience`, and never panicked itself.
    #[track_caller]
    pub fn returns(&self, server: &Server, patience: Duration) {
        eventually("every connection is counted out", patience, || {
            server.metrics("/stats").json()["activeConnections"] == 0
        });
        eventually("every descriptor is closed", patience, || {
            server.open_files() <= self.open_files
        });
        server.http("GET", "/ready", &[], "").expect(200);
        assert!(!server.output().contains("panicked"));
    }
}
