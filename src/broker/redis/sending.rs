//! Sending a call to the server of its keys: once, and again only where it is certain that the server
//! has not carried it out; and what an error means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{RedisError, Value};

use super::call::{Call, Wait};
use super::link::{Link, Routes, Shared};
use super::server::Server;
use crate::broker::Error;

/// Commands that may be under way; one more is [`Error::Overloaded`].
const COMMANDS_MAX: usize = 16_384;
/// Bytes of commands that may be under way.
const BYTES_MAX: usize = 64 << 20;
/// How often a command is sent to where a cluster has moved its slot.
const REDIRECTIONS_MAX: u32 = 8;

/// What was carried out.
pub(super) struct Written {
    pub(super) answer: Value,
    /// Whether as many replicas have it as were waited for.
    pub(super) is_replicated: bool,
}

impl Link {
    /// Sends a call to the server of its keys, once: again only where it is certain that the server
    /// has not carried it out.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, Error> {
        let written = self.call_for(call, None).await?;
        Ok(written.answer)
    }

    /// The same, answered when replicas have it, or have had their time.
    pub(super) async fn call_for(&self, call: &Call, wait: Option<Wait>) -> Result<Written, Error> {
        let _held = self.hold(call.bytes())?;
        // Only what it took: nothing is decided by it.
        let began = tokio::time::Instant::now();
        let outcome = self.routed(call, wait).await;
        let failed = !matches!(&outcome, Ok(written) if written.is_replicated);
        self.0
            .figures
            .answered(call.name(), began.elapsed(), failed);
        outcome
    }

    async fn routed(&self, call: &Call, wait: Option<Wait>) -> Result<Written, Error> {
        let slot = call.slot();
        let mut server = self.server(slot)?;
        let mut is_asking = false;
        for attempt in 1..=REDIRECTIONS_MAX {
            let mut replicas = None;
            let answer = if wait.is_none() && !is_asking {
                server.ask(&call.cmd(&server)).await
            } else {
                let cmds = match is_asking {
                    true => vec![redis::cmd("ASKING"), call.cmd_while_moving(&server)],
                    false => vec![call.cmd(&server)],
                };
                let answers = match wait {
                    Some(wait) => server.ask_waiting(cmds, wait).await,
                    None => server.ask_all(cmds).await,
                };
                answers.and_then(|mut answers| {
                    replicas = wait.and_then(|_| answers.pop());
                    answers.pop().unwrap_or_default().extract_error()
                })
            };
            is_asking = false;
            let error = match answer {
                Ok(answer) => {
                    let is_replicated = match (wait, replicas) {
                        (None, _) => true,
                        (Some(wait), Some(Value::Int(count))) => count >= wait.replicas.into(),
                        (Some(_), _) => false,
                    };
                    if !is_replicated {
                        self.0.figures.unreplicated.increment();
                    }
                    return Ok(Written {
                        answer,
                        is_replicated,
                    });
                }
                Err(error) => error,
            };
            match error.code() {
                Some("NOSCRIPT") => {
                    let Some(script) = call.script else {
                        return Err(Error::storage(error));
                    };
                    let reloaded = server.reload(script).await;
                    reloaded.map_err(|error| self.judge(&server, &error))?;
                }
                Some("MOVED" | "ASK") => {
                    is_asking = error.code() == Some("ASK");
                    self.0.nudge.notify_one();
                    match error.redirect_node().and_then(|(to, _)| self.at(to)) {
                        Some(other) => server = other,
                        None => {
                            tokio::time::sleep(Duration::from_millis(20 * u64::from(attempt)))
                                .await;
                            server = self.server(slot)?;
                        }
                    }
                }
                Some("TRYAGAIN") => {
                    tokio::time::sleep(Duration::from_millis(10 * u64::from(attempt))).await;
                }
                _ => return Err(self.judge(&server, &error)),
            }
        }
        Err(Error::Unavailable)
    }

    /// What an error means to callers, and to the server it came from.
    pub(super) fn judge(&self, server: &Server, error: &RedisError) -> Error {
        match error.code() {
            Some("OOM") => Error::Full,
            // It is no longer the one that takes writes.
            Some("READONLY" | "MASTERDOWN") => {
                server.mark_broken();
                self.0.nudge.notify_one();
                Error::Unavailable
            }
            Some("LOADING" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" | "BUSY") => {
                self.0.nudge.notify_one();
                Error::Unavailable
            }
            Some(_) => Error::storage(error),
            None if error.is_timeout() => Error::Unavailable,
            None if error.is_io_error() || error.is_connection_dropped() => {
                server.mark_broken();
                Error::Unavailable
            }
            None => Error::storage(error),
        }
    }

    /// Room for a command, as long as what is returned lives.
    fn hold(&self, bytes: usize) -> Result<Held<'_>, Error> {
        let commands = self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        let all = self.0.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        let held = Held {
            shared: &self.0,
            bytes,
        };
        if commands >= COMMANDS_MAX || all > BYTES_MAX {
            return Err(Error::Overloaded);
        }
        Ok(held)
    }

    /// The connected server at an address.
    fn at(&self, address: &str) -> Option<Arc<Server>> {
        let (host, port) = address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let Routes::Many(cluster) = self.routes() else {
            return None;
        };
        let is_it = |server: &&Arc<Server>| {
            server.address.host == host && server.address.port == port && !server.is_broken()
        };
        cluster.servers.iter().find(is_it).cloned()
    }
}

struct Held<'a> {
    shared: &'a Shared,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared
            .in_flight_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
