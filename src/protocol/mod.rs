//! The words that clients, backends and this server share: channels, events, close codes.
//!
//! Pure: no socket, thread, runtime, database or clock is named here.

pub mod channel;
pub mod close;
pub mod event;

pub use channel::{ChannelError, ChannelKey};
pub use close::Close;
pub use event::{Epoch, Event, EventError, Position};
