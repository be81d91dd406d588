//! A restart with a socket that was handed over, under 2,000 clients and 200 events a second: no
//! connection is refused, and whoever comes back has every event.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::{Server, eventually, frame, handshake};

const CLIENTS: usize = 2_000;
const CHANNELS: usize = 20;
const EVENTS_PER_SECOND: u32 = 200;
const PUBLISHERS: usize = 4;
/// For all clients to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// Before the restart, and after it.
const CALM: Duration = Duration::from_secs(3);

const CONFIG: &str = "\
    [server]\nshutdown_grace = \"2s\"\n\
    [auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
    [limits]\nrequests_per_second = 0\nconnections_per_address = 0\nconnections_per_user = 0\n\
    accepts_per_second = 0\n\
    [channels.post]\nhistory = 5000\n";

/// A socket of a service manager, with room for everybody who comes back at once.
pub fn socket() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&anywhere.into()).unwrap();
    socket.listen(4_096).unwrap();
    socket.into()
}

pub fn run() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut server = Server::start_as_service(CONFIG, &[], vec![socket().into()]);
    let address = server.addr();
    let paths: Vec<String> = (0..CLIENTS)
        .map(|n| format!("/ws?token={}", server.token(&format!("u{n}"))))
        .collect();
    let (is_over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (came, tops) = std::thread::scope(|scope| {
        let clients = scope.spawn(|| clients(address, paths, &is_over));
        for publisher in 0..PUBLISHERS {
            let (is_over, published) = (&is_over, &published);
            let key = server.api_key().to_string();
            scope.spawn(move || publish(publisher, address, &key, is_over, published));
        }
        everybody_is_in(&server);
        std::thread::sleep(CALM);
        server.terminate();
        server.restart();
        everybody_is_in(&server);
        std::thread::sleep(CALM);
        is_over.store(true, Ordering::Relaxed);
        clients.join().unwrap()
    });
    println!(
        "{} events, {came} connections of {CLIENTS} clients, none refused; heard up to {tops:?}",
        published.load(Ordering::Relaxed)
    );
    assert!(came >= 2 * CLIENTS, "everybody came back: {came}");
    for (channel, top) in tops.iter().enumerate() {
        let body = json!({"channel": format!("post_{channel}"), "limit": 1});
        let history = server
            .as_backend("POST", "/api/history", &body)
            .expect(200)
            .json();
        assert_eq!(
            history["offset"].as_u64(),
            Some(*top),
            "post_{channel}: {history}"
        );
    }
}

fn everybody_is_in(server: &Server) {
    eventually("everybody is in", PATIENCE, || {
        server.stats()["activeConnections"] == CLIENTS
    });
}

fn publish(n: usize, to: SocketAddr, key: &str, is_over: &AtomicBool, published: &AtomicUsize) {
    let pause = Duration::from_secs(1) * PUBLISHERS as u32 / EVENTS_PER_SECOND;
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    let mut next = Instant::now();
    for count in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let channel = (count * PUBLISHERS + n) % CHANNELS;
        let body = json!({"channel": format!("post_{channel}"), "event": {"type": "tick"}});
        let body = body.to_string();
        match crate::support::request(to, "POST", "/api/publish", &headers, body.as_bytes()) {
            Ok(reply) if reply.status == 200 => drop(published.fetch_add(1, Ordering::Relaxed)),
            // It was stopping: the event may be tried again.
            Ok(reply) => assert_eq!(reply.status, 503),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        }
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// How many connections there were, and the last offset that all clients of each channel have.
fn clients(to: SocketAddr, paths: Vec<String>, is_over: &AtomicBool) -> (usize, Vec<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = tokio::task::LocalSet::new();
    let came = Rc::new(Cell::new(0));
    let ends = tasks.block_on(&runtime, async {
        let over = Rc::new(Cell::new(false));
        let all: Vec<_> = paths
            .into_iter()
            .enumerate()
            .map(|(n, path)| {
                let client = Client {
                    channel: n % CHANNELS,
                    path,
                    at: None,
                    came: came.clone(),
                };
                tokio::task::spawn_local(client.run(to, over.clone()))
            })
            .collect();
        while !is_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(50)).await;
        }
        over.set(true);
        let mut ends = Vec::new();
        for client in all {
            ends.push(client.await.unwrap());
        }
        ends
    });
    let mut tops = vec![0; CHANNELS];
    for (channel, at) in &ends {
        tops[*channel] = (*at).max(tops[*channel]);
    }
    for (channel, at) in &ends {
        assert_eq!(
            *at, tops[*channel],
            "a client of post_{channel} misses events"
        );
    }
    (came.get(), tops)
}

