//! One server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::until;

/// A running `redis-server`, or one that was killed. Dropping it ends it.
pub struct RedisServer {
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
    address: SocketAddr,
    password: Option<String>,
}

/// A port that nobody has now. Redis cannot be asked to find one.
pub fn free_port() -> u16 {
    // A cluster node takes a second port, 10,000 above.
    loop {
        let found = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = found.local_addr().unwrap().port();
        if port < 50_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    /// Starts one that writes everything to disk as it comes, with further `settings`.
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, settings)
    }

    /// The same on another address of this machine.
    #[track_caller]
    pub fn start_at(host: Ipv4Addr, settings: &[(&str, &str)]) -> Self {
        // Another process may take the port first.
        for _ in 0..20 {
            if let Some(server) = Self::try_start(host, settings) {
                return server;
            }
        }
        panic!("no redis-server starts");
    }

    fn try_start(host: Ipv4Addr, settings: &[(&str, &str)]) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let mut arguments: Vec<String> = Vec::new();
        let (host_text, port_text) = (host.to_string(), port.to_string());
        let path = folder.path().display().to_string();
        let defaults = [
            ("bind", host_text.as_str()),
            ("port", port_text.as_str()),
            ("dir", path.as_str()),
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "no"),
            ("repl-diskless-sync-delay", "0"),
        ];
        for (name, value) in defaults.iter().chain(settings) {
            arguments.push(format!("--{name}"));
            // Several words are several values, as in `save 60 1`.
            match value.split_whitespace().collect::<Vec<_>>().as_slice() {
                [] => arguments.push(String::new()),
                words => arguments.extend(words.iter().map(|word| (*word).to_owned())),
            }
        }
        let password = settings.iter().find(|(name, _)| *name == "requirepass");
        let mut server = Self {
            folder,
            arguments,
            process: None,
            address: (host, port).into(),
            password: password.map(|(_, value)| (*value).to_owned()),
        };
        server.launch().then_some(server)
    }

    /// Starts the process and waits until it answers; whether it does.
    fn launch(&mut self) -> bool {
        let program = std::env::var("FANFARE_TEST_REDIS");
        let program = program.unwrap_or_else(|_| "redis-server".to_owned());
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut process = Command::new(&program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
        let mut has_ended = false;
        let (address, password) = (self.address, self.password.clone());
        until("redis-server answers", || {
            has_ended = process.try_wait().unwrap().is_some();
            has_ended || answers(address, password.as_deref())
        });
        self.process = Some(process);
        !has_ended
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again, with what it has on disk.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "it does not start again");
    }

    /// The process stands still and says nothing, its sockets stay.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap();
        let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What it answers to one command, as text of the protocol.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        command(self.address, self.password.as_deref(), words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// A field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "all"]);
        let line = info.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix(':')?;
            Some(value.trim().to_owned())
        });
        line.unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // One that stands still would not notice anything else.
        self.kill();
    }
}

fn answers(address: SocketAddr, password: Option<&str>) -> bool {
    command(address, password, &["PING"]).is_ok_and(|answer| answer.starts_with("+PONG"))
}

/// Sends one command over a connection of its own and reads what comes back.
pub fn command(
    address: SocketAddr,
    password: Option<&str>,
    words: &[&str],
) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = String::new();
    let mut add = |words: &[&str]| {
        request += &format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
    };
    if let Some(password) = password {
        add(&["AUTH", password]);
    }
    add(words);
    socket.write_all(request.as_bytes())?;
    // It answers what it has read before it looks at the end. A sentinel knows no QUIT.
    socket.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    if password.is_some() {
        answer = answer.trim_start_matches("+OK\r\n").to_owned();
    }
    Ok(answer)
}
