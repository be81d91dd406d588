//! What the integration tests stand on: the real binary, a plain HTTP client, a WebSocket client.
//!
//! Nothing in here knows how the server works inside; it sees what users see. Every test target
//! compiles its own copy with `mod support;` and uses a part of it.
//!
//! `FANFARE_TEST_BINARY` puts another build of the server under the same tests, a packaged one say.
//! `FANFARE_TEST_BACKEND=redis` runs the servers on a Redis that each test program starts for itself.
//! `FANFARE_TEST_TLS=1` has every server speak TLS, and every client that is not raw speak it, too.
//! `FANFARE_TEST_SEED` repeats the random choices of a failed run; the seed is printed.

#![allow(dead_code, unused_imports, reason = "no test target uses everything")]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]
#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

mod application;
mod bystander;
mod client;
mod dice;
mod event_stream;
mod http;
mod pki;
mod raw;
pub mod redis;
mod server;
mod signer;
mod token;
mod wallet;
mod wire;

pub use application::Application;
pub use bystander::{Bystander, Calm};
pub use client::Client;
pub use dice::Dice;
pub use event_stream::EventStream;
pub use http::{Reply, exchange, request};
pub use pki::Pki;
pub use raw::{Raw, frame, handshake};
pub use server::{Server, command};
pub use signer::{Signer, forge, key_set};
pub use token::rfc3339_in;
pub use wallet::{EthereumWallet, SolanaWallet};
pub use wire::Wire;

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Waits until `holds` does, looking every 10 ms; panics after `patience`, naming `what`.
#[track_caller]
pub fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < patience,
            "still not after {patience:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Holds what takes at most a second: in the best of three attempts, each of them whole, because a busy
/// machine may be late by itself.
#[track_caller]
pub fn within_a_second(what: &str, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|last| *last > SECOND) {
        took.push(attempt());
    }
    println!("{what}: {took:?}");
    assert!(took.iter().any(|one| *one <= SECOND), "{what}: {took:?}");
}
