//! Fanfare: the realtime layer of an application, as one binary.
//!
//! The layers are described in `ARCHITECTURE.md`; an import may only point down that list.

pub mod admission;
pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod event_log;
pub mod http;
pub mod inbox;
pub mod metrics;
pub mod patience;
pub mod protocol;
pub mod web;
