//! WebSocket (RFC 6455) without sockets: bytes in, messages and bytes out.
//!
//! Pure: no socket, thread, runtime, database or clock is named here.

pub mod engine;
pub mod frame;
pub mod outbox;

pub use engine::{Dialogue, Engine, Received};
pub use frame::Frame;
pub use outbox::Outbox;
