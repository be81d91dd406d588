//! Fanfare: the realtime layer of an application, as one binary.
//!
//! The layers are described in `ARCHITECTURE.md`; an import may only point down that list.

pub mod acceptor;
pub mod access_backend;
pub mod admission;
pub mod alerts;
pub mod app;
pub mod auth;
pub mod bench;
pub mod broker;
pub mod budget;
pub mod clock;
pub mod config;
pub mod control;
pub mod counter;
pub mod descriptors;
pub mod event_log;
pub mod http;
pub mod inbox;
pub mod key_pair;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod outgoing;
mod owner;
pub mod patience;
pub mod peers;
pub mod prehashed;
pub mod presence;
pub mod probe;
pub mod progress;
pub mod protocol;
pub mod router;
pub mod session;
pub mod shutdown;
pub mod sparing;
pub mod stopwatch;
pub mod supervisor;
pub mod timing;
pub mod tls;
pub mod trace;
pub mod web;
pub mod welcome;
pub mod worker;
pub mod ws;
