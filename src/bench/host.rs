//! The servers that are measured: our own, started for it; somebody's, which runs; the baseline.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::door::Door;
use super::scratch::Scratch;
use super::stopwatch;
use super::{Failure, Setup};
use crate::auth::Authority;
use crate::config::Secret;

/// From the start of a process to its being ready.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a failed server's own words that are shown.
const WORDS_BYTES: usize = 2_000;
/// Limits that a measurement would meet from one machine, and chatter that it does not want.
const GENEROUS: &[(&str, &str)] = &[
    ("limits.connections", "10000000"),
    ("limits.connections_per_user", "0"),
    ("limits.connections_per_address", "0"),
    ("limits.accepts_per_second", "0"),
    ("limits.requests_per_second", "0"),
    ("stats.console_interval", "0s"),
];
/// The type of our own server's channels that keep no history.
const FLEETING: &str = "bench";
/// The type of those that do.
const KEPT: &str = "kept";

/// What servers are to know tokens and backends by.
pub struct Keys {
    secret: String,
    api_key: String,
}

impl Keys {
    /// Nobody else's.
    pub fn random() -> Self {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        Self {
            secret: random() + &random(),
            api_key: random(),
        }
    }
}

/// A server that is ready.
pub struct Host {
    /// How to get in.
    pub door: Door,
    /// Its process, if it is known.
    pub pid: Option<u32>,
    /// The type of channels without history, if there is the choice.
    pub fleeting: String,
    /// The type of channels with history.
    pub kept: String,
    child: Option<Child>,
    /// Kept open: a server that cannot write to it would have to cope with that.
    _stdout: Option<BufReader<ChildStdout>>,
    _scratch: Option<Scratch>,
}

impl Host {
    /// The server under test, with `history` events kept by its channels if it is our own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn under_test(setup: &Setup, history: usize) -> Result<Self, Failure> {
        let Some(target) = &setup.target else {
            return Self::node(setup, history, &Keys::random(), &[]);
        };
        let authority = Authority::new(&target.secret, &setup.auth);
        Ok(Self {
            door: Door::fanfare(target.address, authority, target.api_key.clone()),
            pid: target.pid,
            fleeting: target.channel_type.clone(),
            kept: target.channel_type.clone(),
            child: None,
            _stdout: None,
            _scratch: None,
        })
    }

    /// The baseline.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn raw(setup: &Setup) -> Result<Self, Failure> {
        let scratch = Scratch::new(&setup.scratch)?;
        let arguments = vec!["bench".to_owned(), "raw-server".to_owned()];
        let launched = Launched::start(setup, &scratch, arguments, &[])?;
        Ok(launched.host(Door::raw, scratch))
    }

    /// A server of our own, with `history` events kept by its channels and these settings beside those of
    /// all.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn node(
        setup: &Setup,
        history: usize,
        keys: &Keys,
        further: &[(String, String)],
    ) -> Result<Self, Failure> {
        let scratch = Scratch::new(&setup.scratch)?;
        let config = match &setup.config_file {
            Some(file) => file.clone(),
            None => {
                // Else the server would read one that lies about.
                let empty = scratch.path().join("empty.toml");
                fs::write(&empty, "")?;
                empty
            }
        };
        let folder = |name: &str| scratch.path().join(name).display().to_string();
        let mut settings: Vec<(String, String)> = GENEROUS
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        settings.extend(setup.settings.iter().chain(further).cloned());
        let ours = [
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("metrics.listen", "127.0.0.1:0".to_owned()),
            ("data_dir", folder("data")),
            ("logs.dir", folder("logs")),
            ("channels.bench.subscribe", "any".to_owned()),
            ("channels.bench.history", "0".to_owned()),
            ("channels.kept.subscribe", "any".to_owned()),
            ("channels.kept.history", history.to_string()),
        ];
        settings.extend(ours.map(|(key, value)| (key.to_owned(), value)));
        let mut arguments = vec!["serve".to_owned(), "--config".to_owned()];
        arguments.push(config.display().to_string());
        for (key, value) in settings {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        let secrets = [
            ("FANFARE_AUTH__SECRET", keys.secret.as_str()),
            ("FANFARE_AUTH__API_KEYS", keys.api_key.as_str()),
        ];
        let mut launched = Launched::start(setup, &scratch, arguments, &secrets)?;
        let deadline = stopwatch::nanos() + stopwatch::of(START_PATIENCE);
        while !is_ready(launched.address) {
            launched.check(&scratch, deadline)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        let secret = Secret::new(keys.secret.clone().into_bytes());
        let authority = Authority::new(&secret, &setup.auth);
        let api_key = keys.api_key.clone();
        Ok(launched.host(
            |address| Door::fanfare(address, authority, api_key),
            scratch,
        ))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Its folder goes with it: there is nothing to end in good order.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Setup {
    /// Whether there is somebody to measure: asked first, before the baseline takes its time.
    ///
    /// # Errors
    /// When a server that should run already is not ready.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.target {
            Some(target) if !is_ready(target.address) => Err(Failure::Server(format!(
                "http://{}/ready does not answer 200",
                target.address
            ))),
            _ => Ok(()),
        }
    }
}

/// A process that has said where it listens.
struct Launched {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Launched {
    fn start(
        setup: &Setup,
        scratch: &Scratch,
        arguments: Vec<String>,
        secrets: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        // A server of this shell's would not be the one that is measured. The predecessor's variables
        // are weaker than the flags and secrets that follow.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FANFARE_") {
                command.env_remove(name);
            }
        }
        command.args(["bench", "leash"]);
        if let Some(cpu) = setup.server_cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        let mut child = command
            .arg("--")
            .args(arguments)
            .envs(secrets.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch.path().join("stderr"))?)
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if stdout.read_line(&mut line)? == 0 {
                let _ = child.kill();
                let _ = child.wait();
                return Err(did_not_start(scratch));
            }
            let said = line.trim_end().strip_prefix("listening on http://");
            if let Some(Ok(address)) = said.map(str::parse) {
                break address;
            }
        };
        Ok(Self {
            child,
            stdout,
            address,
        })
    }

    fn check(&mut self, scratch: &Scratch, deadline_ns: u64) -> Result<(), Failure> {
        if self.child.try_wait()?.is_some() || stopwatch::nanos() > deadline_ns {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return Err(did_not_start(scratch));
        }
        Ok(())
    }

    fn host(self, door: impl FnOnce(SocketAddr) -> Door, scratch: Scratch) -> Host {
        Host {
            door: door(self.address),
            pid: Some(self.child.id()),
            fleeting: FLEETING.to_owned(),
            kept: KEPT.to_owned(),
            child: Some(self.child),
            _stdout: Some(self.stdout),
            _scratch: Some(scratch),
        }
    }
}

fn no_pipe() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn did_not_start(scratch: &Scratch) -> Failure {
    let words = fs::read_to_string(scratch.path().join("stderr")).unwrap_or_default();
    let from = (0..=words.len().saturating_sub(WORDS_BYTES))
        .rev()
        .find(|&at| words.is_char_boundary(at));
    let words = words[from.unwrap_or(0)..].trim();
    Failure::Server(format!("the server did not start: {words}"))
}

/// Whether `GET /ready` is answered with 200.
fn is_ready(address: SocketAddr) -> bool {
    let patience = Duration::from_secs(2);
    let answer = TcpStream::connect_timeout(&address, patience).and_then(|mut socket| {
        socket.set_read_timeout(Some(patience))?;
        let request =
            format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        socket.read_exact(&mut status)?;
        Ok(status)
    });
    answer.is_ok_and(|status| status == *b"HTTP/1.1 200")
}
