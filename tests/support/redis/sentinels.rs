//! A master, a replica, and three sentinels that watch them.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::server::{command, free_port};
use super::{RedisServer, until};

/// A master with a replica under sentinels.
pub struct Sentinels {
    /// The first master, then the first replica.
    pub servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    _folder: TempDir,
    process: Child,
    address: SocketAddr,
}

impl Sentinels {
    #[track_caller]
    pub fn start() -> Self {
        let master = RedisServer::start(&[]);
        let of_master = format!("127.0.0.1 {}", master.port());
        let replica = RedisServer::start(&[("replicaof", &of_master)]);
        until("the replica follows", || {
            replica.info("master_link_status") == "up"
        });
        let sentinels = (0..3).map(|_| Sentinel::start(master.port())).collect();
        let started = Self {
            servers: vec![master, replica],
            sentinels,
        };
        until("the sentinels know each other and the replica", || {
            started.sentinels.iter().all(|sentinel| {
                let words = ["SENTINEL", "MASTER", "fanfare"];
                let told = command(sentinel.address, None, &words).unwrap_or_default();
                let field = |name: &str| {
                    let mut lines = told.lines().skip_while(|line| *line != name);
                    lines.nth(2).map(str::to_owned)
                };
                field("num-other-sentinels").as_deref() == Some("2")
                    && field("num-slaves").as_deref() == Some("1")
            })
        });
        started
    }

    /// `redis+sentinel://A,B,C/fanfare`
    pub fn url(&self) -> String {
        let addresses = self.sentinels.iter().map(|it| it.address.to_string());
        let addresses: Vec<_> = addresses.collect();
        format!("redis+sentinel://{}/fanfare", addresses.join(","))
    }
}

impl Sentinel {
    fn start(master_port: u16) -> Self {
        for _ in 0..20 {
            let folder = TempDir::new().unwrap();
            let port = free_port();
            let config = folder.path().join("sentinel.conf");
            let mut file = std::fs::File::create(&config).unwrap();
            write!(
                file,
                "bind 127.0.0.1\nport {port}\ndir {}\n\
                 sentinel monitor fanfare 127.0.0.1 {master_port} 2\n\
                 sentinel down-after-milliseconds fanfare 1000\n\
                 sentinel failover-timeout fanfare 5000\n",
                folder.path().display()
            )
            .unwrap();
            let program = std::env::var("FANFARE_TEST_REDIS");
            let mut process = Command::new(program.unwrap_or_else(|_| "redis-server".to_owned()))
                .arg(&config)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut has_ended = false;
            until("a sentinel answers", || {
                has_ended = process.try_wait().unwrap().is_some();
                has_ended || command(address, None, &["PING"]).is_ok()
            });
            if !has_ended {
                return Self {
                    _folder: folder,
                    process,
                    address,
                };
            }
        }
        panic!("no sentinel starts");
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
