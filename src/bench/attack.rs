//! What others notice of somebody who tries bad sign-ins from one address as fast as can be: latency and
//! CPU per delivery with and without, in turns on one server.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::conditions::Conditions;
use super::fanout::{self, Load, WARM_UP};
use super::fleet::Fleet;
use super::host::{Host, Keys};
use super::process::{Reading, Used};
use super::report::{Of, Report, Section};
use super::{Failure, Progress, Setup, stopwatch};

/// The limits that stop the attacker, as they are by default; other measurements have none.
const LIMITS: [(&str, &str); 2] = [
    ("limits.requests_per_second", "50"),
    ("limits.sign_in_per_minute", "10"),
];
/// Not the address of anybody else, and no trusted proxy.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections of the attacker, and requests that each sends in one go.
const CONNECTIONS: u32 = 2;
const BURST: usize = 50;
/// A wallet that nobody has a key of.
const WALLET: &str = "11111111111111111111111111111112";
/// The attacker's machine is another one: it must not take the time of the other clients.
const NICE: i32 = 19;
const PATIENCE: Duration = Duration::from_secs(5);

/// What holds if nothing goes wrong.
const CLAIM: &str = "every event arrived exactly once and in order, under attack as well";

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Attack {
    /// Subscribers, from other addresses.
    pub subscribers: usize,
    /// Events a second.
    pub rate: f64,
    /// Bad sign-ins a second.
    pub sign_ins: f64,
    /// Of each measurement.
    pub duration: Duration,
    /// Measurements of each kind; the median counts.
    pub rounds: usize,
}

/// Measures it.
///
/// # Errors
/// When there is no server, or it refuses publications.
pub fn run(setup: &Setup, plan: &Attack, progress: &mut Progress) -> Result<Report, Failure> {
    let mut report = Report::new("attack", CLAIM);
    let mut conditions = Conditions::default();
    let subscribers = conditions.sockets(plan.subscribers);
    let settings = LIMITS.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let host = Host::node(setup, 0, &Keys::random(), &settings)?;
    let key = host.door.channel(&host.fleeting, 0);
    let subscribe = |_| vec![super::subscribe(&key, None)];
    let mut fleet = Fleet::new(subscribers, vec![key.clone()], setup.event_bytes)?;
    progress.begin("attack:".to_owned());
    fleet.open(&host.door, &subscribe, &mut |ready| {
        progress.say(format_args!("{ready} subscribed"));
    })?;
    fleet.add_publishers(&host.door, 1)?;
    fleet.begin();
    let mut section = Section::new(title(plan, subscribers, setup), "no attack");
    let attackers = Attackers::start(host.door.address, plan.sign_ins);
    let load = Load::Rate(plan.rate);
    let mut at_rest = 0.0;
    for round in 1..=plan.rounds {
        for of in [Of::Baseline, Of::Fanfare] {
            progress.begin(format!("round {round}/{}, {}:", plan.rounds, name(of)));
            attackers.strike(of == Of::Fanfare);
            fanout::offer(&mut fleet, &host.door, 1, load, WARM_UP, progress)?;
            fleet.begin();
            let (answered, before) = (attackers.answered(), Reading::now(host.pid)?);
            fanout::offer(&mut fleet, &host.door, 1, load, plan.duration, progress)?;
            let used = Reading::now(host.pid)?.since(&before);
            let answered = (attackers.answered() - answered) as f64;
            conditions.note(&used);
            tell(&mut section, of, &fleet, &used);
            let busy = used.server.unwrap_or(0.0) / used.seconds;
            match of {
                Of::Baseline => at_rest = busy,
                Of::Fanfare => {
                    let rate = answered / used.seconds;
                    let cost = (busy - at_rest) * 1e6 / rate;
                    section.note(
                        of,
                        "sign_ins_per_second",
                        "bad sign-ins answered per second",
                        Some(rate),
                    );
                    section.note(
                        of,
                        "cpu_us_per_sign_in",
                        "CPU per bad sign-in, µs",
                        Some(cost),
                    );
                }
            }
            report.add_faults(fleet.faults());
        }
    }
    attackers.end();
    report.add_failed(fleet.failed, fleet.first_failure.as_deref());
    report.add(section);
    report.add_warnings(conditions.warnings());
    Ok(report)
}

