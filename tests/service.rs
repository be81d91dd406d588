//! As a service of systemd: what the service manager is told, credentials, sockets that it hands over.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a service manager waits in real time"
)]

#[path = "service/restart.rs"]
mod restart;
mod support;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::{Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

const BASE: &str = "\
    [auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
    [limits]\nrequests_per_second = 100000\n";

/// Where a service manager listens.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// The next message; `None`: none within this time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut message = [0; 4_096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8(message[..length].to_vec()).unwrap())
    }

    /// The next message that says this.
    #[track_caller]
    fn wait_for(&self, what: &str) -> String {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(message) = self.hear(Duration::from_secs(1))
                && message.lines().any(|line| line.starts_with(what))
            {
                return message;
            }
        }
        panic!("never told: {what}");
    }
}

#[test]
fn a_service_says_how_it_is() {
    let manager = Manager::new();
    let path = manager.path();
    let mut server = Server::start_as_service(BASE, &[("NOTIFY_SOCKET", &path)], Vec::new());
    let ready = manager.wait_for("READY=1");
    let status = ready.lines().find_map(|line| line.strip_prefix("STATUS="));
    assert_eq!(
        status.unwrap().split(" with ").next(),
        Some(&*format!("serving {}", server.addr()))
    );
    server.signal(Signal::HUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    // After a refused configuration it is as ready as before.
    server.write_config("nonsense");
    server.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    let _ann = server.connect("ann");
    manager.wait_for("STATUS=serving");
    server.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    assert!(server.wait(PATIENCE).success());
}

#[test]
fn the_watchdog_is_fed_by_workers_that_take_their_turns() {
    let manager = Manager::new();
    let path = manager.path();
    let limit = Duration::from_secs(2);
    let environment = [
        ("NOTIFY_SOCKET", &*path),
        ("WATCHDOG_USEC", "2000000"),
        ("FANFARE_SERVER__WORKERS", "2"),
    ];
    let server = Server::start_as_service(BASE, &environment, Vec::new());
    // Nobody is connected: an idle worker is no stuck one.
    for _ in 0..6 {
        manager.wait_for("WATCHDOG=1");
    }
    let worker = thread_of(&server, "worker-1");
    let stopped = Stopped::thread(worker);
    // What was on its way.
    while manager.hear(limit / 2).is_some() {}
    let start = Instant::now();
    while start.elapsed() < limit * 2 {
        let heard = manager.hear(limit / 4);
        assert!(!heard.is_some_and(|heard| heard.contains("WATCHDOG")));
    }
    assert!(server.output().contains("a worker is stuck"));
    drop(stopped);
    manager.wait_for("WATCHDOG=1");
}

/// The thread of the server with this name.
fn thread_of(server: &Server, name: &str) -> i32 {
    let tasks = format!("/proc/{}/task", server.pid().as_raw_nonzero());
    let mut tasks = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path());
    let found = tasks.find(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let name = found.unwrap();
    name.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

/// A thread that is held by a debugger, while the others go on.
struct Stopped(std::process::Child);

impl Stopped {
    fn thread(id: i32) -> Self {
        // Seizes it, holds it until its input ends, and lets it go.
        const HOLD: &str = "\
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
tid = int(sys.argv[1])
assert libc.ptrace(SEIZE, tid, 0, 0) == 0, os.strerror(ctypes.get_errno())
assert libc.ptrace(INTERRUPT, tid, 0, 0) == 0
os.waitpid(tid, 0x40000000)
print('held', flush=True)
sys.stdin.read()
libc.ptrace(DETACH, tid, 0, 0)
";
        let mut child = std::process::Command::new("python3")
            .args(["-c", HOLD, &id.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 is needed: apt-get install python3 (tests/run does it)");
        let mut held = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut held).unwrap();
        assert_eq!(&held, b"held\n");
        Self(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn secrets_may_be_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
    };
    write(
        "file_auth.secret",
        "a secret that only the service manager may read\n",
    );
    write("auth.api_keys", "a-key-of-credentials\n");
    let path = folder.path().display().to_string();
    let config = "[auth]\nsecret = \"SECRET\"\n";
    let environment = [("CREDENTIALS_DIRECTORY", &*path)];
    let server = Server::start_as_service(config, &environment, Vec::new());
    let publish = |key: &str| {
        let body = serde_json::json!({"channel": "post_1", "event": {"type": "t"}});
        let key = ("X-API-Key", key);
        server.json("POST", "/api/publish", &[key], &body).status
    };
    assert_eq!(publish("a-key-of-credentials"), 200);
    // They are stronger than the file: what it would have signed is not good.
    let bearer = format!("Bearer {}", server.token("ann"));
    let answer = server.http("GET", "/api/auth/wallet", &[("Authorization", &bearer)], "");
    assert_eq!(answer.status, 401);
    let told = server.run(&["check"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("# credential file_auth.secret"), "{told}");
    assert!(!told.contains("a-key-of-credentials"), "{told}");
}

#[test]
fn both_sockets_may_be_handed_over() {
    let [server_socket, metrics_socket] = [(); 2].map(|()| restart::socket());
    let addresses = [&server_socket, &metrics_socket].map(|socket| socket.local_addr().unwrap());
    let server = Server::start_as_service(
        BASE,
        &[("LISTEN_FDNAMES", "fanfare.socket:fanfare-metrics.socket")],
        vec![server_socket.into(), metrics_socket.into()],
    );
    assert_eq!([server.addr(), server.metrics_addr()], addresses);
    assert_eq!(server.stats()["activeConnections"], Value::from(0));
    server.connect("ann").close();
}

#[test]
fn what_is_no_listening_socket_is_refused() {
    let file = std::fs::File::open(Path::new("/dev/null")).unwrap();
    let started = std::panic::catch_unwind(|| {
        Server::start_as_service(BASE, &[], vec![file.into()]);
    });
    assert!(started.is_err(), "it served a file");
}

#[test]
fn a_restart_refuses_nobody_and_loses_nothing() {
    restart::run();
}

#[test]
fn the_socket_stays_open_between_two_processes() {
    let socket = restart::socket();
    let address = socket.local_addr().unwrap();
    let mut server = Server::start_as_service(BASE, &[], vec![socket.into()]);
    server.terminate();
    // Nobody is there, and nobody is refused: the answer comes with the next process.
    let asked = std::thread::spawn(move || {
        support::request(address, "GET", "/health", &[], b"")
            .unwrap()
            .status
    });
    eventually("the next process", PATIENCE, || {
        server.restart() > Duration::ZERO
    });
    assert_eq!(asked.join().unwrap(), 200);
}
