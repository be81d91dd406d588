//! The server under test: the real binary on free loopback ports, with folders of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;

use super::redis::{RedisServer, Shared, fresh_prefix};
use super::{Client, Pki, Reply, Wire, http, token};

const SECRET: &str = "a secret for tests alone, longer than 32 bytes";
const API_KEY: &str = "an-api-key-for-tests-alone";
/// From the start of the process to `/ready`.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// With `FANFARE_TEST_BACKEND=redis`.
static REDIS: Shared<RedisServer> = Shared::new();

/// So that no test meets a limit that it does not set itself.
const DEFAULTS: &[(&str, &str)] = &[
    ("auth.wallet_proof", "none"),
    ("limits.sign_in_per_minute", "100000"),
    ("limits.requests_per_second", "100000"),
    ("limits.connections_per_user", "100000"),
    ("limits.connections_per_address", "100000"),
    ("limits.accepts_per_second", "100000"),
];

/// A running server. Dropping it kills the process, fails the test if the server panicked or printed
/// a secret, and prints what the server said if the test failed.
pub struct Server {
    /// Ends after the last server that is on it.
    _redis: Option<Arc<RedisServer>>,
    home: TempDir,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    process: Option<Child>,
    readers: Vec<JoinHandle<()>>,
    said: Said,
    addr: SocketAddr,
    metrics_addr: SocketAddr,
    /// Listening sockets that it gets from us, as from a service manager.
    handed_over: Vec<OwnedFd>,
    pki: Option<Pki>,
    /// How clients get in by TLS.
    trust: Option<Arc<ClientConfig>>,
}

/// What the process printed, line by line as it came: (on stdout?, line).
type Said = Arc<Mutex<Vec<(bool, String)>>>;

/// The binary, with no variable inherited that it would read. Its folder is the caller's to choose.
pub fn command() -> Command {
    let binary = std::env::var_os("FANFARE_TEST_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_fanfare").into());
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let known = ["NEXTAUTH_SECRET", "WS_PORT", "METRICS_PORT", "REDIS_URL"];
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("FANFARE_") || name == "RUST_LOG" || known.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

