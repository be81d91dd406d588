//! The session by itself: what each input makes it do, and what no input may ever make it do.

mod bench;
mod calls;
mod commands;
#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "shared with the integration tests; only its seed reads a clock"
)]
#[path = "../../tests/support/dice.rs"]
mod dice;
mod random;
mod time;
mod wishes;
