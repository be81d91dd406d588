//! TLS of our own: certificates from PEM files, replaced while the server runs.
//!
//! Only TLS 1.2 and 1.3 as rustls has them, over aws-lc-rs, for HTTP/1.1. What a worker does with an
//! encrypted socket is in `worker::stream`.

mod certificate;
mod endpoint;
mod expiry;
mod greeting;
mod own;

pub use certificate::{Fault, Files};
pub use endpoint::{Endpoint, Prepared, Refreshed};
pub use greeting::{ANSWER, Spoken, first_words};
pub use own::client as own_client;
