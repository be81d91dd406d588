//! A Redis without a server of ours on it: many questions at a time, every key.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use redis::{Cmd, Value};

use super::Options;
use crate::broker::Error;
use crate::broker::migration::MigrationError;
use crate::broker::redis::call::Wait;
use crate::broker::redis::figures::Figures;
use crate::broker::redis::history::{decode, garbled};
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::{Link, Routes};
use crate::broker::redis::server::{Server, may_evict};
use crate::broker::redis::slot::{SLOTS, slot};
use crate::broker::redis::thread::{Thread, targets};
use crate::broker::redis::{OpenError, START_PATIENCE};

/// Questions that go out together.
const TOGETHER: usize = 2_000;
/// Keys that a step of a scan looks at.
const SCAN_KEYS: usize = 1_000;

/// The connection.
pub(super) struct Vault {
    /// The first to go.
    thread: Thread,
    pub(super) keys: Keys,
    pub(super) options: Options,
    link: Link,
    pubsub: Option<Link>,
}

/// What is done with keys of one slot.
pub(super) struct Ask {
    /// A command's name, or a script.
    what: &'static str,
    is_script: bool,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Ask {
    pub(super) fn command(name: &'static str, key: String) -> Self {
        Self {
            what: name,
            is_script: false,
            keys: vec![key],
            arguments: Vec::new(),
        }
    }

    /// The run id of the server is the script's first argument.
    pub(super) fn script(text: &'static str, keys: Vec<String>) -> Self {
        Self {
            what: text,
            is_script: true,
            keys,
            arguments: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn number(self, argument: u64) -> Self {
        self.arg(argument.to_string())
    }

    fn slot(&self) -> u16 {
        slot(self.keys.first().map_or(&[], |key| key.as_bytes()))
    }

    fn cmd(&self, server: &Server) -> Cmd {
        if self.is_script {
            let mut cmd = redis::cmd("EVAL");
            cmd.arg(self.what)
                .arg(self.keys.len())
                .arg(&self.keys)
                .arg(&server.run_id)
                .arg(&self.arguments);
            cmd
        } else {
            let mut cmd = redis::cmd(self.what);
            cmd.arg(&self.keys).arg(&self.arguments);
            cmd
        }
    }
}

impl Vault {
    pub(super) fn open(options: Options) -> Result<Self, OpenError> {
        let (data, pubsub) = targets(
            &options.url,
            options.pubsub_url.as_deref(),
            options.authorities.as_ref(),
        )?;
        // Connections are looked after while the other side is being read.
        let ((link, pubsub), thread) = Thread::start(move || async move {
            let link = |target| {
                let figures = Arc::new(Figures::default());
                Link::begin(target, Arc::new(|_, _| {}), figures, false)
            };
            let (data, pubsub) = (link(data), pubsub.map(link));
            data.connected(START_PATIENCE).await?;
            if let Some(pubsub) = &pubsub {
                pubsub.connected(START_PATIENCE).await?;
            }
            Ok((data, pubsub))
        })?;
        Ok(Self {
            keys: Keys::new(&options.prefix),
            options,
            link,
            pubsub,
            thread,
        })
    }

    fn wait<T>(&self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.thread.handle().block_on(what)
    }

    /// Asks all of it; the answers in the same order. What is asked of one slot is done in its order.
    pub(super) fn ask_all(&self, asks: &[Ask]) -> Result<Vec<Value>, Error> {
        let mut answers = Vec::with_capacity(asks.len());
        for asks in asks.chunks(TOGETHER) {
            answers.extend(self.wait(self.ask_together(asks))?);
        }
        Ok(answers)
    }

    pub(super) fn ask(&self, ask: Ask) -> Result<Value, Error> {
        self.ask_all(&[ask])?.pop().ok_or_else(garbled)
    }

    async fn ask_together(&self, asks: &[Ask]) -> Result<Vec<Value>, Error> {
        let mut by_server: HashMap<u64, (Arc<Server>, Vec<usize>)> = HashMap::new();
        for (index, ask) in asks.iter().enumerate() {
            let server = self.link.server(ask.slot())?;
            let (_, indexes) = by_server
                .entry(server.id)
                .or_insert_with(|| (server, Vec::new()));
            indexes.push(index);
        }
        let mut answers = vec![Value::Nil; asks.len()];
        for (server, indexes) in by_server.into_values() {
            let cmds = indexes.iter().map(|index| asks[*index].cmd(&server));
            let told = server.ask_all(cmds.collect()).await;
            let told = told.map_err(|error| self.link.judge(&server, &error))?;
            for (index, answer) in indexes.into_iter().zip(told) {
                let answer = answer.extract_error();
                answers[index] = answer.map_err(|error| match error.code() {
                    Some("MOVED" | "ASK" | "TRYAGAIN") => Error::storage(
                        "the cluster is moving slots: run this again when that is done",
                    ),
                    _ => self.link.judge(&server, &error),
                })?;
            }
        }
        Ok(answers)
    }

    /// Those that take writes, in an order that stays.
    pub(super) fn servers(&self) -> Result<Vec<Arc<Server>>, Error> {
        servers(&self.link)
    }

    /// The processes that answer.
    pub(super) fn run_ids(&self) -> Result<String, Error> {
        let servers = self.servers()?;
        let ids: Vec<_> = servers.iter().map(|it| it.run_id.as_str()).collect();
        Ok(ids.join(","))
    }

    /// A step through the keys of a server: where to go on, 0 at the end, and the keys. `kind`: of this
    /// type only.
    pub(super) fn scan(
        &self,
        server: &Server,
        cursor: u64,
        pattern: &str,
        kind: Option<&str>,
    ) -> Result<(u64, Vec<String>), Error> {
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCAN_KEYS);
        if let Some(kind) = kind {
            cmd.arg("TYPE").arg(kind);
        }
        let answer = self.wait(async {
            let answer = server.ask(&cmd).await;
            answer.map_err(|error| self.link.judge(server, &error))
        })?;
        let (next, keys): (u64, Vec<Vec<u8>>) = decode(answer)?;
        let keys = keys.into_iter();
        let keys = keys.filter_map(|key| String::from_utf8(key).ok());
        Ok((next, keys.collect()))
    }

    /// Servers that may throw away what they are given, each with its policy.
    pub(super) fn evicting(&self) -> Result<Vec<(String, String)>, Error> {
        let mut evicting = Vec::new();
        for server in self.servers()? {
            let figures = self.thread.handle().block_on(server.figures());
            let (figures, policy) = figures.ok_or(Error::Unavailable)?;
            if may_evict(&policy, figures.max_bytes) {
                evicting.push((figures.server, policy));
            }
        }
        Ok(evicting)
    }

    /// How many servers of ours hear what is told to all of them.
    pub(super) fn listeners(&self) -> Result<u64, Error> {
        let mut cmd = redis::cmd("PUBSUB");
        cmd.arg("NUMSUB").arg(self.keys.notice_line());
        let link = self.pubsub.as_ref().unwrap_or(&self.link);
        let mut count = 0;
        for server in servers(link)? {
            let answer = self.wait(async {
                let answer = server.ask(&cmd).await;
                answer.map_err(|error| link.judge(&server, &error))
            })?;
            let told = match answer {
                Value::Array(parts) => parts.into_iter().nth(1),
                Value::Map(pairs) => pairs.into_iter().next().map(|(_, count)| count),
                _ => None,
            };
            count += decode::<u64>(told.ok_or_else(garbled)?)?;
        }
        Ok(count)
    }

    /// Refuses while a server runs on it.
    pub(super) fn refuse_if_used(&self) -> Result<(), MigrationError> {
        let count = self
            .listeners()
            .map_err(|error| MigrationError::Unreachable(format!("Redis: {error}")))?;
        if count == 0 {
            return Ok(());
        }
        let servers = match count {
            1 => "a running server is".to_owned(),
            count => format!("{count} running servers are"),
        };
        Err(MigrationError::Refused(format!(
            "{servers} connected to Redis (prefix {:?}): stop every node first (systemctl stop fanfare, or \
             end its process), so that nothing changes while it is copied",
            self.options.prefix
        )))
    }

    /// Waits until as many replicas have everything as the configuration asks for.
    pub(super) fn wait_for_replicas(&self) -> Result<(), Error> {
        let wait = Wait {
            replicas: self.options.wait_replicas,
            timeout: self.options.wait_timeout,
        };
        if wait.replicas == 0 {
            return Ok(());
        }
        for server in self.servers()? {
            // Since Redis 7.2 and in Valkey, WAIT counts from its connection's last write: an earlier run
            // wrote over another one.
            let Some(key) = self.any_key_of(&server) else {
                continue;
            };
            let (mut set, mut delete) = (redis::cmd("SET"), redis::cmd("DEL"));
            set.arg(&key).arg("").arg("PX").arg(1);
            delete.arg(&key);
            let answers = self.wait(async {
                let answers = server.ask_waiting(vec![set, delete], wait).await;
                answers.map_err(|error| self.link.judge(&server, &error))
            })?;
            match answers.last() {
                Some(Value::Int(count)) if *count >= wait.replicas.into() => {}
                _ => {
                    let text = format!(
                        "{}: not as many replicas have it as broker.redis.wait_replicas asks for",
                        server.address
                    );
                    return Err(Error::storage(text));
                }
            }
        }
        Ok(())
    }

    /// A key of nobody's that is a server's to keep.
    fn any_key_of(&self, server: &Server) -> Option<String> {
        let keys = (0..4 * SLOTS).map(|n| self.keys.of_all_nodes(&format!("migration{n}"), "w"));
        let is_its = |key: &String| {
            let of = self.link.server(slot(key.as_bytes()));
            of.is_ok_and(|of| of.id == server.id)
        };
        keys.into_iter().find(is_its)
    }
}

fn servers(link: &Link) -> Result<Vec<Arc<Server>>, Error> {
    let mut servers = match link.routes() {
        Routes::Down(..) => return Err(Error::Unavailable),
        Routes::One(server) => vec![server],
        Routes::Many(cluster) => cluster.servers.clone(),
    };
    servers.sort_by(|one, other| one.run_id.cmp(&other.run_id));
    Ok(servers)
}