struct Client {
    channel: usize,
    path: String,
    /// Epoch and offset of the last event, or where it began.
    at: Option<(String, u64)>,
    came: Rc<Cell<usize>>,
}

impl Client {
    /// Comes back until it is over and nothing has come for a while.
    async fn run(mut self, to: SocketAddr, over: Rc<Cell<bool>>) -> (usize, u64) {
        loop {
            let stream = TcpStream::connect(to)
                .await
                .expect("a connection was refused");
            if self.stay(stream, &over).await {
                return (self.channel, self.at.unwrap().1);
            }
        }
    }

    /// One connection; whether it ended because it is over.
    async fn stay(&mut self, mut stream: TcpStream, over: &Cell<bool>) -> bool {
        let mut subscribe =
            json!({"type": "subscribe", "channel": format!("post_{}", self.channel)});
        if let Some((epoch, offset)) = &self.at {
            subscribe["recover"] = json!({"epoch": epoch, "offset": offset});
        }
        let mut hello = handshake(&self.path).into_bytes();
        hello.extend(frame(0x81, subscribe.to_string().as_bytes()));
        if stream.write_all(&hello).await.is_err() {
            return false;
        }
        let mut received = BytesMut::new();
        let mut is_upgraded = false;
        loop {
            let quiet = Duration::from_secs(5);
            match tokio::time::timeout(quiet, stream.read_buf(&mut received)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return false,
                Err(_) if over.get() => return true,
                Err(_) => continue,
            }
            if !is_upgraded {
                let Some(end) = received.windows(4).position(|at| at == b"\r\n\r\n") else {
                    continue;
                };
                if !received.starts_with(b"HTTP/1.1 101 ") {
                    // It is stopping, and says so.
                    assert!(received.starts_with(b"HTTP/1.1 503 "), "{received:?}");
                    return false;
                }
                received.advance(end + 4);
                is_upgraded = true;
                self.came.set(self.came.get() + 1);
            }
            while let Some((first, payload)) = take_frame(&mut received) {
                match first {
                    0x81 => self.hear(&serde_json::from_slice(&payload).unwrap()),
                    0x89 => drop(stream.write_all(&frame(0x8a, &payload)).await),
                    _ => return false,
                }
            }
        }
    }

    fn hear(&mut self, message: &Value) {
        let data = &message["data"];
        match message["type"].as_str().unwrap() {
            "connected" => {}
            "disconnect" => assert_eq!(data["code"], 4100, "{message}"),
            "subscribed" if self.at.is_none() => {
                let epoch = data["epoch"].as_str().unwrap().to_string();
                self.at = Some((epoch, data["offset"].as_u64().unwrap()));
            }
            "subscribed" => assert_eq!(data["recovered"], true, "{message}"),
            "tick" => {
                let (epoch, offset) = self.at.as_mut().unwrap();
                assert_eq!(message["_meta"]["epoch"], **epoch);
                *offset += 1;
                assert_eq!(message["_meta"]["offset"].as_u64(), Some(*offset), "a gap");
            }
            other => panic!("{other}: {message}"),
        }
    }
}

/// First byte and payload of the next frame, once it is whole.
fn take_frame(received: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let (header, length) = match received.get(1)? {
        126 => {
            let length = received.get(2..4)?.try_into().unwrap();
            (4, u16::from_be_bytes(length).into())
        }
        short => (2, usize::from(*short)),
    };
    if received.len() < header + length {
        return None;
    }
    let first = received[0];
    received.advance(header);
    Some((first, received.split_to(length)))
}
