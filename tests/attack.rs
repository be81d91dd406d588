//! A measurement: what others notice of somebody who tries 10,000 bad sign-ins a second from one
//! address. Ignored unless asked for, because it says something only on a machine that does nothing
//! else; `benches/attack` runs it with an optimized server.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement takes the time, and what is not there has to fail it"
)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Dice, Server};

const SUBSCRIBERS: usize = 20;
const ROUNDS: usize = 8;
const PHASE: Duration = Duration::from_secs(3);
const EVENT_EVERY: Duration = Duration::from_millis(5);
const THREADS: u64 = 2;
const BURST: u64 = 50;
const BURST_EVERY: Duration = Duration::from_millis(10);
/// No trusted proxy, unlike 127.0.0.1.
const ATTACKER: [u8; 4] = [127, 0, 0, 2];

#[derive(Default)]
struct Attack {
    on: AtomicBool,
    over: AtomicBool,
    answered: AtomicU64,
}

/// Sends requests in bursts and reads what comes, over one connection after the other.
fn attack(to: SocketAddr, wallet: &str, attack: &Attack) {
    let body = json!({"wallet": wallet, "message": "let me in", "signature": "1111"}).to_string();
    let request = format!(
        "POST /api/auth/wallet HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let burst = request.repeat(BURST as usize);
    let mut connection: Option<TcpStream> = None;
    let mut buffer = vec![0; 64 << 10];
    while !attack.over.load(Ordering::Relaxed) {
        if !attack.on.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let began = Instant::now();
        let stream = connection.get_or_insert_with(|| {
            let kind = socket2::Type::STREAM;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
            let from = SocketAddr::from((IpAddr::from(ATTACKER), 0));
            socket.bind(&from.into()).unwrap();
            socket.connect(&to.into()).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            socket.into()
        });
        let mut answers = 0;
        let sent = stream.write_all(burst.as_bytes()).is_ok();
        while sent && answers < BURST {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let text = &buffer[..count];
                    let starts = text.windows(9).filter(|part| part == b"HTTP/1.1 ");
                    answers += starts.count() as u64;
                }
                _ => break,
            }
        }
        attack.answered.fetch_add(answers, Ordering::Relaxed);
        if answers < BURST {
            connection = None;
        }
        std::thread::sleep(BURST_EVERY.saturating_sub(began.elapsed()));
    }
}

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

#[test]
#[ignore = "a measurement, for a quiet machine: benches/attack"]
fn what_others_notice_of_ten_thousand_bad_sign_ins_a_second() {
    let server = Server::start(&[
        ("auth.wallet_proof", "signature"),
        ("limits.sign_in_per_minute", "10"),
        ("limits.requests_per_second", "50"),
        ("limits.connections_per_address", "256"),
    ]);
    let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let latencies: Arc<Mutex<Vec<Duration>>> = Arc::default();
    for nth in 0..SUBSCRIBERS {
        let mut client: Client = server.connect(&format!("u{nth}"));
        client.subscribe("post_1");
        let (sent, latencies) = (sent.clone(), latencies.clone());
        // Ends with the process.
        std::thread::spawn(move || {
            client.set_patience(Duration::from_secs(600));
            while let Some(event) = client.try_next() {
                let now = Instant::now();
                let nth = event["n"].as_u64().unwrap() as usize;
                let latency = now - sent.lock().unwrap()[nth];
                latencies.lock().unwrap().push(latency);
            }
        });
    }
    let wallet = Dice::from_environment().wallet();
    let state: Arc<Attack> = Arc::default();
    for _ in 0..THREADS {
        let (state, wallet, to) = (state.clone(), wallet.clone(), server.addr());
        std::thread::spawn(move || attack(to, &wallet, &state));
    }

    let phase = |on: bool| {
        state.on.store(on, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200));
        latencies.lock().unwrap().clear();
        let (start, before) = (Instant::now(), state.answered.load(Ordering::Relaxed));
        while start.elapsed() < PHASE {
            let nth = {
                let mut sent = sent.lock().unwrap();
                sent.push(Instant::now());
                sent.len() - 1
            };
            server.publish("post_1", json!({"type": "tick", "n": nth}));
            std::thread::sleep(EVENT_EVERY);
        }
        let answered = state.answered.load(Ordering::Relaxed) - before;
        let rate = answered as f64 / start.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(200));
        (p99(&mut latencies.lock().unwrap()), rate)
    };
    phase(false);
    let (mut calm, mut attacked, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        calm.push(phase(false).0);
        let (p99, rate) = phase(true);
        attacked.push(p99);
        rates.push(rate);
    }
    state.over.store(true, Ordering::Relaxed);
    calm.sort_unstable();
    attacked.sort_unstable();
    rates.sort_by(f64::total_cmp);
    let (calm, attacked, rate) = (calm[ROUNDS / 2], attacked[ROUNDS / 2], rates[ROUNDS / 2]);
    let ratio = attacked.as_secs_f64() / calm.as_secs_f64();
    println!("bad sign-ins answered        {rate:>10.0} a second, from one address");
    println!("p99 of others' events, calm  {calm:>10.2?}");
    println!("p99 under attack             {attacked:>10.2?}");
    println!("ratio                        {ratio:>10.2} (at most 1.20)");
    assert!(rate >= 9_500.0, "the attack was too weak");
    assert!(ratio <= 1.2, "others notice it");
}
