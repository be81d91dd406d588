//! A [`Snapshot`](super::Snapshot) as text: `/stats` and `/metrics`. Contract section 7. Pure.

mod prometheus;
mod stats;

pub use prometheus::{CONTENT_TYPE as METRICS_CONTENT_TYPE, metrics};
pub use stats::{stats, uptime};