fn tell(section: &mut Section, of: Of, fleet: &Fleet, used: &Used) {
    let latency = fleet.ledger.latency.latency();
    let percent = used.server.map(|cpu| cpu * 100.0 / used.seconds);
    let figures = [
        (
            "latency_p50_ms",
            "latency p50 of the others, ms",
            Some(latency.p50_ms),
        ),
        (
            "latency_p99_ms",
            "latency p99 of the others, ms",
            Some(latency.p99_ms),
        ),
        ("server_cpu_percent", "server CPU, %", percent),
    ];
    for (key, label, value) in figures {
        section.note(of, key, label, value);
    }
}

fn title(plan: &Attack, subscribers: usize, setup: &Setup) -> String {
    let Attack {
        rate,
        sign_ins,
        duration,
        rounds,
        ..
    } = plan;
    format!(
        "attack: {subscribers} subscribers, {} bytes, {rate} events a second; {sign_ins} bad sign-ins a second \
         from one address; {rounds} × {duration:?}",
        setup.event_bytes
    )
}

fn name(of: Of) -> &'static str {
    match of {
        Of::Baseline => "calm",
        Of::Fanfare => "under attack",
    }
}

/// Somebody with an address and a few threads.
struct Attackers {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    on: AtomicBool,
    over: AtomicBool,
    answered: AtomicU64,
}

impl Attackers {
    /// Waits for [`Attackers::strike`]; then tries so many sign-ins a second.
    fn start(to: SocketAddr, sign_ins: f64) -> Self {
        let state = Arc::<State>::default();
        let each = sign_ins / f64::from(CONNECTIONS) / BURST as f64;
        let interval = Duration::from_secs_f64(1.0 / each);
        let threads = (0..CONNECTIONS).map(|_| {
            let state = Arc::clone(&state);
            thread::spawn(move || state.work(to, interval))
        });
        Self {
            threads: threads.collect(),
            state,
        }
    }

    fn strike(&self, on: bool) {
        self.state.on.store(on, Ordering::Relaxed);
    }

    fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.state.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.thread().unpark();
            // One that has failed has answered nothing more, which the figures show.
            let _ = thread.join();
        }
    }
}

impl State {
    fn work(&self, to: SocketAddr, interval: Duration) {
        // A machine that does not let it: the attacker takes its share of this one.
        let _ = rustix::process::setpriority_process(None, NICE);
        let burst = request().repeat(BURST);
        let mut buffer = vec![0; 64 << 10];
        let mut connection = None;
        let mut due = stopwatch::nanos();
        while !self.over.load(Ordering::Relaxed) {
            if self.on.load(Ordering::Relaxed) {
                // A server that closes has said what it thinks; the next one is opened.
                if self
                    .try_burst(&mut connection, to, &burst, &mut buffer)
                    .is_err()
                {
                    connection = None;
                }
            }
            due = (due + stopwatch::of(interval)).max(stopwatch::nanos());
            // Until then, or the end.
            thread::park_timeout(Duration::from_nanos(due - stopwatch::nanos().min(due)));
        }
    }

    /// Sends as many as it can in one go, and reads the answers.
    fn try_burst(
        &self,
        connection: &mut Option<TcpStream>,
        to: SocketAddr,
        burst: &[u8],
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let stream = match connection {
            Some(stream) => stream,
            None => connection.insert(connect(to)?),
        };
        stream.write_all(burst)?;
        let mut answers = 0;
        while answers < BURST {
            let count = stream.read(buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Every answer has one, in its body.
            let heard = buffer[..count].iter().filter(|byte| **byte == b'{').count();
            self.answered.fetch_add(heard as u64, Ordering::Relaxed);
            answers += heard;
        }
        Ok(())
    }
}

fn request() -> Vec<u8> {
    let body = json!({ "wallet": WALLET, "message": "let me in", "signature": "1111" }).to_string();
    let length = body.len();
    let head = format!(
        "POST /api/auth/wallet HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    (head + &body).into_bytes()
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((ATTACKER, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}
