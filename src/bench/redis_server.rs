//! The Redis that nodes are measured on: one of our own, or one that runs already.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::scratch::Scratch;
use super::{Failure, Setup, stopwatch};

/// From the start of the process to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Another process may take the port that was free.
const TRIES: usize = 5;

/// A Redis that answers.
pub struct RedisServer {
    url: String,
    /// No other measurement has it.
    prefix: String,
    runtime: Runtime,
    child: Option<Child>,
    _scratch: Option<Scratch>,
}

/// What it has used up to a moment.
pub struct RedisReading {
    seconds: f64,
    calls: u64,
}

/// What it used between two.
pub struct RedisUsed {
    /// CPU seconds.
    pub seconds: f64,
    /// Scripts that it ran, of which a publication into history is one.
    pub calls: u64,
}

impl RedisServer {
    /// The one at `url`, or one that is started, keeps nothing on disk and ends with this.
    ///
    /// # Errors
    /// When there is none.
    pub fn ready(setup: &Setup, url: Option<&str>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = uuid::Uuid::new_v4().simple().to_string();
        let mut server = Self {
            url: url.unwrap_or_default().to_owned(),
            prefix: format!("bench-{}:", &run[..8]),
            runtime,
            child: None,
            _scratch: None,
        };
        if url.is_some() {
            server.reading()?;
            return Ok(server);
        }
        for _ in 0..TRIES {
            if server.start(setup)? {
                return Ok(server);
            }
        }
        Err(Failure::Server("redis-server ended at once".to_owned()))
    }

    /// Whether it stays.
    fn start(&mut self, setup: &Setup) -> Result<bool, Failure> {
        let scratch = Scratch::new(&setup.scratch)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let (port, folder) = (port.to_string(), scratch.path().display().to_string());
        let settings = [
            ("--port", port.as_str()),
            ("--bind", "127.0.0.1"),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--dir", &folder),
        ];
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "leash", "--program", "redis-server", "--"])
            .args(settings.iter().flat_map(|(name, value)| [name, value]))
            .stdin(Stdio::null())
            .stdout(File::create(scratch.path().join("stdout"))?)
            .stderr(File::create(scratch.path().join("stderr"))?)
            .spawn()?;
        self.url = format!("redis://127.0.0.1:{port}");
        let deadline = stopwatch::nanos() + stopwatch::of(START_PATIENCE);
        let is_up = loop {
            if let Some(status) = child.try_wait()? {
                let said = std::fs::read_to_string(scratch.path().join("stderr"))?;
                if !said.is_empty() {
                    let why = said.trim();
                    return Err(Failure::Server(format!("redis-server: {why} ({status})")));
                }
                break false;
            }
            if self.reading().is_ok() {
                break true;
            }
            if stopwatch::nanos() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::Server("redis-server does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        if is_up {
            self.child = Some(child);
            self._scratch = Some(scratch);
        }
        Ok(is_up)
    }

    /// For nodes that are to be on it.
    pub fn settings(&self) -> Vec<(String, String)> {
        let settings = [
            ("broker.backend", "redis"),
            ("broker.redis.url", self.url.as_str()),
            ("broker.redis.prefix", self.prefix.as_str()),
        ];
        let owned = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.to_vec()
    }

    /// Of now.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reading(&self) -> Result<RedisReading, Failure> {
        let info = self.runtime.block_on(async {
            let client = redis::Client::open(self.url.as_str())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut info = String::new();
            for section in ["cpu", "commandstats"] {
                let mut cmd = redis::cmd("INFO");
                info += &cmd
                    .arg(section)
                    .query_async::<String>(&mut connection)
                    .await?;
            }
            Ok::<_, redis::RedisError>(info)
        });
        let info = info.map_err(|error| Failure::Server(format!("Redis: {error}")))?;
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let seconds = |name: &str| -> f64 {
            let value = field(name).and_then(|value| value.trim().parse().ok());
            value.unwrap_or(0.0)
        };
        let calls = field("cmdstat_evalsha")
            .and_then(|value| value.strip_prefix("calls="))
            .and_then(|value| value.split(',').next()?.parse().ok());
        Ok(RedisReading {
            seconds: seconds("used_cpu_user") + seconds("used_cpu_sys"),
            calls: calls.unwrap_or(0),
        })
    }
}

impl RedisReading {
    /// What was used since an earlier one.
    pub fn since(&self, earlier: &Self) -> RedisUsed {
        RedisUsed {
            seconds: (self.seconds - earlier.seconds).max(0.0),
            calls: self.calls.saturating_sub(earlier.calls),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has nothing to keep.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