impl Server {
    /// Starts a server with these settings over the ones that suit most tests (no wallet proof, one
    /// API key, generous limits) and returns when it is ready.
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(settings, &[])
    }

    /// As [`Server::start`], with environment variables, which win over the built-in ones; an empty one
    /// takes a built-in one away.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Self {
        let settings = [DEFAULTS, settings].concat();
        let secrets = [
            ("FANFARE_AUTH__SECRET", SECRET),
            ("FANFARE_AUTH__API_KEYS", API_KEY),
        ];
        Self::start_anew(
            "",
            &settings,
            &[&secrets, environment].concat(),
            false,
            Vec::new(),
        )
    }

    /// As [`Server::start_from`], by TLS.
    #[track_caller]
    pub fn start_tls(config: &str) -> Self {
        Self::start_anew(config, &[], &[], true, Vec::new())
    }

    /// As [`Server::start_from`], the way a service manager does it: with these variables, and with
    /// sockets that it goes on holding.
    #[track_caller]
    pub fn start_as_service(
        config: &str,
        environment: &[(&str, &str)],
        handed_over: Vec<OwnedFd>,
    ) -> Self {
        Self::start_anew(config, &[], environment, false, handed_over)
    }

    /// Who signs its certificate.
    pub fn pki(&self) -> &Pki {
        self.pki.as_ref().expect("it does not speak TLS")
    }

    fn secure(&mut self) {
        let pki = Pki::new(&self.home.path().join("tls"));
        let path = |path: PathBuf| path.display().to_string();
        set(&mut self.settings, "server.tls.cert", &path(pki.cert()));
        set(&mut self.settings, "server.tls.key", &path(pki.key()));
        self.trust = Some(pki.client());
        self.pki = Some(pki);
    }

    /// Starts a server that has nothing but folders and ports from elsewhere than its file, where
    /// `SECRET` and `API_KEY` stand for those of tests; see [`Server::write_config`].
    #[track_caller]
    pub fn start_from(config: &str) -> Self {
        Self::start_anew(config, &[], &[], false, Vec::new())
    }

    #[track_caller]
    fn start_anew(
        config: &str,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
        secure: bool,
        handed_over: Vec<OwnedFd>,
    ) -> Self {
        let home = TempDir::new().unwrap();
        let mut all: Vec<(String, String)> = vec![
            ("server.listen".into(), "127.0.0.1:0".into()),
            ("metrics.listen".into(), "127.0.0.1:0".into()),
        ];
        let redis = (std::env::var("FANFARE_TEST_BACKEND").as_deref() == Ok("redis"))
            .then(|| REDIS.get(|| RedisServer::start(&[])));
        if let Some(redis) = &redis {
            set(&mut all, "broker.backend", "redis");
            set(&mut all, "broker.redis.url", &redis.url());
            set(&mut all, "broker.redis.prefix", &fresh_prefix());
        }
        for (key, value) in settings {
            set(&mut all, key, value);
        }
        let mut variables: Vec<(String, String)> = Vec::new();
        for (name, value) in environment {
            set(&mut variables, name, value);
        }
        variables.retain(|(_, value)| !value.is_empty());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            _redis: redis,
            home,
            settings: all,
            environment: variables,
            process: None,
            readers: Vec::new(),
            said: Said::default(),
            addr: nowhere,
            metrics_addr: nowhere,
            handed_over,
            pki: None,
            trust: None,
        };
        server.write_config(config);
        if secure || std::env::var_os("FANFARE_TEST_TLS").is_some() {
            server.secure();
        }
        server.launch();
        // From now on these are its addresses, also after a restart.
        set(
            &mut server.settings,
            "server.listen",
            &server.addr.to_string(),
        );
        let metrics = server.metrics_addr.to_string();
        set(&mut server.settings, "metrics.listen", &metrics);
        server
    }

    /// Starts it again after [`Server::kill`] or [`Server::terminate`]: same folders, same ports.
    /// How long it took to be ready.
    #[track_caller]
    pub fn restart(&mut self) -> Duration {
        assert!(self.process.is_none(), "it still runs");
        let start = Instant::now();
        self.launch();
        start.elapsed()
    }

    /// Writes its configuration file, to be read by the next start or reload; an empty one is no less
    /// needed: else the server would read one that lies about on the machine.
    pub fn write_config(&self, config: &str) {
        let config = config.replace("SECRET", SECRET).replace("API_KEY", API_KEY);
        std::fs::write(self.config_file(), config).unwrap();
    }

    /// Runs a command of the binary as the server was started: same file, flags and environment.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn config_file(&self) -> PathBuf {
        self.home.path().join("config.toml")
    }

    /// The same, not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config_file())
            .current_dir(self.home.path())
            // What it leaves there when it is killed goes with its home.
            .env("TMPDIR", self.home.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }

    /// Changes a setting for the next [`Server::restart`].
    pub fn set(&mut self, key: &str, value: &str) {
        set(&mut self.settings, key, value);
    }

    /// `kill -9`; returns when the process is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(10));
    }

    /// SIGTERM; how the process ended and how long that took, a minute at most.
    #[track_caller]
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(60));
        (status, start.elapsed())
    }

    /// Sends the process a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end of the process, which somebody asked for.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("it does not run");
        let mut status = None;
        super::eventually("the end of the server", patience, || {
            status = process.try_wait().unwrap();
            status.is_some()
        });
        self.process = None;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status.unwrap()
    }

    /// A request to the API, with exactly these headers (and `Host`, `Content-Length`).
    #[track_caller]
    pub fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        self.ask(
            self.addr,
            self.trust.as_ref(),
            method,
            path,
            headers,
            body.as_ref(),
        )
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request with a JSON body and its content type; with neither for `null`.
    #[track_caller]
    pub fn json(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        if body.is_null() {
            return self.http(method, path, headers, "");
        }
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        self.http(method, path, &headers, body.to_string())
    }

    /// As [`Server::json`] with the API key: what the application's backend sends.
    #[track_caller]
    pub fn as_backend(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.json(method, path, &[("X-API-Key", API_KEY)], body)
    }

    /// As [`Server::json`] with this user's token.
    #[track_caller]
    pub fn as_user(&self, user: &str, method: &str, path: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {}", self.token(user));
        self.json(method, path, &[("Authorization", &bearer)], body)
    }

    /// Publishes as the application's backend; the answer.
    #[track_caller]
    pub fn publish(&self, channel: &str, event: Value) -> Value {
        let body = serde_json::json!({"channel": channel, "event": event});
        self.as_backend("POST", "/api/publish", &body)
            .expect(200)
            .json()
    }

    /// Adds a notification as the application's backend; the notification.
    #[track_caller]
    pub fn notify(&self, user: &str, title: &str) -> Value {
        let body =
            serde_json::json!({"userId": user, "type": "like", "title": title, "message": "m"});
        self.as_backend("POST", "/api/user/notifications", &body)
            .expect(201)
            .json()["notification"]
            .clone()
    }

    /// `/stats`
    #[track_caller]
    pub fn stats(&self) -> Value {
        self.metrics("/stats").expect(200).json()
    }

    /// How many connections it has closed as too slow.
    #[track_caller]
    pub fn closed_as_too_slow(&self) -> u64 {
        let closes = &self.stats()["server"]["closesByReason"];
        closes["4102 too slow"].as_u64().unwrap_or(0)
    }

    /// `GET` on the metrics listener.
    #[track_caller]
    pub fn metrics(&self, path: &str) -> Reply {
        http::request(self.metrics_addr, "GET", path, &[], b"")
            .unwrap_or_else(|error| panic!("metrics {path}: {error}"))
    }

    /// The key that tokens are signed with.
    pub fn secret(&self) -> &str {
        SECRET
    }

    /// What backends present.
    pub fn api_key(&self) -> &str {
        API_KEY
    }

    /// A token for this user as a backend would sign it, good for half an hour.
    pub fn token(&self, user: &str) -> String {
        self.token_with(&token::claims(user))
    }

    /// The claims of [`Server::token`], to change and pass to [`Server::token_with`].
    pub fn claims(&self, user: &str) -> Value {
        token::claims(user)
    }

    /// A token with exactly these claims.
    pub fn token_with(&self, claims: &Value) -> String {
        token::sign(claims, SECRET)
    }

    /// A socket of this user, token in the query, greeting read.
    #[track_caller]
    pub fn connect(&self, user: &str) -> Client {
        let path = format!("/ws?token={}", self.token(user));
        self.connect_with(&path, &[])
            .unwrap_or_else(|status| panic!("the upgrade was refused with {status}"))
            .greeted()
    }

    /// A socket on this path with these headers, greeting not read; else the status that refused it.
    pub fn connect_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Client, u16> {
        Client::open(self.addr, self.trust.as_ref(), path, headers)
    }

    /// Where the API and the sockets are.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/stats` and `/metrics` are.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// `data_dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.folder("data_dir", "data")
    }

    /// `logs.dir`.
    pub fn logs_dir(&self) -> PathBuf {
        self.folder("logs.dir", "logs")
    }

    /// Every line of the event logs, oldest file first.
    #[track_caller]
    pub fn event_log(&self) -> Vec<Value> {
        let text = read_all(&self.logs_dir());
        let lines = text.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
        });
        lines.collect()
    }

    /// What it printed to stdout and stderr so far, since the first start.
    pub fn output(&self) -> String {
        self.lines(|_| true)
    }

    /// What it printed to stdout so far.
    pub fn stdout(&self) -> String {
        self.lines(|on_stdout| on_stdout)
    }

    /// Resident memory.
    #[track_caller]
    pub fn rss_bytes(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// CPU time used so far, in user and kernel mode together.
    #[track_caller]
    pub fn cpu_seconds(&self) -> f64 {
        // Fields 14 and 15 of proc_pid_stat(5), counted after the name, which may hold anything.
        // Linux counts them for user space in hundredths of a second whatever the kernel's own tick.
        let stat = self.proc_file("stat");
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    /// Files and sockets that it has open.
    #[track_caller]
    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        std::fs::read_dir(folder).unwrap().count()
    }

    fn launch(&mut self) {
        let deadline = Instant::now() + START_PATIENCE;
        let heard_before = self.said.lock().unwrap().len();
        let mut command = self.command(&["serve"]);
        if !self.handed_over.is_empty() {
            command = handing_over(&command, &self.handed_over);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        self.readers = vec![
            listen(process.stdout.take().unwrap(), true, &self.said),
            listen(process.stderr.take().unwrap(), false, &self.said),
        ];
        self.process = Some(process);
        self.addr = self.announced("listening on ", heard_before, deadline);
        self.metrics_addr = self.announced("metrics on ", heard_before, deadline);
        while !self
            .ask(self.addr, self.trust.as_ref(), "GET", "/ready", &[], b"")
            .is_ok_and(|reply| reply.status == 200)
        {
            self.still_starting("/ready", deadline);
        }
    }

    /// The address on the stdout line that starts so.
    fn announced(&mut self, start: &str, heard_before: usize, deadline: Instant) -> SocketAddr {
        loop {
            let said = self.said.lock().unwrap();
            let mut new = said[heard_before..].iter();
            let address = new.find_map(|(on_stdout, line)| {
                let (_, address) = line.strip_prefix(start)?.split_once("://")?;
                on_stdout.then(|| address.to_string())
            });
            drop(said);
            if let Some(address) = address {
                return address
                    .parse()
                    .unwrap_or_else(|error| panic!("{error}: {start}{address}"));
            }
            self.still_starting(start, deadline);
        }
    }

    /// What a client trusts, if the server speaks TLS.
    pub fn trust(&self) -> Option<&Arc<ClientConfig>> {
        self.trust.as_ref()
    }

    fn ask(
        &self,
        to: SocketAddr,
        trust: Option<&Arc<ClientConfig>>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let wire = Wire::connect(to, trust, http::PATIENCE)?;
        http::exchange(wire, to, method, path, headers, body)
    }

    fn still_starting(&mut self, what: &str, deadline: Instant) {
        let ended = self.process.as_mut().and_then(|p| p.try_wait().unwrap());
        assert!(ended.is_none(), "ended before {what:?}: {ended:?}");
        assert!(Instant::now() < deadline, "no {what:?} in time");
        std::thread::sleep(Duration::from_millis(5));
    }

    fn folder(&self, key: &str, default: &str) -> PathBuf {
        let found = self.settings.iter().find(|(name, _)| name == key);
        let path = found.map_or(default, |(_, path)| path);
        self.home.path().join(path)
    }

    /// Runs a command of the same binary on the same folders: no other setting of the server's is known to it.
    pub fn fanfare(&self, arguments: &[&str]) -> std::process::Output {
        self.fanfare_on(&self.data_dir(), arguments)
    }

    /// The same on another `data_dir`.
    pub fn fanfare_on(&self, data_dir: &Path, arguments: &[&str]) -> std::process::Output {
        let empty = self.home.path().join("none.toml");
        std::fs::write(&empty, "").unwrap();
        command()
            .args(arguments)
            .arg("--config")
            .arg(empty)
            .arg("--data-dir")
            .arg(data_dir)
            .output()
            .unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("it does not run"))
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid().as_raw_nonzero())).unwrap()
    }

    fn lines(&self, wanted: impl Fn(bool) -> bool) -> String {
        let said = self.said.lock().unwrap();
        let lines = said.iter().filter(|(on_stdout, _)| wanted(*on_stdout));
        lines.map(|(_, line)| format!("{line}\n")).collect()
    }

    /// What no server may do, whatever the test was about.
    fn misdeed(&self) -> Option<String> {
        let output = self.output();
        let everything = output + &read_all(&self.logs_dir());
        let secret = |name: &str| {
            let mut variables = self.environment.iter();
            let found = variables.find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let signs = [
            ("it panicked", "panicked at".to_string()),
            // A token starts with a JSON object that starts with `alg` or with `typ`.
            ("it printed a token", "eyJhbGciOi".to_string()),
            ("it printed a token", "eyJ0eXAiOi".to_string()),
            ("it printed a refresh token", "ffr.".to_string()),
            ("it printed a private key", "PRIVATE KEY".to_string()),
            ("it printed the secret", secret("FANFARE_AUTH__SECRET")),
            ("it printed the API key", secret("FANFARE_AUTH__API_KEYS")),
            ("it printed the secret", SECRET.to_string()),
            ("it printed the API key", API_KEY.to_string()),
        ];
        let mut lines = everything.lines();
        lines.find_map(|line| {
            if line
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(is_signature)
            {
                return Some(format!("it printed a signature: {line}"));
            }
            let sign = signs
                .iter()
                .find(|(_, sign)| !sign.is_empty() && line.contains(sign))?;
            Some(format!("{}: {line}", sign.0))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; either way it is reaped.
            let _ = process.kill();
            let _ = process.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let misdeed = self.misdeed();
        if std::thread::panicking() || misdeed.is_some() {
            println!("--- the server said:\n{}---", self.output());
        }
        if let Some(misdeed) = misdeed
            && !std::thread::panicking()
        {
            panic!("{misdeed}");
        }
    }
}

/// Whether a word looks like 64 random bytes in base58 or hexadecimal.
fn is_signature(word: &str) -> bool {
    let mut bytes: Vec<u8> = word.bytes().collect();
    bytes.sort_unstable();
    bytes.dedup();
    word.len() >= 86 && bytes.len() >= 14
}

/// The same command with these sockets as its descriptors from 3 on: sd_listen_fds(3).
fn handing_over(command: &Command, sockets: &[OwnedFd]) -> Command {
    // The shell becomes the server, which so knows that the sockets are meant for it.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .env("LISTEN_FDS", sockets.len().to_string());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    // Out of the way of the numbers that they get.
    let copies: Vec<OwnedFd> = sockets
        .iter()
        .map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, 64).unwrap())
        .collect();
    let place = move || {
        for (number, copy) in (3..).zip(&copies) {
            // SAFETY: nobody owns these numbers between fork and exec; what is put there is not dropped.
            #[allow(unsafe_code)]
            let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
            rustix::io::dup2(copy, &mut target)?;
        }
        Ok(())
    };
    // SAFETY: it makes system calls and nothing else.
    #[allow(unsafe_code)]
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut shell, place);
    }
    shell
}

fn set(settings: &mut Vec<(String, String)>, key: &str, value: &str) {
    settings.retain(|(known, _)| known != key);
    settings.push((key.to_string(), value.to_string()));
}

fn listen(from: impl Read + Send + 'static, on_stdout: bool, said: &Said) -> JoinHandle<()> {
    let said = said.clone();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_string();
            said.lock().unwrap().push((on_stdout, text));
            line.clear();
        }
    })
}

/// The text of the daily logs in a folder, oldest first; nothing if there is none.
fn read_all(folder: &Path) -> String {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "log"));
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}
