//! WebSocket (RFC 6455) without sockets: bytes in, messages and bytes out.
//!
//! Pure: no socket, thread, runtime, database or clock is named here.

pub mod backlog;
pub mod engine;
pub mod frame;
pub mod lag;
pub mod outbox;

pub use backlog::Backlog;
pub use engine::{Dialogue, Engine, Received};
pub use frame::Frame;
pub use lag::Lag;
pub use outbox::Outbox;
