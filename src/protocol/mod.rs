//! The words that clients, backends and this server share: channels, events, close codes.
//!
//! Pure: no socket, thread, runtime, database or clock is named here.

pub mod channel;
pub mod close;
pub mod command;
pub mod connection;
pub mod depth;
pub mod event;
pub mod event_stream;
pub mod history;
pub mod reply;
pub mod shape;

pub use channel::{ChannelError, ChannelKey};
pub use close::Close;
pub use command::{Command, CommandError, Request, RequestId};
pub use event::{Epoch, Event, EventError, Position};
pub use reply::Reply;
